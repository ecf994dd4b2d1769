//! Prefixes before the opcode (SDM 2A, 2.1.1 "Instruction Prefixes" and 2.2.1 "REX Prefixes").

use arch::segment::SegmentName;

use crate::decode::{Cursor, DecodeError};
use crate::operand::CodeSize;

/// What the prefixes of one instruction say.
#[derive(Default)]
pub(crate) struct Prefixes {
    pub(crate) operand_size: bool,
    pub(crate) address_size: bool,
    pub(crate) lock: bool,
    /// REP or REPNE: for the string instructions that move data they are the same.
    pub(crate) repeat: bool,
    /// The last override; in 64-bit mode only FS and GS count.
    pub(crate) segment: Option<SegmentName>,
    rex: u8,
}

impl Prefixes {
    /// Reads up to the opcode, which is returned too.
    #[inline]
    pub(crate) fn read(cursor: &mut Cursor<'_>, code: CodeSize) -> Result<(Self, u8), DecodeError> {
        let mut prefixes = Self::default();
        loop {
            let byte = cursor.next()?;
            if code == CodeSize::Bits64 && byte & 0xf0 == 0x40 {
                prefixes.rex = byte;
                continue;
            }
            if !prefixes.take_legacy(byte, code) {
                return Ok((prefixes, byte));
            }
            // REX counts only right before the opcode.
            prefixes.rex = 0;
        }
    }

    fn take_legacy(&mut self, byte: u8, code: CodeSize) -> bool {
        match byte {
            0x66 => self.operand_size = true,
            0x67 => self.address_size = true,
            0xf0 => self.lock = true,
            0xf2 | 0xf3 => self.repeat = true,
            0x64 => self.segment = Some(SegmentName::Fs),
            0x65 => self.segment = Some(SegmentName::Gs),
            0x26 | 0x2e | 0x36 | 0x3e if code == CodeSize::Bits64 => {}
            0x26 => self.segment = Some(SegmentName::Es),
            0x2e => self.segment = Some(SegmentName::Cs),
            0x36 => self.segment = Some(SegmentName::Ss),
            0x3e => self.segment = Some(SegmentName::Ds),
            _ => return false,
        }
        true
    }

    pub(crate) fn has_rex(&self) -> bool {
        self.rex != 0
    }

    pub(crate) fn rex_w(&self) -> bool {
        self.rex & 8 != 0
    }

    /// 8 if REX extends the reg field of ModRM, otherwise 0; likewise below.
    pub(crate) fn rex_r(&self) -> u8 {
        self.rex << 1 & 8
    }

    pub(crate) fn rex_x(&self) -> u8 {
        self.rex << 2 & 8
    }

    pub(crate) fn rex_b(&self) -> u8 {
        self.rex << 3 & 8
    }
}
