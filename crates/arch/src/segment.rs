//! Segment registers as VMX sees them.

use bit_field::BitField;

/// A segment register, numbered as instructions and VM-exit instruction information number them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(u8)]
#[expect(missing_docs, reason = "a register's name says what it is")]
pub enum SegmentName {
    Es = 0,
    Cs = 1,
    Ss = 2,
    Ds = 3,
    Fs = 4,
    Gs = 5,
}

/// A segment's access rights in the VMCS's layout (SDM 3C 25.4.1 "Guest Register State", table "Format of Access Rights").
#[derive(Clone, Copy, PartialEq, Eq, Default)]
#[repr(transparent)]
pub struct AccessRights(pub u32);

impl AccessRights {
    /// Type, bits 3:0.
    pub fn kind(self) -> u32 {
        self.0.get_bits(0..4)
    }
    /// S, bit 4: a code or data segment, not a system one.
    pub fn is_code_or_data(self) -> bool {
        self.0.get_bit(4)
    }
    /// DPL, bits 6:5.
    pub fn dpl(self) -> u32 {
        self.0.get_bits(5..7)
    }
    /// P, bit 7.
    pub fn is_present(self) -> bool {
        self.0.get_bit(7)
    }
    /// L, bit 13: 64-bit code segment.
    pub fn is_long(self) -> bool {
        self.0.get_bit(13)
    }
    /// D/B, bit 14: 32-bit operands and addresses by default, or a big stack segment.
    pub fn is_big(self) -> bool {
        self.0.get_bit(14)
    }
    /// G, bit 15: the limit counts 4-KiB units.
    pub fn is_granular(self) -> bool {
        self.0.get_bit(15)
    }
    /// Bit 16: the register holds no usable segment.
    pub fn is_unusable(self) -> bool {
        self.0.get_bit(16)
    }
    /// Whether it is a code segment (S set and type bit 3).
    pub fn is_code(self) -> bool {
        self.is_code_or_data() && self.0.get_bit(3)
    }
}

impl core::fmt::Debug for AccessRights {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

#[cfg(feature = "defmt")]
impl defmt::Format for AccessRights {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "{=u32:#x}", self.0);
    }
}

/// One segment register with its hidden part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Segment {
    /// Selector.
    pub selector: u16,
    /// Base address.
    pub base: u64,
    /// Limit in bytes, granularity applied.
    pub limit: u32,
    /// Access rights.
    pub rights: AccessRights,
}
