//! Guest images: Linux bzImage and multiboot1; memory map and ACPI tables for L1.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
