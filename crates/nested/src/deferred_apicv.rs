//! The deferred APICv queue: what belongs into vmcs01, also when it comes up while L2 runs.
//!
//! One door, [`Nested::submit`]. While L1 runs an update is written at once; while L2 runs it waits, one slot for each kind, a
//! later one in place of an earlier one: nothing overflows, nothing allocates. What waits is the value to write, never a
//! request to think again that a cached flag could turn into nothing. It is written in one place, where vmcs01 becomes
//! current again ([`Nested::resume_l1`](crate::Nested)), which is on every path from L2 to L1.
//!
//! Linux had this idea in 2022 ("KVM: nVMX: Defer APICv updates while L2 is active until L1 is active"), with a flag for each
//! thing deferred: one became a request, and the request found its cached answer unchanged and wrote nothing.
//!
//! Only vmcs01 takes an update. This compiles:
//! ```
//! fn write(update: nested::Update, vmcs: &mut nested::Vmcs01<'_, impl vmcs::Access>) {
//!     update.write(vmcs);
//! }
//! ```
//! and this, which would give L2 the controls of L1's APIC, does not:
//! ```compile_fail,E0308
//! fn write(update: nested::Update, vmcs: &mut nested::Vmcs02<'_, impl vmcs::Access>) {
//!     update.write(vmcs);
//! }
//! ```
//! Nor can anybody outside of this crate say that the current VMCS is vmcs01:
//! ```compile_fail,E0624
//! fn vmcs01<V: vmcs::Access>(vmcs: &mut V) -> nested::Vmcs01<'_, V> {
//!     nested::Vmcs01::assume(vmcs)
//! }
//! ```

use arch::HostPhys;
use vlapic::VectorSet;
use vmcs::Access;
use vmcs::controls::{PinBased, SecondaryBased};
use vmcs::fields::*;

use crate::current::Vmcs01;
use crate::state::Nested;

/// A change of what vmcs01 says about L1's APIC and L1's time: the new value, whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Update {
    /// Whether the processor delivers virtual interrupts and reads registers from memory, and whether they can be posted.
    Controls {
        /// APIC-register virtualization and virtual-interrupt delivery.
        delivery: bool,
        /// Posted interrupts.
        posting: bool,
    },
    /// Which interface of the APIC is virtualized.
    Mode {
        /// Virtualize APIC accesses.
        accesses: bool,
        /// Virtualize x2APIC mode.
        x2apic: bool,
        /// The MSR bitmap that goes with it.
        msr_bitmap: HostPhys,
    },
    /// L1's memory with or without the APIC-access page. The two are different tables, so nothing that the processor has
    /// cached of the one serves the other (SDM 3C 29.4.1 "Information That May Be Cached": mappings are tagged with the EPTP).
    ApicPage {
        /// The EPT pointer.
        eptp: u64,
    },
    /// Servicing virtual interrupt (SVI).
    InService(u8),
    /// Requesting virtual interrupt (RVI).
    Requested(u8),
    /// TPR threshold, 0 to 15.
    TprThreshold(u8),
    /// Vectors whose EOI exits.
    EoiExits(VectorSet),
    /// L1's TSC less the machine's.
    TscOffset(u64),
}

impl Update {
    /// How many kinds there are.
    pub const KINDS: usize = 8;

    /// Its kind, in the order in which they are written: first what is virtualized, then the state that depends on it.
    pub const fn kind(&self) -> usize {
        match self {
            Self::Controls { .. } => 0,
            Self::Mode { .. } => 1,
            Self::ApicPage { .. } => 2,
            Self::InService(_) => 3,
            Self::Requested(_) => 4,
            Self::TprThreshold(_) => 5,
            Self::EoiExits(_) => 6,
            Self::TscOffset(_) => 7,
        }
    }

    /// What a kind is called, for the log.
    pub const NAMES: [&'static str; Self::KINDS] = [
        "APICv controls",
        "APIC mode",
        "APIC-access page",
        "SVI",
        "RVI",
        "TPR threshold",
        "EOI-exit bitmap",
        "TSC offset",
    ];

