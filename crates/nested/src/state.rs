//! VMX operation of one vCPU of L1: what is not in a VMCS.

use arch::control::Cr4;
use arch::{GuestPhys, HostPhys};
use ept::Ept12;
use vmcs::Capabilities;
use vmcs::controls::{EntryControls, ExitControls, PinBased, PrimaryBased, SecondaryBased};

use crate::capabilities::CapabilityMsrs;
use crate::counters::Transitions;
use crate::deferred_apicv::Deferred;
use crate::field_use::FieldUses;
use crate::slots::SlotSet;
use crate::vmcs12::Vmcs12;

/// A page of L0 that the processor reads, as words.
#[derive(Debug)]
pub struct Page {
    /// Its contents.
    pub words: &'static mut [u64; 512],
    /// Where the processor finds it.
    pub at: HostPhys,
}

/// What L0 needs in vmcs02, whatever L1 asks for.
#[derive(Clone, Copy, Debug)]
pub struct Base {
    /// Pin-based controls.
    pub pin: PinBased,
    /// Primary processor-based controls.
    pub primary: PrimaryBased,
    /// Secondary processor-based controls.
    pub secondary: SecondaryBased,
    /// VM-exit controls.
    pub exit: ExitControls,
    /// VM-entry controls.
    pub entry: EntryControls,
    /// Exceptions that L0 takes.
    pub exceptions: u32,
    /// CR0 bits that L0 owns.
    pub cr0_owned: u64,
    /// CR4 bits that L0 owns.
    pub cr4_owned: u64,
    /// EPT pointer of L1's memory.
    pub eptp: u64,
    /// The tag of L2's cached translations.
    pub vpid: u16,
    /// CR4 bits that L1 may set.
    pub cr4_offered: Cr4,
    /// Width of L1's physical addresses in bits.
    pub physical_address_bits: u8,
    /// The machine has VMCS shadowing, and it is to be used.
    pub shadowing: bool,
    /// The machine is Bochs, which says of a virtual interrupt whose delivery was cut short what it said of another event.
    pub repairs_vectoring: bool,
    /// How the processor takes in by itself what is posted to L2; `None` where L0 does it.
    pub posting: Option<Posting>,
}

/// What the processor's posted-interrupt processing asks for while L2 runs.
#[derive(Clone, Copy, Debug)]
pub struct Posting {
    /// The vector that tells the processor of posts. L0 uses it for nothing else, since those to L1 have another.
    pub notification: u8,
    /// The alignment of a descriptor in bytes, at most that of a page.
    pub alignment: u64,
}

/// What the processor takes in while L2 runs; all of it is vmcs12's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Posted {
    /// The vector that L1's processors send.
    pub notification: u8,
    /// The posted-interrupt descriptor.
    pub descriptor: GuestPhys,
    /// The page where the interrupts go.
    pub virtual_apic: GuestPhys,
}

/// Pages of one vCPU for nested VMX.
#[derive(Debug)]
pub struct Pages {
    /// The MSR bitmap of vmcs02.
    pub msr_bitmap: Page,
    /// The MSR bitmap of vmcs01.
    pub msr_bitmap01: &'static [u64; 512],
    /// Some x2APIC MSRs do not exit by [`Self::msr_bitmap`].
    pub(crate) has_x2apic_bits: bool,
    /// Stands for a page of L1's that lies where L1 has no memory: all ones are read there, as on a bus without a device.
    pub nowhere: Page,
    /// The shadow VMCS, where the processor has VMCS shadowing.
    pub shadow_vmcs: Option<HostPhys>,
}

/// Whether L1 is in VMX operation, and which of the two guests the vCPU is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// L1 has not executed VMXON.
    Outside,
    /// VMX root operation: L1 runs.
    Root,
    /// VMX non-root operation: L2 runs.
    NonRoot,
}

/// What an entry compares with to see whether L1 has changed anything that needs checks.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct AtExit {
    pub(crate) rip: u64,
    pub(crate) rflags: u64,
    /// CR0.CD and CR0.NW, which no transition changes.
    pub(crate) cr0_kept: u64,
}

