//! What firmware and boot loader tell L0: multiboot information, memory map, ACPI tables, as one value.
//!
//! [`BootInfo`] is read from the block that a boot loader leaves (`multiboot2.rs`, `multiboot1.rs`). From its memory
//! ranges [`MemoryMap`] makes a map without overlaps, and [`FreeMemory`] hands out what L0 needs ([`memory`]).
//! [`acpi::discover`] finds processors, interrupt controllers and power management.
//!
//! All of it is pure parsing: bytes come in as slices or through [`PhysMemory`], and bytes that make no sense are an
//! error. The boot loader's block may lie where L0 wants to put something: copy it first.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

pub mod acpi;
pub mod info;
pub mod memory;
mod multiboot1;
mod multiboot2;
pub mod phys_memory;

#[cfg(test)]
mod test_memory;

pub use info::{BootError, BootInfo, Framebuffer, FramebufferKind, Module};
pub use memory::{FreeMemory, MemoryKind, MemoryMap, MemoryRange};
pub use multiboot1::MAGIC as MULTIBOOT1_MAGIC;
pub use multiboot2::MAGIC as MULTIBOOT2_MAGIC;
pub use phys_memory::{PhysMemory, Unreadable};
