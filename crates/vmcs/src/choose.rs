//! From what is wanted to a control word that the processor accepts.

use crate::controls::ControlWord;

/// Which bits of a control word may be 0 and which may be 1 (SDM 3D A.2 "Reserved Controls and Default Settings").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Allowed<C> {
    /// The allowed 0-settings: a bit that is 1 here must be 1 in the control word.
    pub allowed0: C,
    /// The allowed 1-settings: a bit that is 0 here must be 0 in the control word.
    pub allowed1: C,
}

impl<C: ControlWord> Allowed<C> {
    /// From a capability MSR of a 32-bit word: allowed 0-settings in bits 31:0, allowed 1-settings in bits 63:32.
    pub fn from_msr(msr: u64) -> Self {
        Self { allowed0: C::from_bits_truncated(msr & 0xffff_ffff), allowed1: C::from_bits_truncated(msr >> 32) }
    }

    /// From a capability MSR of a 64-bit word: the allowed 1-settings; every bit may be 0.
    pub fn from_allowed1(msr: u64) -> Self {
        Self { allowed0: C::from_bits_truncated(0), allowed1: C::from_bits_truncated(msr) }
    }

    /// Whether all of `controls` may be 1.
    #[inline]
    pub fn supports(&self, controls: C) -> bool {
        controls.to_bits() & !self.allowed1.to_bits() == 0
    }

    /// Whether the processor accepts `word`: VM entry with any other one fails.
    #[inline]
    pub fn permits(&self, word: C) -> bool {
        self.supports(word) && self.allowed0.to_bits() & !word.to_bits() == 0
    }

    /// The word with all of `required`, those of `wanted` that may be 1, and what must be 1.
    ///
    /// # Errors
    ///
    /// [`MissingControls`] names the required controls that may not be 1.
    pub fn choose(&self, required: C, wanted: C) -> Result<Choice<C>, MissingControls> {
        let (allowed0, allowed1) = (self.allowed0.to_bits(), self.allowed1.to_bits());
        let missing = required.to_bits() & !allowed1;
        if missing != 0 {
            return Err(MissingControls { word: C::NAME, controls: C::CONTROLS, bits: missing });
        }
        let chosen = (required.to_bits() | wanted.to_bits()) & allowed1 | allowed0;
        Ok(Choice {
            wanted,
            required,
            allowed0: self.allowed0,
            allowed1: self.allowed1,
            chosen: C::from_bits_truncated(chosen),
        })
    }
}

/// How a control word came about, for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Choice<C> {
    /// What would be good to have.
    pub wanted: C,
    /// What there must be.
    pub required: C,
    /// Bits that must be 1.
    pub allowed0: C,
    /// Bits that may be 1.
    pub allowed1: C,
    /// The word for the VMCS.
    pub chosen: C,
}

impl<C: ControlWord> Choice<C> {
    /// Bits that were wanted and may not be 1.
    pub fn refused(&self) -> C {
        C::from_bits_truncated(self.wanted.to_bits() & !self.chosen.to_bits())
    }

    /// Bits that nobody asked for and that must be 1.
    pub fn forced(&self) -> C {
        C::from_bits_truncated(self.chosen.to_bits() & !(self.wanted.to_bits() | self.required.to_bits()))
    }

    /// Whether all of `controls` were chosen.
    #[inline]
    pub fn has(&self, controls: C) -> bool {
        controls.to_bits() & !self.chosen.to_bits() == 0
    }
}

/// The processor lacks controls that are required. `Display` says which, in one sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MissingControls {
    word: &'static str,
    controls: &'static [(u8, &'static str)],
    bits: u64,
}

impl MissingControls {
    /// The manual's name of the control word.
    pub const fn word(&self) -> &'static str {
        self.word
    }

    /// The bits that are missing from it.
    pub const fn bits(&self) -> u64 {
        self.bits
    }

    /// The manual's names of the missing controls.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        let bits = self.bits;
        self.controls.iter().filter(move |(bit, _)| bits >> bit & 1 != 0).map(|(_, name)| *name)
    }
}

impl core::fmt::Display for MissingControls {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "the processor's {} lack ", self.word)?;
        for (position, name) in self.names().enumerate() {
            let separator = if position == 0 { "" } else { ", " };
            write!(f, "{separator}\"{name}\"")?;
        }
        Ok(())
    }
}

impl core::error::Error for MissingControls {}

#[cfg(feature = "defmt")]
impl defmt::Format for MissingControls {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "{}", defmt::Display2Format(self));
    }
}
