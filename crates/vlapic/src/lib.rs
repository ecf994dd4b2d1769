//! A local APIC, xAPIC and x2APIC, as data.
//!
//! A vCPU has one [`LocalApic`], which only the processor that runs the vCPU touches: no lock, no atomic. What others
//! send it waits in its [`Mailbox`] until it is drained; whom a message addresses, the VM's [`Directory`] knows from
//! what each APIC published. The outside world is one trait, [`Bus`]; time comes in as the guest's TSC.
//!
//! | question | file |
//! |---|---|
//! | the state, RESET, INIT | `local_apic.rs` |
//! | which registers are there, readable, writable | `registers.rs` |
//! | accesses to the register page | `mmio.rs` |
//! | x2APIC's MSRs, IA32_TSC_DEADLINE | `msr.rs` |
//! | IA32_APIC_BASE and the modes | `mode.rs` |
//! | which interrupt is next | `priority.rs`, `interrupts.rs` |
//! | the vector table and the LINT pins | `lvt.rs`, `lint.rs` |
//! | the timer | `timer.rs` |
//! | what a write to ICR sends | `icr.rs` |
//! | who is addressed | `directory.rs`, `identity.rs` |
//! | how it gets there | `mailbox.rs`, `events.rs` |
//! | error status | `errors.rs` |
//! | what the processor does by itself, and why not | `apicv/` |
//!
//! Section numbers are those of the edition that ARCHITECTURE.md names; the local APIC is chapter 11 there,
//! "Advanced Programmable Interrupt Controller (APIC)".
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

mod apicv;
mod bus;
mod directory;
mod errors;
mod events;
mod icr;
mod identity;
mod interrupts;
mod lint;
mod local_apic;
mod lvt;
mod mailbox;
mod mmio;
mod mode;
mod msr;
mod priority;
mod registers;
mod timer;
mod vectors;

#[cfg(test)]
mod tests;

pub use apicv::{Apicv, Assist, Hardware, Inhibits, Reason, VirtualApicPage};
pub use bus::Bus;
pub use directory::{Directory, TargetSet};
pub use events::Events;
pub use identity::{Identity, Mode, logical_x2apic_id};
pub use lint::Pin;
pub use local_apic::{Features, LocalApic};
pub use mailbox::{Mail, Mailbox};
pub use timer::Frequencies;
pub use vectors::VectorSet;
