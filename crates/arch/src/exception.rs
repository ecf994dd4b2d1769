//! Exceptions (SDM 3A 6.15 "Exception and Interrupt Reference").

/// An interrupt or exception vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(transparent)]
pub struct Vector(pub u8);

#[expect(missing_docs, reason = "the manual's mnemonics")]
impl Vector {
    pub const DE: Self = Self(0);
    pub const DB: Self = Self(1);
    pub const NMI: Self = Self(2);
    pub const BP: Self = Self(3);
    pub const OF: Self = Self(4);
    pub const BR: Self = Self(5);
    pub const UD: Self = Self(6);
    pub const NM: Self = Self(7);
    pub const DF: Self = Self(8);
    pub const TS: Self = Self(10);
    pub const NP: Self = Self(11);
    pub const SS: Self = Self(12);
    pub const GP: Self = Self(13);
    pub const PF: Self = Self(14);
    pub const MF: Self = Self(16);
    pub const AC: Self = Self(17);
    pub const MC: Self = Self(18);
    pub const XM: Self = Self(19);
    pub const VE: Self = Self(20);
    pub const CP: Self = Self(21);
}

impl Vector {
    /// Whether delivery pushes an error code: #DF, #TS, #NP, #SS, #GP, #PF, #AC, #CP.
    pub const fn has_error_code(self) -> bool {
        matches!(self.0, 8 | 10..=14 | 17 | 21)
    }
}

/// A fault that a guest's instruction caused: what the manual names, to be injected into that guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Fault {
    /// Invalid opcode.
    Ud,
    /// Stack-segment fault with its error code.
    Ss(u32),
    /// General protection with its error code.
    Gp(u32),
    /// Page fault.
    Pf {
        /// The linear address, for CR2.
        address: u64,
        /// The error code (SDM 3A 4.7 "Page-Fault Exceptions").
        error: u32,
    },
    /// Alignment check.
    Ac,
    /// Debug exception with the bits to set in DR6.
    Db(u64),
}
