//! The seams: what nested VMX needs of the processor, of L1's memory, and of L1's model-specific registers.

use core::sync::atomic::AtomicU64;

use arch::{GuestMemory, GuestPhys, HostPhys, Msr};
use ept::{Backing, Frames, Shadows};
use vmcs::Access;

/// The VMCSs of one vCPU with which the processor runs guests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// L0 runs L1 with it.
    Vmcs01,
    /// L0 runs L2 with it.
    Vmcs02,
}

/// The processor that runs the vCPU.
pub trait Processor {
    /// The current VMCS.
    type Vmcs: Access;

    /// Where the tables are that map L2's memory.
    type Tables: Frames;

    /// The current VMCS.
    fn vmcs(&mut self) -> &mut Self::Vmcs;

    /// Makes another VMCS of this vCPU the current one (VMPTRLD).
    fn make_current(&mut self, which: Which);

    /// Does `work` on the shadow VMCS that vmcs01's link pointer names, which L1 reads and writes without an exit, and makes `then`
    /// the current one. The shadow VMCS is cleared, so that the processor finds in memory what was written.
    fn with_shadow(&mut self, then: Which, work: impl FnOnce(&mut Self::Vmcs));

    /// The processor's time-stamp counter, no offset applied.
    fn tsc(&self) -> u64;

    /// Drops what the processor has cached of L1's linear addresses.
    fn flush_l1(&mut self);

    /// Drops what the processor has cached of L2's linear addresses.
    fn flush_l2(&mut self);

    /// Drops what the processor has cached of one linear address of L2.
    fn flush_l2_address(&mut self, linear: u64);

    /// The EPT02s of this vCPU.
    fn ept02(&mut self) -> &mut Shadows<Self::Tables>;

    /// Drops what the processor has cached by way of the EPT pointer `eptp`.
    fn flush_ept(&mut self, eptp: u64);
}

/// L1's memory, with where it is.
pub trait L1Memory: GuestMemory + Backing {
    /// The host-physical address of the byte at `at`; `None` where L1 has no RAM. The rest of its 4-KiB page follows.
    fn host(&self, at: GuestPhys) -> Option<HostPhys> {
        self.backing(at).map(|backed| backed.host)
    }

    /// The page of L1's RAM at `page`, a multiple of 4 KiB, as words that L1 and the processor may change at any time; `None`
    /// where L1 has no RAM.
    fn words(&self, page: GuestPhys) -> Option<&[AtomicU64; 512]>;
}

/// RDMSR or WRMSR of L1 would raise #GP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoSuchMsr;

/// L1's model-specific registers, for the MSR lists of VM entry and VM exit.
pub trait Msrs<P> {
    /// What RDMSR at privilege level 0 gives, in the guest whose VMCS is current.
    fn load(&mut self, cpu: &mut P, msr: Msr) -> Result<u64, NoSuchMsr>;

    /// What WRMSR at privilege level 0 does, in the guest whose VMCS is current.
    fn store(&mut self, cpu: &mut P, msr: Msr, value: u64) -> Result<(), NoSuchMsr>;
}
