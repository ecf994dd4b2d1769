//! ModRM, SIB and displacement: the parts of a memory operand (SDM 2A, 2.1.5 "Addressing-Mode Encoding of ModR/M and SIB
//! Bytes").

use arch::segment::SegmentName;
use arch::{Gpr, Width};

use crate::decode::{Cursor, DecodeError};
use crate::operand::{CodeSize, MemoryOperand};
use crate::prefix::Prefixes;

/// A ModRM byte.
#[derive(Clone, Copy)]
pub(crate) struct ModRm(pub(crate) u8);

impl ModRm {
    fn mode(self) -> u8 {
        self.0 >> 6
    }

    /// The reg field: a register, or more of the opcode.
    pub(crate) fn reg(self) -> u8 {
        self.0 >> 3 & 7
    }

    fn rm(self) -> u8 {
        self.0 & 7
    }

    /// Whether the operand is a register and not memory.
    pub(crate) fn is_register(self) -> bool {
        self.mode() == 3
    }

    /// The memory operand; reads SIB and displacement.
    #[inline]
    pub(crate) fn memory(
        self,
        cursor: &mut Cursor<'_>,
        prefixes: &Prefixes,
        code: CodeSize,
        address_width: Width,
    ) -> Result<MemoryOperand, DecodeError> {
        let mut operand = match address_width {
            Width::Word => self.parts_16(cursor)?,
            _ => self.parts_32_64(cursor, prefixes, code)?,
        };
        if let Some(segment) = prefixes.segment {
            operand.segment = segment;
        } else if matches!(operand.base, Some(Gpr::Rbp | Gpr::Rsp)) {
            operand.segment = SegmentName::Ss;
        }
        Ok(operand)
    }

    /// Table "16-Bit Addressing Forms with the ModR/M Byte".
    fn parts_16(self, cursor: &mut Cursor<'_>) -> Result<MemoryOperand, DecodeError> {
        let (base, index) = match self.rm() {
            0 => (Some(Gpr::Rbx), Some(Gpr::Rsi)),
            1 => (Some(Gpr::Rbx), Some(Gpr::Rdi)),
            2 => (Some(Gpr::Rbp), Some(Gpr::Rsi)),
            3 => (Some(Gpr::Rbp), Some(Gpr::Rdi)),
            4 => (Some(Gpr::Rsi), None),
            5 => (Some(Gpr::Rdi), None),
            6 if self.mode() == 0 => (None, None),
            6 => (Some(Gpr::Rbp), None),
            _ => (Some(Gpr::Rbx), None),
        };
        let displacement = match self.mode() {
            0 if base.is_some() => 0,
            1 => cursor.signed(Width::Byte)?,
            _ => cursor.signed(Width::Word)?,
        };
        Ok(MemoryOperand { base, index, displacement, ..NOTHING })
    }

    /// Tables "32-Bit Addressing Forms with the ModR/M Byte" and "… with the SIB Byte", and for 64-bit mode 2.2.1.6
    /// "RIP-Relative Addressing".
    #[inline]
    fn parts_32_64(
        self,
        cursor: &mut Cursor<'_>,
        prefixes: &Prefixes,
        code: CodeSize,
    ) -> Result<MemoryOperand, DecodeError> {
        let mut operand = NOTHING;
        // Without a base (encoding 5) mode 0 has a 32-bit displacement instead.
        let mut base = self.rm();
        if base == 4 {
            let sib = cursor.next()?;
            base = sib & 7;
            // Encoding 4 is "none" unless REX makes it R12.
            let index = sib >> 3 & 7 | prefixes.rex_x();
            if index != 4 {
                operand.index = Some(Gpr::from_number(index));
                operand.shift = sib >> 6;
            }
        } else if base == 5 && self.mode() == 0 {
            operand.rip_relative = code == CodeSize::Bits64;
        }
        if base != 5 || self.mode() != 0 {
            operand.base = Some(Gpr::from_number(base | prefixes.rex_b()));
        }
        operand.displacement = match self.mode() {
            0 if operand.base.is_some() => 0,
            1 => cursor.signed(Width::Byte)?,
            _ => cursor.signed(Width::Dword)?,
        };
        Ok(operand)
    }
}

const NOTHING: MemoryOperand =
    MemoryOperand { segment: SegmentName::Ds, base: None, index: None, shift: 0, displacement: 0, rip_relative: false };
