//! multiboot1 kernels: loaded by [`parts`], told about the machine by [`info`] (Multiboot Specification 0.6.96).

pub mod header;
pub mod info;
pub mod parts;

#[cfg(test)]
mod tests;

use arch::{GuestMemory, GuestPhys, PAGE_SIZE};
use heapless::Vec;

use crate::e820::{EXTENDED_START, LOW_RAM_END, MemoryLayout};
use crate::entry::EntryState;
use crate::error::LoadError;
use crate::writer::{clear, low};
use crate::{Images, multiboot1::info::PlacedModule};

use parts::Parts;

/// EAX at entry: says that the loader speaks multiboot1 (3.2 "Machine state").
pub const LOADER_MAGIC: u32 = 0x2bad_b002;
/// Modules that one kernel gets at most.
pub const MAX_MODULES: usize = 32;
/// Where boot information goes when the kernel leaves the place free.
const INFO_START: u64 = 0x9000;

/// Loads a multiboot1 kernel with its modules and its information structure.
///
/// # Errors
/// A [`LoadError`] for a bad file, or when something does not fit.
pub(crate) fn load(
    images: &Images<'_>,
    memory: &dyn GuestMemory,
    layout: &MemoryLayout,
) -> Result<EntryState, LoadError> {
    if images.initrd.is_some() {
        return Err(LoadError::InitrdForMultiboot);
    }
    // KernelKind has found one already.
    let header = header::find(images.kernel).ok_or(LoadError::KernelUnknown)?;
    if header.unknown_requirements() != 0 {
        return Err(LoadError::MultibootFlags { unknown: header.unknown_requirements() });
    }
    let parts = Parts::of(images.kernel, &header)?;
    check_places(&parts, layout)?;
    let modules = place_modules(images, parts.end(), layout)?;
    let info_start = place_info(images, &parts)?;

    for part in &parts.parts {
        let bytes = &images.kernel[part.file.clone()];
        memory.write(GuestPhys(part.start), bytes)?;
        let loaded_end = part.start + bytes.len() as u64;
        clear(memory, loaded_end, part.end - loaded_end)?;
    }
    for (module, placed) in images.modules.iter().zip(&modules) {
        memory.write(GuestPhys(u64::from(placed.start)), module.bytes)?;
    }
    let written = info::write(images, &modules, memory, layout, info_start)?;

    let mut entry = EntryState::new(parts.entry, low(written.gdt)?);
    entry.eax = LOADER_MAGIC;
    entry.ebx = low(written.info)?;
    Ok(entry)
}

/// Every part must lie in RAM that the memory map calls usable, and the kernel must start in one of them.
fn check_places(parts: &Parts, layout: &MemoryLayout) -> Result<(), LoadError> {
    for part in &parts.parts {
        if !layout.is_ram(part.start, part.end) {
            // Fits a bigger guest: then the number of MiB is the more useful answer.
            return Err(if part.start >= EXTENDED_START && part.end <= crate::e820::BELOW_4G_LIMIT {
                LoadError::TooLittleMemory { needed: part.end, available: layout.below_4g }
            } else {
                LoadError::KernelOutsideRam { start: part.start, end: part.end }
            });
        }
    }
    let entry = u64::from(parts.entry);
    match parts.overlapping(entry, entry + 1) {
        Some(_) => Ok(()),
        None => Err(LoadError::KernelHeader { what: "entry point lies outside of what is loaded" }),
    }
}

/// Modules follow the kernel in extended memory, each on a page of its own.
fn place_modules(
    images: &Images<'_>,
    kernel_end: u64,
    layout: &MemoryLayout,
) -> Result<Vec<PlacedModule, MAX_MODULES>, LoadError> {
    let mut free = kernel_end.max(EXTENDED_START);
    let mut placed = Vec::new();
    for (module, index) in images.modules.iter().zip(0..) {
        let start = free.next_multiple_of(PAGE_SIZE);
        let len = module.bytes.len() as u64;
        let available = layout.below_4g.saturating_sub(start);
        if len > available {
            return Err(LoadError::ModuleDoesNotFit { index, len, available });
        }
        free = start + len;
        placed
            .push(PlacedModule { start: low(start)?, end: low(free)? })
            .map_err(|_| LoadError::Layout { what: "a multiboot kernel takes at most 32 modules" })?;
    }
    Ok(placed)
}

/// Boot information goes to low memory, behind whatever the kernel has there.
fn place_info(images: &Images<'_>, parts: &Parts) -> Result<u64, LoadError> {
    let len = info::len(images);
    let mut start = INFO_START;
    while let Some(end) = parts.overlapping(start, start.saturating_add(len)) {
        // Each step leaves one part behind for good, so there are at most as many steps as parts.
        start = end.next_multiple_of(PAGE_SIZE);
    }
    let limit = LOW_RAM_END.saturating_sub(start);
    if len > limit {
        return Err(LoadError::CommandLineTooLong { len, limit });
    }
    Ok(start)
}
