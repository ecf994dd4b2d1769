//! What firmware and boot loader tell L0: multiboot information, memory map, ACPI tables, as one value.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
