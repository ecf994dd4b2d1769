//! Why a VM must do without the processor's help for its APICs.

use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use arch::apic::DEFAULT_BASE;

use crate::directory::{Directory, TargetSet};
use crate::identity::Mode;
use crate::local_apic::LocalApic;

/// Why APIC virtualization by the processor is off.
///
/// While one reason holds it is off for the whole VM: what one vCPU did to its APIC (another id, another address)
/// changes whom the others' IPIs reach, which the processor does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(u8)]
pub enum Reason {
    /// Switched off in the configuration, or the machine does not have it. The VM's.
    Disabled = 0,
    /// No virtual APIC exists yet. The VM's.
    Absent = 1,
    /// A debugger holds interrupts off. The VM's: for a debugger of guests to set, which Nestling does not have yet.
    BlockIrq = 2,
    /// AutoEOI of a synthetic interrupt controller is in use, by a vCPU: for such a controller to set, which Nestling does not
    /// have yet.
    HyperV = 3,
    /// The vCPU shares its APIC id with another.
    PhysicalIdAliased = 4,
    /// The vCPU's xAPIC id is not the one it came with; a switch to x2APIC mode resets it.
    ApicIdModified = 5,
    /// The vCPU's APIC base is not 0xFEE00000.
    ApicBaseModified = 6,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Disabled,
        Self::Absent,
        Self::BlockIrq,
        Self::HyperV,
        Self::PhysicalIdAliased,
        Self::ApicIdModified,
        Self::ApicBaseModified,
    ];

    /// Those that an APIC's own registers cause.
    pub const OF_REGISTERS: [Self; 2] = [Self::ApicIdModified, Self::ApicBaseModified];

    const fn bit(self) -> u8 {
        1 << self as u8
    }

    /// One holder more, in [`Inhibits::counts`].
    const fn one(self) -> u64 {
        1 << (COUNT_BITS * self as u32)
    }
}

/// Bits of each count: enough for 256 vCPUs and the VM itself.
const COUNT_BITS: u32 = 9;
const _: () = assert!(COUNT_BITS as usize * Reason::ALL.len() <= 64, "all counts are one atomic word");
const _: () = assert!(TargetSet::CAPACITY < 1 << COUNT_BITS, "a count cannot overflow into the next");

/// Who holds which reason, of one VM.
///
/// How many vCPUs hold each reason stands in one word, so that "is there any" is one load and a change of it is seen whole.
/// The reasons of a vCPU are changed by the processor that runs it, those of the VM by anyone; setting what is set and
/// clearing what is clear changes nothing.
#[derive(Debug)]
pub struct Inhibits {
    counts: AtomicU64,
    vm: AtomicU8,
    vcpus: [AtomicU8; TargetSet::CAPACITY],
}

impl Default for Inhibits {
    fn default() -> Self {
        Self::new()
    }
}

impl Inhibits {
    /// No reason holds.
    pub const fn new() -> Self {
        Self {
            counts: AtomicU64::new(0),
            vm: AtomicU8::new(0),
            vcpus: [const { AtomicU8::new(0) }; TargetSet::CAPACITY],
        }
    }

    /// Whether any reason holds: one load.
    #[inline(always)]
    pub fn any(&self) -> bool {
        self.counts.load(Ordering::SeqCst) != 0
    }

    /// How many hold `reason`.
    pub fn count(&self, reason: Reason) -> u64 {
        self.counts.load(Ordering::SeqCst) >> (COUNT_BITS * reason as u32) & ((1 << COUNT_BITS) - 1)
    }

    /// The VM as a whole has, or has no longer, `reason`. True when that switched APIC virtualization on or off: every vCPU
    /// must learn of it.
    #[must_use = "the other vCPUs do not know yet"]
    pub fn set_for_vm(&self, reason: Reason, holds: bool) -> bool {
        self.set(&self.vm, reason, holds)
    }

    /// The same for vCPU `index`. An index from 256 up has no place and is ignored.
    #[must_use = "the other vCPUs do not know yet"]
    pub fn set_for_vcpu(&self, index: usize, reason: Reason, holds: bool) -> bool {
        self.vcpus.get(index).is_some_and(|own| self.set(own, reason, holds))
    }

    /// What the registers of vCPU `index` say about its own reasons, and whether it shares its id with another one that has
    /// published the same. Those others find out when they are told.
    #[must_use = "the other vCPUs do not know yet"]
    pub fn set_by_registers<const N: usize>(&self, index: usize, apic: &LocalApic, directory: &Directory<N>) -> bool {
        let mut changed = self.set_for_vcpu(index, Reason::PhysicalIdAliased, directory.is_aliased(index));
        for reason in Reason::OF_REGISTERS {
            changed |= self.set_for_vcpu(index, reason, apic.inhibits(reason));
        }
        changed
    }

    fn set(&self, own: &AtomicU8, reason: Reason, holds: bool) -> bool {
        let bit = reason.bit();
        let before = if holds { own.fetch_or(bit, Ordering::SeqCst) } else { own.fetch_and(!bit, Ordering::SeqCst) };
        if (before & bit != 0) == holds {
            return false;
        }
        if holds {
            self.counts.fetch_add(reason.one(), Ordering::SeqCst) == 0
        } else {
            self.counts.fetch_sub(reason.one(), Ordering::SeqCst) == reason.one()
        }
    }
}

impl LocalApic {
    /// Whether this APIC's registers are a reason to do without the processor's help.
    ///
    /// An id is compared in the width it has: an xAPIC shows the low 8 bits of the one it came with, so that a vCPU beyond
    /// 255 is not taken for one whose id was changed.
    pub fn inhibits(&self, reason: Reason) -> bool {
        match reason {
            Reason::ApicIdModified => self.mode == Mode::Xapic && self.id != self.initial_id & 0xff,
            Reason::ApicBaseModified => self.mode != Mode::Disabled && self.base().get() != DEFAULT_BASE,
            _ => false,
        }
    }
}
