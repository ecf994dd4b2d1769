//! The machine: the only crate with `asm!`.
#![no_std]
