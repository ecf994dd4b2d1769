//! The platform that L1 sees: UART, PIC, PIT, IOAPIC, RTC, power management, PCI, exit port.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
