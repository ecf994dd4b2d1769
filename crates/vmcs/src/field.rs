//! What a VMCS field is: an encoding, a width, and what is known about it.
//!
//! The fields themselves are in [`crate::fields`], each typed once. Encodings: SDM 3C 25.11.2 "VMREAD, VMWRITE, and
//! Encodings of VMCS Fields", table "Structure of VMCS Component Encoding".

use core::marker::PhantomData;

use crate::controls::{
    EntryControls, ExitControls, PinBased, PrimaryBased, SecondaryBased, SecondaryExitControls, TertiaryBased,
};

/// The number by which VMREAD and VMWRITE name a field.
///
/// Bit 0 is the access type (1: the high half of a 64-bit field), bits 9:1 the index, bits 11:10 the area, bits 14:13
/// the width; all others are zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Encoding(pub u32);

impl Encoding {
    /// The width that bits 14:13 say.
    pub const fn width(self) -> FieldWidth {
        match self.0 >> 13 & 3 {
            0 => FieldWidth::Bits16,
            1 => FieldWidth::Bits64,
            2 => FieldWidth::Bits32,
            _ => FieldWidth::Natural,
        }
    }

    /// The area that bits 11:10 say.
    pub const fn area(self) -> Area {
        match self.0 >> 10 & 3 {
            0 => Area::Control,
            1 => Area::ReadOnly,
            2 => Area::Guest,
            _ => Area::Host,
        }
    }

    /// Bits 9:1: counts the fields of one area and width. The highest one that the processor knows is what
    /// IA32_VMX_VMCS_ENUM reports.
    pub const fn index(self) -> u32 {
        self.0 >> 1 & 0x1ff
    }

    /// Whether this names bits 63:32 of a 64-bit field (access type "high").
    pub const fn is_high_half(self) -> bool {
        self.0 & 1 != 0
    }

    /// The encoding of bits 63:32 of this field; `None` unless this is the full encoding of a 64-bit field.
    pub const fn high_half(self) -> Option<Self> {
        if self.is_high_half() || !matches!(self.width(), FieldWidth::Bits64) { None } else { Some(Self(self.0 | 1)) }
    }

    /// The encoding of the whole field: this one without the access type.
    pub const fn full(self) -> Self {
        Self(self.0 & !1)
    }

    /// Whether the reserved bits 12 and 31:15 are clear, and the access type is "high" for 64-bit fields only.
    pub const fn is_well_formed(self) -> bool {
        self.0 & !0x6fff == 0 && (!self.is_high_half() || matches!(self.width(), FieldWidth::Bits64))
    }

    /// What the processor keeps of `value` in a field of this width.
    pub const fn truncate(self, value: u64) -> u64 {
        match self.width() {
            FieldWidth::Bits16 => value & 0xffff,
            FieldWidth::Bits32 => value & 0xffff_ffff,
            FieldWidth::Bits64 | FieldWidth::Natural => value,
        }
    }
}

impl core::fmt::Debug for Encoding {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match info(*self) {
            Some(field) if self.is_high_half() => write!(f, "{} (high)", field.name),
            Some(field) => f.write_str(field.name),
            None => write!(f, "VMCS field {:#06x}", self.0),
        }
    }
}

#[cfg(feature = "defmt")]
impl defmt::Format for Encoding {
    fn format(&self, f: defmt::Formatter<'_>) {
        match info(*self) {
            Some(field) => defmt::write!(f, "{=str}", field.name),
            None => defmt::write!(f, "VMCS field {=u32:#x}", self.0),
        }
    }
}

/// How wide a field is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldWidth {
    /// 16 bits.
    Bits16,
    /// 32 bits.
    Bits32,
    /// 64 bits on every processor.
    Bits64,
    /// As wide as the processor: 64 bits on all that Nestling runs on.
    Natural,
}

/// The area of the VMCS that the encoding names; the manual calls it the type of the field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Area {
    /// Control fields.
    Control,
    /// VM-exit information; read-only unless IA32_VMX_MISC bit 29 is set.
    ReadOnly,
    /// Guest state.
    Guest,
    /// Host state.
    Host,
}

/// The manual's six logical groups (SDM 3C 25.3 "Organization of VMCS Data").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// SDM 3C 25.4 "Guest-State Area".
    Guest,
    /// SDM 3C 25.5 "Host-State Area".
    Host,
    /// SDM 3C 25.6 "VM-Execution Control Fields".
    Execution,
    /// SDM 3C 25.7 "VM-Exit Control Fields".
    Exit,
    /// SDM 3C 25.8 "VM-Entry Control Fields".
    Entry,
    /// SDM 3C 25.9 "VM-Exit Information Fields".
    ExitInformation,
}

impl Group {
    /// All groups in the order in which a dump is read.
    pub const ALL: [Self; 6] =
        [Self::ExitInformation, Self::Guest, Self::Host, Self::Execution, Self::Exit, Self::Entry];

    /// The manual's name of the group.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Guest => "guest state",
            Self::Host => "host state",
            Self::Execution => "VM-execution controls",
            Self::Exit => "VM-exit controls",
            Self::Entry => "VM-entry controls",
            Self::ExitInformation => "VM-exit information",
        }
    }
}

