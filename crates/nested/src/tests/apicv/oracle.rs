//! A local APIC as the manual has it, with nothing to share its registers with (SDM 3A chapter 11).

use vlapic::Mode;

/// The two vectors of these tests: an edge-triggered one that processors send, and a level-triggered one of an IOAPIC.
pub(super) const EDGE: u8 = 0x41;
pub(super) const LEVEL: u8 = 0x91;
/// A task priority that holds back the first only.
pub(super) const BUSY: u8 = 0x50;

/// What software can tell of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Oracle {
    pub(super) mode: Mode8,
    /// Bit 0: [`EDGE`], bit 1: [`LEVEL`].
    pub(super) requested: u8,
    pub(super) in_service: u8,
    pub(super) tpr: u8,
    pub(super) id_modified: bool,
    pub(super) base_modified: bool,
}

/// [`Mode`], which has no hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Mode8 {
    Disabled,
    Xapic,
    X2apic,
}

impl From<Mode8> for Mode {
    fn from(mode: Mode8) -> Self {
        match mode {
            Mode8::Disabled => Self::Disabled,
            Mode8::Xapic => Self::Xapic,
            Mode8::X2apic => Self::X2apic,
        }
    }
}

/// The vectors of a set, the highest first.
const VECTORS: [(u8, u8); 2] = [(2, LEVEL), (1, EDGE)];

/// The highest vector of a set; 0 for none.
pub(super) fn highest(set: u8) -> u8 {
    VECTORS.iter().find(|(bit, _)| set & bit != 0).map_or(0, |(_, vector)| *vector)
}

pub(super) fn bit(vector: u8) -> u8 {
    if vector == LEVEL { 2 } else { 1 }
}

impl Oracle {
    /// After power-up, with the APIC enabled by software.
    pub(super) const NEW: Self =
        Self { mode: Mode8::Xapic, requested: 0, in_service: 0, tpr: 0, id_modified: false, base_modified: false };

    pub(super) fn accept(&mut self, vector: u8) {
        if self.mode != Mode8::Disabled {
            self.requested |= bit(vector);
        }
    }

    /// The vector that the processor would take: its class is above TPR's and above those in service.
    pub(super) fn pending(&self) -> Option<u8> {
        let first = highest(self.requested);
        let floor = (self.tpr >> 4).max(highest(self.in_service) >> 4);
        (first >> 4 > floor).then_some(first)
    }

    pub(super) fn take(&mut self) -> Option<u8> {
        let vector = self.pending()?;
        self.requested &= !bit(vector);
        self.in_service |= bit(vector);
        Some(vector)
    }

    /// The level-triggered vector whose end an IOAPIC hears of.
    pub(super) fn end(&mut self) -> Option<u8> {
        let vector = highest(self.in_service);
        self.in_service &= !bit(vector);
        (vector == LEVEL).then_some(LEVEL)
    }

    /// Whether a write of the APIC base with this mode is taken. Disabling loses everything; x2APIC mode resets the id.
    pub(super) fn set_mode(&mut self, mode: Mode8) -> bool {
        use Mode8::{Disabled, X2apic, Xapic};
        if matches!((self.mode, mode), (X2apic, Xapic) | (Disabled, X2apic)) {
            return false;
        }
        match mode {
            _ if mode == self.mode => {}
            Disabled => *self = Self { mode, base_modified: self.base_modified, ..Self::NEW },
            Xapic => self.mode = mode,
            X2apic => *self = Self { mode, id_modified: false, ..*self },
        }
        true
    }
}
