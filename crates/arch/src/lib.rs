//! x86 as plain data: what several crates must agree on and none of them owns.
//!
//! Addresses that do not mix ([`addr`]), general registers ([`regs`]), control registers and flags ([`control`]),
//! MSR numbers ([`msr`]), segments ([`segment`]), exceptions ([`exception`]), CPUID results ([`cpuid`]), the local
//! APIC's registers and messages ([`apic`]), and the widths of memory and port accesses ([`access`]).
//!
//! Nothing here executes an instruction. Sources: Intel SDM, edition named in ARCHITECTURE.md.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

pub mod access;
pub mod addr;
pub mod apic;
pub mod control;
pub mod cpuid;
pub mod exception;
pub mod msr;
pub mod regs;
pub mod segment;

pub use access::{GuestMemory, OutsideMemory, Width};
pub use addr::{GuestPhys, HostPhys, L2Phys, Linear, PAGE_SIZE};
pub use exception::{Fault, Vector};
pub use msr::Msr;
pub use regs::{Gpr, GuestRegs};
