//! The state of one local APIC, and what RESET and INIT make of it.

use arch::apic::DeliveryMode;

use crate::apicv::Stale;
use crate::bus::Bus;
use crate::errors::Errors;
use crate::identity::{Identity, Mode};
use crate::lvt::{Source, Table};
use crate::mode::{APIC_BASE_RESET, BOOTSTRAP, mode_of};
use crate::priority::Priorities;
use crate::timer::{Frequencies, Timer};

/// What this APIC has that another model may lack. It must agree with what CPUID shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Features {
    /// Width of physical addresses in bits (CPUID 8000_0008H EAX\[7:0\]): IA32_APIC_BASE has reserved bits above it.
    pub physical_address_bits: u8,
    /// Software may suppress the EOI broadcast by SVR bit 12; version bit 24 says so
    /// (SDM 3A 11.8.5 "Signaling Interrupt Servicing Completion").
    pub broadcast_suppression: bool,
    /// In xAPIC mode software may change the id. That is "processor model specific" (SDM 3A 11.4.6 "Local APIC ID");
    /// where not, a write is ignored.
    pub writable_xapic_id: bool,
}

impl Features {
    /// 40-bit physical addresses, no broadcast suppression, a fixed id: what the comparison machine has.
    pub const DEFAULT: Self =
        Self { physical_address_bits: 40, broadcast_suppression: false, writable_xapic_id: false };
}

impl Default for Features {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// The local APIC of one vCPU (SDM 3A 11.4 "Local APIC").
#[derive(Clone, Debug)]
pub struct LocalApic {
    pub(crate) priorities: Priorities,
    pub(crate) timer: Timer,
    pub(crate) mode: Mode,
    pub(crate) lvt: Table,
    pub(crate) errors: Errors,
    /// IA32_APIC_BASE.
    pub(crate) apic_base: u64,
    /// The id that the processor came with: the x2APIC id.
    pub(crate) initial_id: u32,
    /// The id register: 8 bits in xAPIC mode.
    pub(crate) id: u32,
    /// Bits 31:24 of LDR, in xAPIC mode.
    pub(crate) logical_id: u8,
    /// DFR; bits 27:0 are ones.
    pub(crate) destination_format: u32,
    pub(crate) spurious: u32,
    pub(crate) icr_low: u32,
    /// In xAPIC mode the destination is in bits 31:24.
    pub(crate) icr_high: u32,
    pub(crate) lint_asserted: [bool; 2],
    /// What the virtual-APIC page does not show as it is.
    pub(crate) stale: Stale,
    pub(crate) features: Features,
    bootstrap: bool,
}

/// SVR after RESET.
const SPURIOUS_RESET: u32 = 0xff;
/// SVR's software-enable bit (SDM 3A 11.9 "Spurious Interrupt").
pub(crate) const SOFTWARE_ENABLE: u32 = 1 << 8;
/// SVR's focus-processor bit: without effect on these processors, but xAPICs keep it.
pub(crate) const FOCUS_DISABLE: u32 = 1 << 9;
/// SVR's bit that suppresses EOI broadcasts.
pub(crate) const SUPPRESS_BROADCAST: u32 = 1 << 12;

impl LocalApic {
    /// An APIC after RESET: in xAPIC mode, software-disabled. `id` is the x2APIC id, whose low 8 bits are the xAPIC
    /// id; `bootstrap` says whether IA32_APIC_BASE calls this the bootstrap processor.
    ///
    /// The owner publishes [`Self::identity`] in the VM's directory before other vCPUs run, and again after
    /// [`Self::reset`] and [`Self::init`], which have no [`Bus`].
    pub fn new(id: u32, bootstrap: bool, frequencies: Frequencies) -> Self {
        let apic_base = APIC_BASE_RESET | if bootstrap { BOOTSTRAP } else { 0 };
        Self {
            priorities: Priorities::default(),
            timer: Timer::new(frequencies),
            mode: Mode::Xapic,
            lvt: Table::RESET,
            errors: Errors::default(),
            apic_base,
            initial_id: id,
            id: id & 0xff,
            logical_id: 0,
            destination_format: u32::MAX,
            spurious: SPURIOUS_RESET,
            icr_low: 0,
            icr_high: 0,
            lint_asserted: [false; 2],
            stale: Stale::ALL,
            features: Features::DEFAULT,
            bootstrap,
        }
    }

