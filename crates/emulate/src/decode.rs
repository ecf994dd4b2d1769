//! Instruction bytes to an [`Instruction`]: those that compilers and kernels use on device memory.
//!
//! MOV, MOVNTI, MOVZX, MOVSX, MOVSXD; ADD, OR, ADC, SBB, AND, SUB, XOR, CMP, TEST with register and immediate; NOT, NEG,
//! INC, DEC; XCHG, XADD, CMPXCHG; BT, BTS, BTR, BTC; STOS, LODS, MOVS with REP. Only forms with a memory operand: the
//! others touch no device. Source: SDM 2D, appendix A "Opcode Map", and 2A, 2.1 "Instruction Format for Protected Mode,
//! Real-Address Mode, and Virtual-8086 Mode" and 2.2 "IA-32e Mode".

use arch::segment::SegmentName;
use arch::{Gpr, Width};

use crate::arithmetic::sign_extend;
use crate::modrm::ModRm;
use crate::operand::{Alu, BitChange, CodeSize, Instruction, MemoryOperand, Operation, Other, Register};
use crate::prefix::Prefixes;

/// Longest instruction in bytes (SDM 2A, 2.3.11 "Intel AVX Instruction Length"; longer ones are #GP).
pub const MAX_LENGTH: usize = 15;

/// Why bytes were not decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum DecodeError {
    /// The instruction goes on after the bytes given.
    Incomplete,
    /// Not an instruction of the subset, or not one with a memory operand.
    Unsupported,
    /// The instruction would be longer than 15 bytes.
    TooLong,
}

/// Decodes the instruction at the start of `bytes`.
#[inline]
pub fn decode(bytes: &[u8], code: CodeSize) -> Result<Instruction, DecodeError> {
    let mut cursor = Cursor { bytes, at: 0 };
    let (prefixes, opcode) = Prefixes::read(&mut cursor, code)?;
    let mut decoder = Decoder { cursor, code, prefixes };
    let instruction = if opcode == 0x0f { decoder.two_byte()? } else { decoder.one_byte(opcode)? };
    // Anything else with LOCK is #UD (SDM 2A, "LOCK—Assert LOCK# Signal Prefix").
    let lockable = match instruction.operation {
        Operation::Alu(alu) => alu != Alu::Cmp,
        Operation::Bit(change) => change != BitChange::Keep,
        Operation::Not | Operation::Neg | Operation::Inc | Operation::Dec => true,
        Operation::Xchg | Operation::Xadd | Operation::CmpXchg => true,
        _ => false,
    };
    if instruction.lock && !(lockable && instruction.to_memory) {
        return Err(DecodeError::Unsupported);
    }
    Ok(instruction)
}

/// The bytes not yet read.
pub(crate) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    #[inline]
    pub(crate) fn next(&mut self) -> Result<u8, DecodeError> {
        if self.at == MAX_LENGTH {
            return Err(DecodeError::TooLong);
        }
        let byte = *self.bytes.get(self.at).ok_or(DecodeError::Incomplete)?;
        self.at += 1;
        Ok(byte)
    }

    /// The next `width` as a number extended by its sign.
    pub(crate) fn signed(&mut self, width: Width) -> Result<u64, DecodeError> {
        let mut value = 0;
        for byte in 0..width.bytes() {
            value |= u64::from(self.next()?) << (8 * byte);
        }
        Ok(sign_extend(width, value))
    }
}

struct Decoder<'a> {
    cursor: Cursor<'a>,
    code: CodeSize,
    prefixes: Prefixes,
}