/// A capability without which a field does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// The 1-setting of a pin-based VM-execution control.
    Pin(PinBased),
    /// The 1-setting of a primary processor-based VM-execution control.
    Primary(PrimaryBased),
    /// The 1-setting of a secondary processor-based VM-execution control.
    Secondary(SecondaryBased),
    /// The 1-setting of a tertiary processor-based VM-execution control.
    Tertiary(TertiaryBased),
    /// The 1-setting of a primary VM-exit control.
    Exit(ExitControls),
    /// The 1-setting of a secondary VM-exit control.
    SecondaryExit(SecondaryExitControls),
    /// The 1-setting of a VM-entry control.
    Entry(EntryControls),
    /// This bit of IA32_VMX_VMFUNC.
    VmFunction(u8),
    /// More CR3-target values than this number (IA32_VMX_MISC bits 24:16).
    MoreCr3TargetsThan(u8),
}

/// What is known about a field: one row of the table.
#[derive(Clone, Copy, Debug)]
pub struct FieldInfo {
    /// The field's name, as its constant in [`crate::fields`] is called.
    pub name: &'static str,
    /// Its encoding; for a 64-bit field the full one.
    pub encoding: Encoding,
    /// The logical group.
    pub group: Group,
    /// The field exists if the processor has any of these; always, if there is none.
    pub needs: &'static [Needs],
}

impl FieldInfo {
    /// Whether VMWRITE is refused unless IA32_VMX_MISC bit 29 allows writing all fields.
    pub const fn is_read_only(&self) -> bool {
        matches!(self.encoding.area(), Area::ReadOnly)
    }
}

/// The row of the table for `encoding`, which may also be that of the high half of a 64-bit field.
pub fn info(encoding: Encoding) -> Option<&'static FieldInfo> {
    if !encoding.is_well_formed() {
        return None;
    }
    crate::fields::FIELDS.iter().find(|field| field.encoding == encoding.full())
}

/// Bit for each encoding of a field that every processor with VMX has, by [`common_key`].
static COMMON: [u64; 16] = {
    let mut bits = [0; 16];
    let mut row = 0;
    while row < crate::fields::FIELDS.len() {
        let field = &crate::fields::FIELDS[row];
        if field.needs.is_empty() {
            let key = common_key(field.encoding);
            bits[key / 64] |= 1 << (key % 64);
        }
        row += 1;
    }
    bits
};

/// Width, area and index in ten bits.
const fn common_key(encoding: Encoding) -> usize {
    ((encoding.0 >> 13 & 3) << 8 | (encoding.0 >> 10 & 3) << 6 | (encoding.0 >> 1 & 0x3f)) as usize
}

/// Whether every processor with VMX has the field, of the table, with this encoding, so that VMREAD and VMWRITE of it cannot
/// fail. For a constant the compiler knows the answer.
#[inline(always)]
pub fn is_common(encoding: Encoding) -> bool {
    let key = common_key(encoding) & 1023;
    COMMON[key / 64] >> (key % 64) & 1 != 0
}

/// A field's width as a type: [`W16`], [`W32`], [`W64`] or [`Natural`].
pub trait Width: sealed::Sealed {
    /// The integer that holds the field.
    type Value: Copy + Eq + core::fmt::Debug;

    /// The width bits that an encoding of this width has.
    const WIDTH: FieldWidth;

    /// The field's value out of what VMREAD returned.
    fn from_raw(raw: u64) -> Self::Value;

    /// What VMWRITE is given.
    fn to_raw(value: Self::Value) -> u64;
}

mod sealed {
    pub trait Sealed {}
}

macro_rules! widths {
    ($($(#[$doc:meta])* $name:ident, $value:ty, $width:ident, $from:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub enum $name {}

        impl sealed::Sealed for $name {}

        impl Width for $name {
            type Value = $value;
            const WIDTH: FieldWidth = FieldWidth::$width;

            #[inline(always)]
            fn from_raw(raw: u64) -> $value { $from(raw) }

            #[inline(always)]
            fn to_raw(value: $value) -> u64 { u64::from(value) }
        }
    )*};
}

widths! {
    /// 16-bit fields.
    W16, u16, Bits16, low_16;
    /// 32-bit fields.
    W32, u32, Bits32, low_32;
    /// 64-bit fields.
    W64, u64, Bits64, core::convert::identity;
    /// Natural-width fields; 64 bits here.
    Natural, u64, Natural, core::convert::identity;
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "VMREAD zeroes the bits above a field's width")]
const fn low_16(raw: u64) -> u16 {
    raw as u16
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "VMREAD zeroes the bits above a field's width")]
const fn low_32(raw: u64) -> u32 {
    raw as u32
}

/// A field of width `W`. Reading and writing it goes through [`crate::Access`], in values of that width.
pub struct Field<W> {
    encoding: Encoding,
    width: PhantomData<fn() -> W>,
}

impl<W: Width> Field<W> {
    /// The field with this encoding.
    ///
    /// # Panics
    ///
    /// If the encoding's width bits are not those of `W`, or the encoding is malformed or a high half. The table's
    /// constants are evaluated by the compiler, so there a wrong row does not build.
    pub const fn new(encoding: u32) -> Self {
        let encoding = Encoding(encoding);
        assert!(encoding.is_well_formed(), "reserved bits of the encoding are set");
        assert!(!encoding.is_high_half(), "a high half is not a field of its own");
        assert!(encoding.width() as u8 == W::WIDTH as u8, "the encoding's width bits disagree with the type");
        Self { encoding, width: PhantomData }
    }

    /// The field's encoding.
    #[inline(always)]
    pub const fn encoding(self) -> Encoding {
        self.encoding
    }
}

impl<W> Clone for Field<W> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<W> Copy for Field<W> {}

impl<W> core::fmt::Debug for Field<W> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.encoding.fmt(f)
    }
}
