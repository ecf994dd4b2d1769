//! The platform that L1 sees: UART, PIC, PIT, IOAPIC, RTC, power management, PCI, exit port.
//!
//! [`Platform`] is all of it: a state machine that the hypervisor feeds with the guest's port and memory accesses and
//! with the TSC, and that acts through [`Outside`]. Each device is a file of its own and knows neither ports nor the
//! interrupt controllers: it says what its line is, and `platform.rs` passes that on.
//!
//! The machine is the one that Bochs emulates, as far as there is a device at all; where Bochs takes a short cut, the
//! data sheet named in the device's file counts.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

mod calendar;
mod clock;
mod counter;
mod interrupts;
mod ioapic;
mod keyboard;
mod nvram;
mod outside;
mod pci;
mod pic;
mod pit;
mod platform;
mod pm;
mod rtc;
mod uart;

#[cfg(test)]
mod tests;

pub use ioapic::IOAPIC_BASE;
pub use outside::{Outside, PowerRequest};
pub use platform::{Platform, PlatformConfig};
