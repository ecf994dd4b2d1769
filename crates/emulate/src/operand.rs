//! What the decoder finds: operation, operands, length.

use arch::segment::{AccessRights, SegmentName};
use arch::{Gpr, Width};

/// The size of code that CS and IA32_EFER select (SDM 1, 3.3.6 and 3.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum CodeSize {
    /// Real mode, virtual-8086 mode and 16-bit segments.
    Bits16,
    /// 32-bit segments, also in compatibility mode.
    Bits32,
    /// 64-bit mode.
    Bits64,
}

impl CodeSize {
    /// From the access rights of CS, and whether IA-32e mode is active (IA32_EFER.LMA).
    pub fn of(cs: AccessRights, long_mode_active: bool) -> Self {
        if long_mode_active && cs.is_long() {
            Self::Bits64
        } else if cs.is_big() {
            Self::Bits32
        } else {
            Self::Bits16
        }
    }
}

/// What an instruction does with its memory operand M, its other operand O (a register or an immediate) and the flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Operation {
    /// Copies one to the other: MOV, MOVNTI.
    Mov,
    /// O is M, which has this width, extended by zeros: MOVZX.
    MovZx(Width),
    /// O is M, which has this width, extended by its sign: MOVSX, MOVSXD.
    MovSx(Width),
    /// Two-operand arithmetic, either way round.
    Alu(Alu),
    /// Flags of M AND O.
    Test,
    /// One bit of M, numbered by O, to CF, and then changed.
    Bit(BitChange),
    /// Complement of M.
    Not,
    /// 0 - M.
    Neg,
    /// M + 1, CF kept.
    Inc,
    /// M - 1, CF kept.
    Dec,
    /// Exchanges M and O.
    Xchg,
    /// Exchanges M and O, then adds O to M.
    Xadd,
    /// If M equals the accumulator O is stored to M, otherwise M is loaded to the accumulator.
    CmpXchg,
    /// Accumulator to ES:rDI.
    Stos,
    /// DS:rSI, or another segment, to the accumulator.
    Lods,
    /// DS:rSI, or another segment, to ES:rDI.
    Movs,
}

/// The eight operations of opcodes 00 to 3F and of groups 80, 81 and 83, in the order of their encodings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[expect(missing_docs, reason = "the manual's mnemonics")]
pub enum Alu {
    Add,
    Or,
    Adc,
    Sbb,
    And,
    Sub,
    Xor,
    Cmp,
}

impl Alu {
    /// The operation with encoding `number`; only the low three bits count.
    pub(crate) const fn from_number(number: u8) -> Self {
        match number & 7 {
            0 => Self::Add,
            1 => Self::Or,
            2 => Self::Adc,
            3 => Self::Sbb,
            4 => Self::And,
            5 => Self::Sub,
            6 => Self::Xor,
            _ => Self::Cmp,
        }
    }
}

/// What becomes of the bit that BT, BTS, BTR and BTC test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum BitChange {
    /// BT: it stays.
    Keep,
    /// BTS: 1.
    Set,
    /// BTR: 0.
    Reset,
    /// BTC: the opposite.
    Complement,
}

impl BitChange {
    /// From bits 4:3 of the opcode, or bits 1:0 of the reg field of group 0F BA.
    pub(crate) const fn from_number(number: u8) -> Self {
        match number & 3 {
            0 => Self::Keep,
            1 => Self::Set,
            2 => Self::Reset,
            _ => Self::Complement,
        }
    }
}

/// A general-purpose register as an operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Register {
    /// The register.
    pub gpr: Gpr,
    /// AH, CH, DH or BH: bits 15:8 of the register.
    pub high_byte: bool,
}

/// The operand that is not in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Other {
    /// There is none, or it is implied by the operation.
    None,
    /// A register.
    Register(Register),
    /// A constant, sign-extended to 64 bits.
    Immediate(u64),
}

/// The parts of a memory operand: segment:[base + index * scale + displacement]. A string instruction has only the
/// segment of its source here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct MemoryOperand {
    /// The segment, by prefix or by default.
    pub segment: SegmentName,
    /// Base register.
    pub base: Option<Gpr>,
    /// Index register.
    pub index: Option<Gpr>,
    /// What the index is multiplied by, as a shift: 0 to 3.
    pub shift: u8,
    /// Sign-extended displacement.
    pub displacement: u64,
    /// Relative to the address of the next instruction.
    pub rip_relative: bool,
}

/// A decoded instruction with a memory operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Instruction {
    /// What it does.
    pub operation: Operation,
    /// Operand width.
    pub width: Width,
    /// Address width: word, dword or qword. Effective addresses and the registers of string instructions have it.
    pub address_width: Width,
    /// The memory operand.
    pub memory: MemoryOperand,
    /// The other operand.
    pub other: Other,
    /// The result goes to the memory operand, if the operation has a result.
    pub to_memory: bool,
    /// With a REP or REPNE prefix that counts: a string instruction's.
    pub repeat: bool,
    /// With a LOCK prefix.
    pub lock: bool,
    /// Length in bytes, 1 to 15.
    pub length: u8,
}