impl Decoder<'_> {
    fn one_byte(&mut self, opcode: u8) -> Result<Instruction, DecodeError> {
        // Bit 0 of most opcodes: byte operands, or those of the operand size.
        let width = if opcode & 1 == 0 { Width::Byte } else { self.operand_width() };
        match opcode {
            0x88..=0x8b => self.register_form(Operation::Mov, width, opcode & 2 == 0),
            0xc6 | 0xc7 => {
                let modrm = self.memory_modrm()?;
                match modrm.reg() {
                    0 => self.immediate_form(modrm, Operation::Mov, width, width),
                    _ => Err(DecodeError::Unsupported),
                }
            }
            0xa0..=0xa3 => self.offset_form(width, opcode & 2 != 0),
            0x00..=0x3f if opcode & 7 < 4 => {
                self.register_form(Operation::Alu(Alu::from_number(opcode >> 3)), width, opcode & 2 == 0)
            }
            0x80 | 0x81 | 0x83 => {
                let modrm = self.memory_modrm()?;
                let immediate = if opcode == 0x81 { width } else { Width::Byte };
                self.immediate_form(modrm, Operation::Alu(Alu::from_number(modrm.reg())), width, immediate)
            }
            0x84 | 0x85 => self.register_form(Operation::Test, width, true),
            0x86 | 0x87 => self.register_form(Operation::Xchg, width, true),
            0xf6 | 0xf7 => {
                let modrm = self.memory_modrm()?;
                match modrm.reg() {
                    0 | 1 => self.immediate_form(modrm, Operation::Test, width, width),
                    2 => self.memory_form(modrm, Operation::Not, width),
                    3 => self.memory_form(modrm, Operation::Neg, width),
                    _ => Err(DecodeError::Unsupported),
                }
            }
            0xfe | 0xff => {
                let modrm = self.memory_modrm()?;
                match modrm.reg() {
                    0 => self.memory_form(modrm, Operation::Inc, width),
                    1 => self.memory_form(modrm, Operation::Dec, width),
                    _ => Err(DecodeError::Unsupported),
                }
            }
            0x63 if self.code == CodeSize::Bits64 => {
                let width = self.operand_width();
                let from = if width == Width::Word { Width::Word } else { Width::Dword };
                self.register_form(Operation::MovSx(from), width, false)
            }
            0xa4 | 0xa5 => Ok(self.string_form(Operation::Movs, width)),
            0xaa | 0xab => Ok(self.string_form(Operation::Stos, width)),
            0xac | 0xad => Ok(self.string_form(Operation::Lods, width)),
            _ => Err(DecodeError::Unsupported),
        }
    }

    fn two_byte(&mut self) -> Result<Instruction, DecodeError> {
        let opcode = self.cursor.next()?;
        let wide = self.operand_width();
        let width = if opcode & 1 == 0 { Width::Byte } else { wide };
        match opcode {
            // MOVNTI takes no operand-size prefix: REX.W alone decides.
            0xc3 if !self.prefixes.operand_size && !self.prefixes.repeat => {
                let width = if self.prefixes.rex_w() { Width::Qword } else { Width::Dword };
                self.register_form(Operation::Mov, width, true)
            }
            0xb6 | 0xb7 | 0xbe | 0xbf => {
                let from = if opcode & 1 == 0 { Width::Byte } else { Width::Word };
                let operation = if opcode & 8 == 0 { Operation::MovZx(from) } else { Operation::MovSx(from) };
                self.register_form(operation, wide, false)
            }
            0xb0 | 0xb1 => self.register_form(Operation::CmpXchg, width, true),
            0xc0 | 0xc1 => self.register_form(Operation::Xadd, width, true),
            0xa3 | 0xab | 0xb3 | 0xbb => {
                self.register_form(Operation::Bit(BitChange::from_number(opcode >> 3)), wide, true)
            }
            0xba => {
                let modrm = self.memory_modrm()?;
                match modrm.reg() {
                    reg @ 4..=7 => {
                        let operation = Operation::Bit(BitChange::from_number(reg));
                        self.immediate_form(modrm, operation, wide, Width::Byte)
                    }
                    _ => Err(DecodeError::Unsupported),
                }
            }
            _ => Err(DecodeError::Unsupported),
        }
    }

    fn operand_width(&self) -> Width {
        if self.prefixes.rex_w() {
            return Width::Qword;
        }
        match (self.code, self.prefixes.operand_size) {
            (CodeSize::Bits16, false) | (CodeSize::Bits32 | CodeSize::Bits64, true) => Width::Word,
            _ => Width::Dword,
        }
    }

    fn address_width(&self) -> Width {
        match (self.code, self.prefixes.address_size) {
            (CodeSize::Bits64, false) => Width::Qword,
            (CodeSize::Bits64, true) | (CodeSize::Bits32, false) | (CodeSize::Bits16, true) => Width::Dword,
            _ => Width::Word,
        }
    }

    fn memory_modrm(&mut self) -> Result<ModRm, DecodeError> {
        let modrm = ModRm(self.cursor.next()?);
        if modrm.is_register() { Err(DecodeError::Unsupported) } else { Ok(modrm) }
    }

    #[inline]
    fn memory_operand(&mut self, modrm: ModRm) -> Result<MemoryOperand, DecodeError> {
        let address_width = self.address_width();
        modrm.memory(&mut self.cursor, &self.prefixes, self.code, address_width)
    }

    /// A register in the reg field of ModRM, memory in the rest.
    fn register_form(
        &mut self,
        operation: Operation,
        width: Width,
        to_memory: bool,
    ) -> Result<Instruction, DecodeError> {
        let modrm = self.memory_modrm()?;
        let number = modrm.reg() | self.prefixes.rex_r();
        // Without REX, byte registers 4 to 7 are AH, CH, DH and BH.
        let high_byte = width == Width::Byte && !self.prefixes.has_rex() && number >= 4;
        let gpr = Gpr::from_number(if high_byte { number - 4 } else { number });
        let other = Other::Register(Register { gpr, high_byte });
        let memory = self.memory_operand(modrm)?;
        Ok(self.finish(operation, width, memory, other, to_memory))
    }

    /// An immediate of `immediate` width (of 4 bytes if that is 8), and memory.
    fn immediate_form(
        &mut self,
        modrm: ModRm,
        operation: Operation,
        width: Width,
        immediate: Width,
    ) -> Result<Instruction, DecodeError> {
        let memory = self.memory_operand(modrm)?;
        let other = Other::Immediate(self.cursor.signed(immediate.min(Width::Dword))?);
        Ok(self.finish(operation, width, memory, other, true))
    }

    /// Memory alone.
    fn memory_form(&mut self, modrm: ModRm, operation: Operation, width: Width) -> Result<Instruction, DecodeError> {
        let memory = self.memory_operand(modrm)?;
        Ok(self.finish(operation, width, memory, Other::None, true))
    }

    /// MOV between the accumulator and an address of the address size that stands in the instruction.
    fn offset_form(&mut self, width: Width, to_memory: bool) -> Result<Instruction, DecodeError> {
        let address_width = self.address_width();
        let displacement = self.cursor.signed(address_width)? & address_width.mask();
        let memory = MemoryOperand { displacement, ..self.string_memory() };
        let other = Other::Register(Register { gpr: Gpr::Rax, high_byte: false });
        Ok(self.finish(Operation::Mov, width, memory, other, to_memory))
    }

    fn string_form(&mut self, operation: Operation, width: Width) -> Instruction {
        let to_memory = operation != Operation::Lods;
        let repeat = self.prefixes.repeat;
        let instruction = self.finish(operation, width, self.string_memory(), Other::None, to_memory);
        Instruction { repeat, ..instruction }
    }

    fn string_memory(&self) -> MemoryOperand {
        let segment = self.prefixes.segment.unwrap_or(SegmentName::Ds);
        MemoryOperand { segment, base: None, index: None, shift: 0, displacement: 0, rip_relative: false }
    }

    #[inline]
    fn finish(
        &self,
        operation: Operation,
        width: Width,
        memory: MemoryOperand,
        other: Other,
        to_memory: bool,
    ) -> Instruction {
        #[expect(clippy::cast_possible_truncation, reason = "at most MAX_LENGTH")]
        let length = self.cursor.at as u8;
        Instruction {
            operation,
            width,
            address_width: self.address_width(),
            memory,
            other,
            to_memory,
            repeat: false,
            lock: self.prefixes.lock,
            length,
        }
    }
}