    /// Writes the change. Writing it twice is writing it once.
    pub fn write(self, vmcs01: &mut Vmcs01<'_, impl Access>) {
        match self {
            Self::Controls { delivery, posting } => {
                const DELIVERY: SecondaryBased =
                    SecondaryBased::APIC_REGISTER_VIRTUALIZATION.union(SecondaryBased::VIRTUAL_INTERRUPT_DELIVERY);
                let mut pin = PinBased::from_bits_retain(vmcs01.read(PIN_BASED_VM_EXEC_CONTROL));
                pin.set(PinBased::PROCESS_POSTED_INTERRUPTS, posting);
                vmcs01.write(PIN_BASED_VM_EXEC_CONTROL, pin.bits());
                let mut secondary = SecondaryBased::from_bits_retain(vmcs01.read(SECONDARY_VM_EXEC_CONTROL));
                secondary.set(DELIVERY, delivery);
                vmcs01.write(SECONDARY_VM_EXEC_CONTROL, secondary.bits());
            }
            Self::Mode { accesses, x2apic, msr_bitmap } => {
                let mut secondary = SecondaryBased::from_bits_retain(vmcs01.read(SECONDARY_VM_EXEC_CONTROL));
                secondary.set(SecondaryBased::VIRTUALIZE_APIC_ACCESSES, accesses);
                secondary.set(SecondaryBased::VIRTUALIZE_X2APIC_MODE, x2apic);
                vmcs01.write(SECONDARY_VM_EXEC_CONTROL, secondary.bits());
                vmcs01.write(MSR_BITMAP, msr_bitmap.get());
            }
            Self::ApicPage { eptp } => vmcs01.write(EPT_POINTER, eptp),
            Self::InService(vector) => {
                let requested = vmcs01.read(GUEST_INTERRUPT_STATUS) & 0xff;
                vmcs01.write(GUEST_INTERRUPT_STATUS, u16::from(vector) << 8 | requested);
            }
            Self::Requested(vector) => {
                let in_service = vmcs01.read(GUEST_INTERRUPT_STATUS) & 0xff00;
                vmcs01.write(GUEST_INTERRUPT_STATUS, in_service | u16::from(vector));
            }
            Self::TprThreshold(class) => vmcs01.write(TPR_THRESHOLD, u32::from(class)),
            Self::EoiExits(vectors) => {
                let bitmaps = [EOI_EXIT_BITMAP0, EOI_EXIT_BITMAP1, EOI_EXIT_BITMAP2, EOI_EXIT_BITMAP3];
                for (bitmap, word) in bitmaps.into_iter().zip(vectors.words()) {
                    vmcs01.write(bitmap, word);
                }
            }
            Self::TscOffset(offset) => vmcs01.write(TSC_OFFSET, offset),
        }
    }
}

/// What waits for vmcs01.
#[derive(Clone, Debug, Default)]
pub(crate) struct Deferred {
    slots: [Option<Update>; Update::KINDS],
    /// Some slot is taken: what an exit to L1 asks before it looks at them.
    is_waiting: bool,
    /// How often each kind had to wait, and was written.
    pub(crate) counts: DeferredCounts,
}

/// Counts of the deferred APICv queue by kind ([`Update::NAMES`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeferredCounts {
    /// Updates that came while L2 ran.
    pub deferred: [u64; Update::KINDS],
    /// Of those the ones written when vmcs01 became current; the others were replaced by later ones.
    pub drained: [u64; Update::KINDS],
}

impl Deferred {
    /// Keeps `update` until vmcs01 is current.
    pub(crate) fn defer(&mut self, update: Update) {
        let kind = update.kind();
        self.counts.deferred[kind] += 1;
        self.slots[kind] = Some(update);
        self.is_waiting = true;
    }

    /// The TSC offset that waits.
    pub(crate) fn tsc_offset(&self) -> Option<u64> {
        self.slots.iter().flatten().find_map(|update| match update {
            Update::TscOffset(offset) => Some(*offset),
            _ => None,
        })
    }

    /// A queue in which nothing waits but a TSC offset.
    pub(crate) fn restored(tsc_offset: Option<u64>) -> Self {
        let mut queue = Self::default();
        if let Some(offset) = tsc_offset {
            queue.defer(Update::TscOffset(offset));
        }
        queue
    }

    /// Writes what waits, in the order of the kinds.
    #[inline(always)]
    pub(crate) fn drain(&mut self, vmcs01: &mut Vmcs01<'_, impl Access>) {
        if self.is_waiting {
            self.drain_slots(vmcs01);
        }
    }

    #[cold]
    fn drain_slots(&mut self, vmcs01: &mut Vmcs01<'_, impl Access>) {
        for (slot, drained) in self.slots.iter_mut().zip(&mut self.counts.drained) {
            if let Some(update) = slot.take() {
                *drained += 1;
                update.write(vmcs01);
            }
        }
        self.is_waiting = false;
        debug_assert!(self.slots.iter().all(Option::is_none), "nothing waits while L1 runs");
    }

    /// What waits.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> impl Iterator<Item = Update> {
        self.slots.iter().flatten().copied()
    }
}

impl Nested {
    /// The door: `update` is written now if L1 runs, and when it runs next if L2 does. `vmcs` is the current VMCS.
    #[inline]
    pub fn submit(&mut self, vmcs: &mut impl Access, update: Update) {
        if self.in_l2() {
            self.deferred.defer(update);
        } else {
            update.write(&mut Vmcs01::assume(vmcs));
        }
    }

    /// What the queue had to do.
    pub const fn deferred_counts(&self) -> &DeferredCounts {
        &self.deferred.counts
    }
}

/// The door of a vCPU whose L1 may have no VMX: then its only VMCS is vmcs01.
#[inline]
pub fn submit(nested: Option<&mut Nested>, vmcs: &mut impl Access, update: Update) {
    match nested {
        Some(nested) => nested.submit(vmcs, update),
        None => update.write(&mut Vmcs01::assume(vmcs)),
    }
}
