//! The LINT pins: where the PIC's output and the board's NMI arrive.

use arch::apic::{DeliveryMode, Register};

use crate::events::Events;
use crate::identity::Mode;
use crate::local_apic::LocalApic;
use crate::lvt::Source;

/// A local interrupt pin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(usize)]
pub enum Pin {
    /// LINT0: the PIC's output; INTR while the APIC is disabled.
    Lint0 = 0,
    /// LINT1: the board's NMI; NMI while the APIC is disabled.
    Lint1 = 1,
}

impl LocalApic {
    /// Drives a LINT pin. `asserted` is the wire's meaning, not its voltage: the entry's polarity bit has no effect.
    ///
    /// Fixed delivery ends in IRR; NMI, SMI and INIT, which are edges, come back as events. ExtINT is a level that
    /// [`Self::extint_pending`] shows. Sources: SDM 3A 11.5.1 "Local Vector Table"; for a disabled APIC 11.4.3
    /// "Enabling or Disabling the Local APIC".
    pub fn lint(&mut self, pin: Pin, asserted: bool) -> Events {
        let was_asserted = core::mem::replace(&mut self.lint_asserted[pin as usize], asserted);
        let rises = asserted && !was_asserted;
        if self.mode == Mode::Disabled {
            return Events { nmi: pin == Pin::Lint1 && rises, ..Events::NONE };
        }
        let (source, can_be_level) = match pin {
            Pin::Lint0 => (Source::Lint0, true),
            // "Level-sensitive interrupts are not supported for LINT1".
            Pin::Lint1 => (Source::Lint1, false),
        };
        let entry = self.lvt.get(source);
        if can_be_level && entry.is_level() {
            self.sample_lint0();
        } else if rises && !entry.is_masked() {
            match entry.mode() {
                DeliveryMode::Fixed => self.accept(entry.vector(), false),
                DeliveryMode::Nmi => return Events { nmi: true, ..Events::NONE },
                DeliveryMode::Smi => return Events { smi: true, ..Events::NONE },
                DeliveryMode::Init => return Events { init: true, ..Events::NONE },
                // ExtINT is a level. The others are reserved in these entries.
                DeliveryMode::ExtInt
                | DeliveryMode::LowestPriority
                | DeliveryMode::Reserved
                | DeliveryMode::StartUp => {}
            }
        }
        Events::NONE
    }

    /// How the pin was driven last.
    #[inline(always)]
    pub fn is_asserted(&self, pin: Pin) -> bool {
        self.lint_asserted[pin as usize]
    }

    /// Whether the processor takes interrupts of the PIC: LINT0 is unmasked and in ExtINT mode, or the APIC is
    /// globally disabled and LINT0 is the processor's INTR pin.
    pub fn accepts_extint(&self) -> bool {
        let entry = self.lvt.get(Source::Lint0);
        self.mode == Mode::Disabled || !entry.is_masked() && entry.mode() == DeliveryMode::ExtInt
    }

    /// Whether an interrupt of the PIC waits at LINT0 and the processor takes such.
    pub fn extint_pending(&self) -> bool {
        self.lint_asserted[Pin::Lint0 as usize] && self.accepts_extint()
    }

    /// Accepts a level-triggered interrupt from LINT0 while the pin is asserted, one until its EOI (remote IRR).
    pub(crate) fn sample_lint0(&mut self) {
        let entry = self.lvt.get(Source::Lint0);
        if entry.is_level() && !entry.is_masked() && !entry.remote_irr() && self.lint_asserted[0] {
            self.set_remote_irr(true);
            self.accept(entry.vector(), true);
        }
    }

    /// The service of a level-triggered `vector` has ended: if it was LINT0's, the pin counts again.
    pub(crate) fn lint0_ended(&mut self, vector: u8) {
        let entry = self.lvt.get(Source::Lint0);
        if entry.remote_irr() && entry.vector() == vector {
            self.set_remote_irr(false);
            self.sample_lint0();
        }
    }

    fn set_remote_irr(&mut self, set: bool) {
        self.lvt.set_remote_irr(Source::Lint0, set);
        self.stale.insert(Register::LVT_LINT0);
    }
}
