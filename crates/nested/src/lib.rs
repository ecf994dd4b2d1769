//! VMX for the guest's guest: VMX instructions as L1 sees them, vmcs12, entry, merge, exit routing, exit.
//!
//! L1 runs with vmcs01, L2 with vmcs02, which this crate computes from what L1 wrote (vmcs12) and what L0 needs. The seams are
//! [`Processor`] (which VMCS is current), [`L1Memory`] and [`Msrs`].
//!
//! | question | file |
//! |---|---|
//! | what L1's processor offers | `capabilities.rs` |
//! | may L1 execute the instruction, how does it end | `instruction.rs`, `outcome.rs` |
//! | VMXON, VMXOFF, VMCLEAR, VMPTRLD, VMPTRST | `pointer.rs` |
//! | VMREAD, VMWRITE; what L1 does without an exit | `field_access.rs`, `shadow.rs` |
//! | VMLAUNCH, VMRESUME | `entry.rs` |
//! | which rules have to be looked at again | `recheck.rs` |
//! | why an entry failed, in words | `explain.rs` |
//! | what vmcs12 holds, where | `vmcs12.rs`, `slots.rs` |
//! | what each field means for vmcs02 and the checks | `field_use.rs` |
//! | what vmcs02 holds | `merge.rs`, `bitmaps.rs` |
//! | whose an exit of L2 is | `route.rs` |
//! | how L1 gets it; the one way back to vmcs01 | `exit.rs`, `host_state.rs`, `deferred_apicv.rs` |
//! | L1's APIC, and how much of it the processor does | `l1_apic.rs` |
//! | what L0 asks while L2 runs | `l2.rs` |
//! | interrupts for L2 that L1 sees nothing of | `virtual_interrupts.rs` |
//! | what of L2 is read back, when | `read_back.rs` |
//! | the lists of MSRs | `msr_lists.rs` |
//! | L1's EPT | `ept12.rs` |
//! | all of it as bytes, and back | `save.rs` |
//! | INVEPT, INVVPID, VMFUNC | `invalidate.rs`, `vm_function.rs` |
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

mod bitmaps;
mod capabilities;
mod counters;
mod current;
mod deferred_apicv;
mod entry;
mod ept12;
mod exit;
mod explain;
mod field_access;
mod field_use;
mod host_state;
mod instruction;
mod invalidate;
mod l1_apic;
mod l2;
mod merge;
mod msr_lists;
mod outcome;
mod pointer;
mod read_back;
mod recheck;
mod route;
mod save;
mod seam;
mod shadow;
mod slots;
mod state;
mod virtual_interrupts;
mod vm_function;
mod vmcs12;

#[cfg(test)]
mod tests;

pub use capabilities::CapabilityMsrs;
pub use counters::Transitions;
pub use current::{Vmcs01, Vmcs02};
pub use deferred_apicv::{DeferredCounts, Update, submit};
pub use entry::{Abort, Entry, L1Processor, Refusal};
pub use ept12::EptOutcome;
pub use exit::{Synthesized, Vectoring};
pub use explain::Explanation;
pub use instruction::Permission;
pub use l1_apic::{ApicPages, L1Apic};
pub use outcome::Outcome;
pub use route::Route;
pub use save::{BadState, SAVED_BYTES};
pub use seam::{L1Memory, Msrs, NoSuchMsr, Processor, Which};
pub use shadow::fill_bitmaps as fill_shadowing_bitmaps;
pub use state::{Base, Nested, Operation, Page, Pages, Posted, Posting};
pub use vmcs12::{REVISION, Vmcs12};
