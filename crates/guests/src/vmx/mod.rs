//! A guest that is a hypervisor: VMX operation, VMCSs, and guests of its own.
//!
//! An [`L2`] shares the address space, the tables and the interrupt handlers of the program that runs it, so its code is a
//! function of the same program. It gets no control but the ones that are asked for.
//!
//! | you want to | look in |
//! |---|---|
//! | enter VMX operation, see what is offered | [`setup`] |
//! | execute one VMX instruction and see how it ended | [`instructions`] |
//! | try what may fault or fail, and print how it ended | [`attempt()`], [`show`], [`equal`] |
//! | reach the fields of the current VMCS | [`Current`] |
//! | make a guest | [`L2`]; its VMCS is filled by `state` and `controls` |
//! | enter it | [`L2::run`], [`follow`], [`enter`] |
//! | print why it came back | [`Report`] |
//! | extended page tables | [`Ept`] |
//! | give it an APIC | [`VirtualApic`] |
//! | a page for a structure of the processor | [`pages`] |

mod attempt;
mod controls;
mod current;
pub mod enter;
pub mod ept;
pub mod instructions;
mod l2;
mod operand;
pub mod pages;
mod report;
pub mod setup;
pub mod state;
mod virtual_apic;

pub use attempt::{Attempt, attempt, equal, show};
pub use controls::Controls;
pub use current::Current;
pub use ept::Ept;
pub use instructions::{VmFail, VmResult};
pub use l2::{DONE, L2, call, follow};
pub use report::Report;
pub use virtual_apic::VirtualApic;