/// Nested VMX of one vCPU.
#[derive(Debug)]
pub struct Nested {
    pub(crate) operation: Operation,
    pub(crate) base: Base,
    pub(crate) pages: Pages,
    pub(crate) msrs: CapabilityMsrs,
    pub(crate) capabilities: Capabilities,
    pub(crate) uses: FieldUses,
    pub(crate) vmxon_region: GuestPhys,
    /// L1's current VMCS.
    pub(crate) current: Option<GuestPhys>,
    /// The current VMCS is a shadow VMCS, which no entry takes.
    pub(crate) is_shadow: bool,
    /// Its contents, of which [`Self::stale`] are newer in vmcs02.
    pub(crate) vmcs12: Vmcs12,
    /// Fields whose value stands in vmcs02 only.
    pub(crate) stale: SlotSet,
    /// Fields that an exit from L2 saves by vmcs12's controls.
    pub(crate) saved: SlotSet,
    /// Registers as the last exit from L2 left them.
    pub(crate) at_exit: AtExit,
    /// vmcs02 holds all of vmcs12 but the dirty fields.
    pub(crate) is_merged: bool,
    /// The controls and fields that were merged passed the checks of VM entry.
    pub(crate) is_checked: bool,
    /// vmcs02's constant part has been written.
    pub(crate) is_prepared: bool,
    /// The checks that were made said yes to an entry that the processor has not made yet.
    pub(crate) entry_pending: bool,
    /// Machine TSC at which the VMX-preemption timer of vmcs12 ends; `None` while it is off.
    pub(crate) timer_deadline: Option<u64>,
    /// An MTF exit is due before the next instruction of L2 (injected by L1 as event type 7).
    pub(crate) mtf_pending: bool,
    /// VPID that L1 used last: vmcs02's tag stands for it.
    pub(crate) last_vpid: u16,
    /// L0 waits for a window of L2's: only where L1 lets L2 take interrupts or NMIs directly.
    pub(crate) window_controls: PrimaryBased,
    /// What vmcs02 says of posted interrupts.
    pub(crate) posted: Option<Posted>,
    /// The tables that L1 made for L2, where it uses EPT.
    pub(crate) ept12: Option<Ept12>,
    /// The EPT02 must be looked up again: the EPTP may have changed, or L1 has executed INVEPT.
    pub(crate) selects_ept: bool,
    pub(crate) deferred: Deferred,
    /// How often what happened.
    pub transitions: Transitions,
}

impl Pages {
    /// These pages, as fresh ones of L0.
    pub fn new(
        msr_bitmap: Page,
        msr_bitmap01: &'static [u64; 512],
        nowhere: Page,
        shadow_vmcs: Option<HostPhys>,
    ) -> Self {
        msr_bitmap.words.fill(u64::MAX);
        nowhere.words.fill(u64::MAX);
        Self { msr_bitmap, msr_bitmap01, has_x2apic_bits: false, nowhere, shadow_vmcs }
    }
}

impl Nested {
    /// A vCPU outside VMX operation, on a machine with these capabilities.
    pub fn new(machine: &Capabilities, base: Base, pages: Pages) -> Self {
        let msrs = CapabilityMsrs::new(machine, base.cr4_offered);
        let capabilities = msrs.decoded();
        let uses = FieldUses::new(|field| capabilities.has_field(field));
        Self {
            operation: Operation::Outside,
            base,
            pages,
            msrs,
            capabilities,
            uses,
            vmxon_region: GuestPhys(0),
            current: None,
            is_shadow: false,
            vmcs12: Vmcs12::default(),
            stale: SlotSet::EMPTY,
            saved: SlotSet::EMPTY,
            at_exit: AtExit::default(),
            is_merged: false,
            is_checked: false,
            is_prepared: false,
            entry_pending: false,
            timer_deadline: None,
            mtf_pending: false,
            last_vpid: 0,
            window_controls: PrimaryBased::empty(),
            posted: None,
            ept12: None,
            selects_ept: true,
            deferred: Deferred::default(),
            transitions: Transitions::default(),
        }
    }

    /// Whether L2 is the guest that runs: vmcs02 is current.
    #[inline(always)]
    pub fn in_l2(&self) -> bool {
        self.operation == Operation::NonRoot
    }

    /// Whether L1 is in VMX operation, root or not.
    #[inline(always)]
    pub fn in_vmx_operation(&self) -> bool {
        self.operation != Operation::Outside
    }

    /// An entry was judged and taken, and the processor has not made it yet: L2 runs before anything else happens to it.
    #[inline(always)]
    pub const fn is_entry_pending(&self) -> bool {
        self.entry_pending
    }

    /// The processor has made the entry.
    #[inline(always)]
    pub const fn entered(&mut self) {
        self.entry_pending = false;
    }

    /// Machine TSC at which the VMX-preemption timer of vmcs12 ends; `u64::MAX` while it is off.
    #[inline(always)]
    pub fn timer_deadline(&self) -> u64 {
        self.timer_deadline.unwrap_or(u64::MAX)
    }

    /// The capability MSRs that L1 reads.
    pub const fn msrs(&self) -> &CapabilityMsrs {
        &self.msrs
    }

    /// The pages that the processor reads.
    pub const fn pages(&self) -> &Pages {
        &self.pages
    }

    /// CR0 and CR4 in L1's VMX operation.
    pub const fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }
}
