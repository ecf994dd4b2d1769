//! What the processor does by itself, and what the VMCS must say for it.

use arch::Msr;
use arch::apic::Register;

use crate::apicv::page::COPIED;
use crate::identity::Mode;
use crate::local_apic::LocalApic;
use crate::registers::{Access, access};
use crate::vectors::VectorSet;

/// What the machine can do for a virtual APIC. Each needs the ones before it, but x2APIC mode only the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Hardware {
    /// TPR shadow: the task priority is a byte in memory (SDM 3C 30.3 "Virtualizing CR8-Based TPR Accesses").
    pub tpr_shadow: bool,
    /// Accesses to the register page are recognized (SDM 3C 30.4 "Virtualizing Memory-Mapped APIC Accesses").
    pub accesses: bool,
    /// The other registers are read from memory, and interrupts are evaluated and delivered, without an exit (SDM 3C 30.2
    /// "Evaluation and Delivery of Virtual Interrupts").
    pub delivery: bool,
    /// Other processors and devices post interrupts (SDM 3C 30.6 "Posted-Interrupt Processing").
    pub posting: bool,
    /// The same for the x2APIC's MSRs (SDM 3C 30.5 "Virtualizing MSR-Based APIC Accesses").
    pub x2apic: bool,
}

impl Hardware {
    /// Nothing: all is emulated.
    pub const NONE: Self = Self { tpr_shadow: false, accesses: false, delivery: false, posting: false, x2apic: false };
}

/// What of [`Hardware`] is in use for a vCPU, now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Assist {
    /// TPR lives in the virtual-APIC page.
    pub tpr_shadow: bool,
    /// The register page at 0xFEE00000 is recognized: xAPIC mode.
    pub accesses: bool,
    /// The x2APIC's MSRs are: x2APIC mode.
    pub x2apic: bool,
    /// IRR and ISR live in the virtual-APIC page too, and the processor delivers.
    pub delivery: bool,
    /// Interrupts can be posted.
    pub posting: bool,
}

impl Assist {
    /// What is used on this hardware by an APIC in `mode`. TPR stays the processor's whatever inhibits the rest: nobody
    /// else reads it.
    pub const fn of(hardware: Hardware, mode: Mode, inhibited: bool) -> Self {
        let on = !inhibited && !matches!(mode, Mode::Disabled);
        Self {
            tpr_shadow: hardware.tpr_shadow,
            accesses: on && hardware.accesses && matches!(mode, Mode::Xapic),
            x2apic: hardware.x2apic && matches!(mode, Mode::X2apic),
            delivery: on && hardware.delivery,
            posting: on && hardware.delivery && hardware.posting,
        }
    }

    /// Whether RDMSR (or WRMSR) of `msr`, one of 0x800 to 0x8ff, needs no exit: the processor then reads the page, or does
    /// all that the register does.
    pub fn passes(self, msr: Msr, write: bool) -> bool {
        let Some(number) = msr.0.checked_sub(Msr::X2APIC_FIRST.0).and_then(|number| u8::try_from(number).ok()) else {
            return false;
        };
        let register = Register(u16::from(number) << 4);
        if !self.x2apic {
            return false;
        }
        if register == Register::TPR {
            return true;
        }
        if write {
            return self.delivery && matches!(register, Register::EOI | Register::SELF_IPI);
        }
        let is_set = matches!(register.0, 0x100..=0x27f);
        self.delivery && (is_set || COPIED.contains(&register)) && access(register, true) != Access::Reserved
    }
}

/// What vmcs01 must hold for an APIC: computed from its registers, so there is nothing to keep up to date.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Apicv {
    /// Which controls, which MSR bitmap, and whether the page at 0xFEE00000 is there.
    pub assist: Assist,
    /// Requesting virtual interrupt (RVI): the highest vector in IRR; 0 for none and without delivery.
    pub requested: u8,
    /// Servicing virtual interrupt (SVI): the highest vector in ISR; 0 for none and without delivery.
    pub in_service: u8,
    /// TPR threshold: an exit follows when the class of TPR falls below it; 0 with delivery.
    pub tpr_threshold: u8,
    /// Vectors whose EOI must exit, since an IOAPIC waits for it: the level-triggered ones.
    pub eoi_exits: VectorSet,
}

impl LocalApic {
    /// What vmcs01 must hold. The registers are here, not in the page.
    pub fn apicv(&self, assist: Assist) -> Apicv {
        if assist.delivery {
            Apicv {
                assist,
                requested: self.highest_requested().map_or(0, |vector| vector.0),
                in_service: self.highest_in_service().map_or(0, |vector| vector.0),
                tpr_threshold: 0,
                eoi_exits: *self.priorities.level(),
            }
        } else {
            let tpr_threshold = if assist.tpr_shadow { self.tpr_threshold() } else { 0 };
            Apicv { assist, tpr_threshold, ..Apicv::default() }
        }
    }
}
