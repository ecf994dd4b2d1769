//! The registers: which there are, who may access them, what reading and writing does.

use arch::apic::Register;

use crate::apicv::Stale;
use crate::bus::Bus;
use crate::icr;
use crate::identity::{Mode, logical_x2apic_id};
use crate::local_apic::{FOCUS_DISABLE, LocalApic, SOFTWARE_ENABLE, SUPPRESS_BROADCAST};
use crate::lvt::Source;
use crate::timer::TimerMode;

/// What software may do with a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Reserved,
    ReadOnly,
    WriteOnly,
    ReadWrite,
}

/// The access rule of `register` (SDM 3A 11.4.1 "The Local APIC Block Diagram", table "Local APIC Register Address
/// Map", and 11.12.1.2 "x2APIC Register Address Space", table "Local APIC Register Address Map Supported by x2APIC").
///
/// Remote read is "not supported in Pentium 4 and Intel Xeon processors" and later: reserved here. The CMCI entry is
/// always there, as on the comparison machine; MCG_CAP tells a guest whether it is ever used.
pub(crate) fn access(register: Register, x2apic: bool) -> Access {
    match register {
        Register::ID | Register::LDR if x2apic => Access::ReadOnly,
        Register::APR | Register::DFR | Register::ICR_HIGH if x2apic => Access::Reserved,
        Register::SELF_IPI if x2apic => Access::WriteOnly,
        Register::EOI => Access::WriteOnly,
        Register::VERSION | Register::APR | Register::PPR | Register::CURRENT_COUNT => Access::ReadOnly,
        Register(0x100..=0x27f) if register.0 & 0xf == 0 => Access::ReadOnly,
        Register::ID
        | Register::TPR
        | Register::LDR
        | Register::DFR
        | Register::SVR
        | Register::ESR
        | Register::ICR
        | Register::ICR_HIGH
        | Register::INITIAL_COUNT
        | Register::DIVIDE => Access::ReadWrite,
        _ if Source::from_register(register).is_some() => Access::ReadWrite,
        _ => Access::Reserved,
    }
}

impl LocalApic {
    /// The bits of `register` that x2APIC mode refuses with #GP when one is set (SDM 3A 11.12.1.3 "Reserved Bit
    /// Checking").
    pub(crate) fn x2apic_reserved_bits(&self, register: Register) -> u32 {
        match register {
            Register::TPR | Register::SELF_IPI => !0xff,
            Register::EOI | Register::ESR => !0,
            Register::SVR => !(0xff | SOFTWARE_ENABLE | self.suppression_bit()),
            Register::ICR => icr::RESERVED,
            Register::DIVIDE => !0b1011,
            _ => Source::from_register(register).map_or(0, Source::reserved),
        }
    }

    /// Reads a register that [`access`] calls readable; 0 for the others. x2APIC's ICR has a high half besides.
    pub(crate) fn read_register(&mut self, register: Register, now: u64) -> u32 {
        match register {
            Register::ID if self.mode == Mode::X2apic => self.id,
            Register::ID => self.id << 24,
            // Six LVT entries, an integrated xAPIC.
            Register::VERSION => 0x0005_0014 | u32::from(self.features.broadcast_suppression) << 24,
            Register::TPR => self.priorities.tpr().into(),
            Register::APR => self.priorities.arbitration().into(),
            Register::PPR => self.priorities.ppr().into(),
            Register::LDR if self.mode == Mode::X2apic => logical_x2apic_id(self.id),
            Register::LDR => u32::from(self.logical_id) << 24,
            Register::DFR => self.destination_format,
            Register::SVR => self.spurious,
            Register(0x100..=0x17f) => self.priorities.in_service().register(index(register, Register::ISR)),
            Register(0x180..=0x1ff) => self.priorities.level().register(index(register, Register::TMR)),
            Register(0x200..=0x27f) => self.priorities.requested().register(index(register, Register::IRR)),
            Register::ESR => self.errors.visible(),
            Register::ICR => self.icr_low,
            Register::ICR_HIGH => self.icr_high,
            Register::INITIAL_COUNT => self.timer.initial(),
            Register::CURRENT_COUNT => {
                self.tick(now);
                self.timer.current(now)
            }
            Register::DIVIDE => self.timer.divide_configuration(),
            _ => Source::from_register(register).map_or(0, |source| self.lvt.get(source).0),
        }
    }

    /// Writes a register that [`access`] calls writable, reserved bits already dealt with or to be ignored. A write
    /// to ICR sends; its high half was set before.
    pub(crate) fn write_register(&mut self, register: Register, value: u32, now: u64, bus: &impl Bus) {
        self.stale.insert(register);
        match register {
            Register::EOI => self.end_of_interrupt(bus),
            Register::TPR => self.set_tpr((value & 0xff) as u8, bus),
            Register::ICR => {
                self.icr_low = value & icr::WRITABLE;
                self.command(bus);
            }
            Register::ICR_HIGH => self.icr_high = value & 0xff00_0000,
            Register::SELF_IPI => self.self_ipi((value & 0xff) as u8),
            Register::INITIAL_COUNT => {
                self.tick(now);
                self.timer.set_initial(value, now);
            }
            Register::DIVIDE => {
                self.tick(now);
                self.timer.set_divide_configuration(value, now);
            }
            Register::ESR => self.errors.write(),
            Register::SVR => self.set_spurious(value, bus),
            Register::LDR => self.publishing(bus, |apic| apic.logical_id = (value >> 24) as u8),
            Register::DFR => self.publishing(bus, |apic| apic.destination_format = value | 0x0fff_ffff),
            Register::ID if self.features.writable_xapic_id => self.publishing(bus, |apic| apic.id = value >> 24),
            _ => {
                if let Some(source) = Source::from_register(register) {
                    self.set_lvt(source, value, now);
                }
            }
        }
    }

    fn set_lvt(&mut self, source: Source, value: u32, now: u64) {
        // What was due under the old entry is delivered by the old entry.
        self.tick(now);
        let software_enabled = self.is_software_enabled();
        self.lvt.set(source, value, software_enabled);
        match source {
            Source::Timer => self.timer.set_mode(TimerMode::from_lvt(value)),
            Source::Lint0 => self.sample_lint0(),
            _ => {}
        }
    }

    fn set_spurious(&mut self, value: u32, bus: &impl Bus) {
        let focus = if self.mode == Mode::Xapic { FOCUS_DISABLE } else { 0 };
        let writable = 0xff | SOFTWARE_ENABLE | focus | self.suppression_bit();
        self.publishing(bus, |apic| {
            apic.spurious = value & writable;
            if !apic.is_software_enabled() {
                apic.lvt.mask_all();
                apic.stale = Stale::ALL;
            }
        });
    }

    fn suppression_bit(&self) -> u32 {
        if self.features.broadcast_suppression { SUPPRESS_BROADCAST } else { 0 }
    }
}

/// Which of eight registers from `first` on.
fn index(register: Register, first: Register) -> usize {
    usize::from(register.0 - first.0) / 16
}
