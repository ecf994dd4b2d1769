//! IA32_APIC_BASE: where the registers are, and which interface is on.

use arch::apic::DEFAULT_BASE;
use arch::{Fault, GuestPhys};

use crate::apicv::Stale;
use crate::bus::Bus;
use crate::identity::Mode;
use crate::local_apic::LocalApic;

/// The bootstrap-processor flag.
pub(crate) const BOOTSTRAP: u64 = 1 << 8;
/// EXTD: x2APIC mode.
const EXTENDED: u64 = 1 << 10;
/// EN: the APIC is globally enabled.
const ENABLE: u64 = 1 << 11;
/// Bits 7:0 and 9.
const RESERVED_LOW: u64 = 0x2ff;
/// IA32_APIC_BASE after RESET, the bootstrap flag aside.
pub(crate) const APIC_BASE_RESET: u64 = DEFAULT_BASE | ENABLE;

/// The state that a value of IA32_APIC_BASE selects; `None` for EXTD without EN.
pub(crate) const fn mode_of(apic_base: u64) -> Option<Mode> {
    match (apic_base & ENABLE != 0, apic_base & EXTENDED != 0) {
        (false, false) => Some(Mode::Disabled),
        (true, false) => Some(Mode::Xapic),
        (true, true) => Some(Mode::X2apic),
        (false, true) => None,
    }
}

/// Whether software may go from one state to the other in one write: x2APIC mode is entered from xAPIC mode only and
/// left to the disabled state only (SDM 3A 11.12.5.1 "x2APIC States", figure "Local x2APIC State Transitions with
/// IA32_APIC_BASE, INIT, and Reset").
const fn may_change(from: Mode, to: Mode) -> bool {
    !matches!((from, to), (Mode::X2apic, Mode::Xapic) | (Mode::Disabled, Mode::X2apic))
}

impl LocalApic {
    /// Guest-physical address of the register page. Only in xAPIC mode is anything there.
    pub fn base(&self) -> GuestPhys {
        GuestPhys(self.apic_base).page()
    }

    /// IA32_APIC_BASE (SDM 3A 11.4.4 "Local APIC Status and Location").
    pub fn apic_base(&self) -> u64 {
        self.apic_base
    }

    /// A write to IA32_APIC_BASE. #GP(0) for reserved bits, EXTD without EN, or a change of state that the manual
    /// forbids; nothing has changed then.
    ///
    /// Disabling loses the registers' contents: they are as after RESET when the APIC is enabled again (SDM 3A 11.4.3
    /// "Enabling or Disabling the Local APIC"). Entering x2APIC mode gives the APIC its x2APIC id, whatever software
    /// had made of the xAPIC id.
    pub(crate) fn set_apic_base(&mut self, value: u64, bus: &impl Bus) -> Result<(), Fault> {
        let reserved = RESERVED_LOW | !0 << self.features.physical_address_bits.min(52);
        let mode = match mode_of(value) {
            Some(mode) if value & reserved == 0 && may_change(self.mode, mode) => mode,
            _ => return Err(Fault::Gp(0)),
        };
        self.publishing(bus, |apic| {
            apic.apic_base = value;
            if apic.mode != mode {
                apic.mode = mode;
                apic.stale = Stale::ALL;
                match mode {
                    Mode::Disabled => {
                        apic.id = apic.initial_id & 0xff;
                        apic.reset_registers();
                    }
                    Mode::Xapic => {}
                    Mode::X2apic => apic.id = apic.initial_id,
                }
            }
        });
        Ok(())
    }
}
