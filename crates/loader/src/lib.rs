//! Guest images: puts a kernel and what belongs to it into L1's memory, as firmware and boot loader do on a PC.
//!
//! [`load`] recognises the kernel ([`kind`]), writes the platform's tables ([`acpi_tables`], [`bios_data`]) and the
//! kernel with its boot information ([`bzimage`], [`multiboot1`]), and returns how the first vCPU starts ([`entry`]).
//! The memory map that the guest is told is in [`e820`]; a packed image is unpacked by [`inflate()`]. Addresses of L1 as the code has them:
//!
//! ```text
//! 0x400     BIOS data area: COM1, size of low memory, EBDA segment     (bios_data)
//! 0x9000    boot information; multiboot1: moved up where the kernel itself lies there
//! 0x9fc00   end of low RAM
//! 0xf0000   RSDP and the other ACPI tables                             (acpi_tables)
//! 1 MiB     kernel, then multiboot1 modules; an initrd ends at the top of the RAM below 4 GiB
//! ```
//!
//! Everything about the image files is untrusted: sizes and addresses are checked, and a bad file is a [`LoadError`].
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

pub mod acpi_tables;
pub mod bios_data;
mod bytes;
pub mod bzimage;
pub mod e820;
pub mod entry;
pub mod error;
mod inflate;
pub mod kind;
pub mod multiboot1;
mod writer;

#[cfg(test)]
mod test_memory;

pub use e820::MemoryLayout;
pub use entry::EntryState;
pub use error::LoadError;
pub use inflate::inflate;
pub use kind::KernelKind;

use arch::GuestMemory;

/// A multiboot module: a file that the boot loader puts beside the kernel.
#[derive(Clone, Copy, Debug, Default)]
pub struct ModuleImage<'a> {
    /// The file's contents.
    pub bytes: &'a [u8],
    /// What the guest is told about it: by custom the file name, a space, and arguments. No NUL.
    pub command_line: &'a str,
}

/// The files a guest is started from.
#[derive(Clone, Copy, Debug, Default)]
pub struct Images<'a> {
    /// Contents of the kernel file.
    pub kernel: &'a [u8],
    /// The kernel's name: the first word of a multiboot kernel's command line. Linux does not see it.
    pub kernel_name: &'a str,
    /// Contents of the initial RAM disk: Linux only.
    pub initrd: Option<&'a [u8]>,
    /// Modules: multiboot only.
    pub modules: &'a [ModuleImage<'a>],
    /// Text for the kernel, without its name. No NUL.
    pub command_line: &'a str,
}

/// Puts `images` and the platform's tables into `memory`, and returns the state in which the first vCPU starts.
///
/// `memory` must hold everything that `layout` says. Only what is named above is written: the caller has zeroed the
/// rest. Each image is written in one piece.
///
/// # Errors
/// A [`LoadError`] that says in one sentence what the user can do. What was written until then stays written.
#[inline(never)]
pub fn load(images: &Images<'_>, memory: &dyn GuestMemory, layout: &MemoryLayout) -> Result<EntryState, LoadError> {
    layout.check()?;
    if images.command_line.contains('\0') || images.modules.iter().any(|module| module.command_line.contains('\0')) {
        return Err(LoadError::NulInCommandLine);
    }
    let kind = KernelKind::of(images.kernel)?;
    bios_data::write(memory)?;
    acpi_tables::write(memory, layout)?;
    match kind {
        KernelKind::BzImage => bzimage::load(images, memory, layout),
        KernelKind::Multiboot1 => multiboot1::load(images, memory, layout),
    }
}
