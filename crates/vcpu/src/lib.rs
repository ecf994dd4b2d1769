//! One virtual CPU: run loop, exit handlers, event injection, INIT and SIPI.
//!
//! The crate knows neither the machine nor the devices: [`Cpu`] is the processor that runs the vCPU, [`World`] the VM
//! around it. It does not know that there is a scheduler either: [`Vcpu::run`] returns why it stopped ([`Left`]).
//!
//! | question | file |
//! |---|---|
//! | what happens between two entries | `run.rs` |
//! | which event goes in next | `inject.rs` |
//! | what the processor does for the APIC | `apic.rs`, `exits/apic.rs` |
//! | what an exit does | `exits/` |
//! | VMX instructions of L1, exits of L2 | `exits/vmx.rs`, `exits/l2.rs` |
//! | events while L2 runs | `l2_events.rs` |
//! | what vmcs01 holds at the start | `setup.rs`, `reset.rs` |
//! | what L1 sees of the machine | `cpuid.rs`, `mtrr.rs`, `msr_bitmap.rs` |
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

mod apic;
mod blocking;
pub mod control_registers;
mod counters;
mod cpu;
pub mod cpuid;
mod exits;
mod inject;
mod l2_events;
mod msr_bitmap;
mod mtrr;
mod registers;
mod reset;
mod run;
mod setup;
mod skip;
mod state;
mod stop;
mod world;

#[cfg(test)]
mod tests;

pub use apic::{ApicHelp, apic_hardware};
pub use counters::Counters;
pub use cpu::{Cpu, EntryRefused};
pub use msr_bitmap::{fill_io_bitmaps, fill_msr_bitmap, pass_x2apic_msrs};
pub use reset::FlatStart;
pub use run::Left;
pub use setup::{Controls, Identity, Pages};
pub use state::{Activity, Vcpu};
pub use stop::Stop;
pub use world::{Report, World};