    /// The same APIC with `features` in place of [`Features::DEFAULT`].
    pub fn with_features(self, features: Features) -> Self {
        Self { features, ..self }
    }

    /// RESET: everything as after power-up, also the mode, the base and the id
    /// (SDM 3A 11.4.7.1 "Local APIC State After Power-Up or Reset"). The LINT pins stay as they are driven.
    pub fn reset(&mut self) {
        self.apic_base = APIC_BASE_RESET | if self.bootstrap { BOOTSTRAP } else { 0 };
        self.mode = Mode::Xapic;
        self.id = self.initial_id & 0xff;
        self.reset_registers();
    }

    /// INIT: the registers as after RESET, but IA32_APIC_BASE and the id, and in x2APIC mode the logical id that
    /// follows from it, stay (SDM 3A 11.4.7.3 "Local APIC State After an INIT Reset ("Wait-for-SIPI" State)" and
    /// 11.12.5.1 "x2APIC States").
    pub fn init(&mut self) {
        self.reset_registers();
    }

    /// What firmware makes of an APIC after RESET before an operating system starts on the bootstrap processor, so that
    /// one that knows only the PIC works: enabled, LINT0 takes the PIC's interrupts (ExtINT), LINT1 is the board's NMI
    /// (MultiProcessor Specification 1.4, 3.6.2.2 "Virtual Wire Mode").
    ///
    /// It has no [`Bus`]: the owner publishes [`Self::identity`] afterwards.
    pub fn set_virtual_wire(&mut self) {
        self.spurious = SPURIOUS_RESET | SOFTWARE_ENABLE;
        self.lvt.set(Source::Lint0, (DeliveryMode::ExtInt as u32) << 8, true);
        self.lvt.set(Source::Lint1, (DeliveryMode::Nmi as u32) << 8, true);
        self.stale = Stale::ALL;
    }

    /// Every register but IA32_APIC_BASE and the id.
    pub(crate) fn reset_registers(&mut self) {
        self.priorities = Priorities::default();
        self.timer.reset();
        self.lvt = Table::RESET;
        self.errors = Errors::default();
        self.logical_id = 0;
        self.destination_format = u32::MAX;
        self.spurious = SPURIOUS_RESET;
        self.icr_low = 0;
        self.icr_high = 0;
        self.stale = Stale::ALL;
    }

    /// The state that IA32_APIC_BASE selects.
    #[inline(always)]
    pub fn mode(&self) -> Mode {
        debug_assert_eq!(Some(self.mode), mode_of(self.apic_base));
        self.mode
    }

    /// The APIC id: 8 bits in xAPIC mode, 32 in x2APIC mode.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// What others must know to address this APIC.
    pub fn identity(&self) -> Identity {
        Identity {
            id: self.id,
            logical_id: self.logical_id,
            // Encodings other than 0 (cluster) and 15 (flat) are reserved; they count as flat.
            cluster: self.destination_format >> 28 == 0,
            mode: self.mode,
            software_enabled: self.is_software_enabled(),
            priority: self.priorities.tpr(),
        }
    }

    /// Makes a change and publishes the identity if the change touched it.
    pub(crate) fn publishing(&mut self, bus: &impl Bus, change: impl FnOnce(&mut Self)) {
        let before = self.identity();
        change(self);
        let after = self.identity();
        if before != after {
            bus.published(after);
        }
    }

    pub(crate) fn is_software_enabled(&self) -> bool {
        self.spurious & SOFTWARE_ENABLE != 0
    }
}
