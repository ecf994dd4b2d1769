//! Linux kernels: the 32-bit boot protocol (Linux Documentation/arch/x86/boot.rst "32-bit Boot Protocol").

pub mod header;

#[cfg(test)]
mod tests;

use arch::{GuestMemory, GuestPhys, PAGE_SIZE};

use crate::Images;
use crate::acpi_tables::RSDP_ADDRESS;
use crate::e820::{EXTENDED_START, LOW_RAM_END, MemoryLayout};
use crate::entry::{EntryState, gdt_image};
use crate::error::LoadError;
use crate::writer::{Writer, clear, low};

use header::SetupHeader;

/// Where the GDT goes; the stack is right below.
const GDT: u64 = 0x9000;
/// Where `boot_params`, the zero page, goes.
const ZERO_PAGE: u64 = 0xa000;
/// Where the command line goes.
const COMMAND_LINE: u64 = 0xb000;

/// Offsets in the zero page that are not part of the setup header (boot.rst and zero-page.rst).
mod zero_page {
    pub(super) const ACPI_RSDP_ADDR: u64 = 0x070;
    pub(super) const ALT_MEM_K: u64 = 0x1e0;
    pub(super) const E820_ENTRIES: u64 = 0x1e8;
    pub(super) const E820_TABLE: u64 = 0x2d0;
}

/// Offsets in the setup header of what the boot loader fills in.
mod setup {
    pub(super) const VID_MODE: u64 = 0x1fa;
    pub(super) const TYPE_OF_LOADER: u64 = 0x210;
    pub(super) const CODE32_START: u64 = 0x214;
    pub(super) const RAMDISK_IMAGE: u64 = 0x218;
    pub(super) const RAMDISK_SIZE: u64 = 0x21c;
    pub(super) const CMD_LINE_PTR: u64 = 0x228;
}

/// type_of_loader of a loader without an assigned number.
const LOADER_UNDEFINED: u8 = 0xff;
/// vid_mode "normal".
const VIDEO_NORMAL: u16 = 0xffff;

/// Loads a Linux kernel with its initrd, zero page and command line.
///
/// # Errors
/// A [`LoadError`] for a bad file, or when something does not fit.
pub(crate) fn load(
    images: &Images<'_>,
    memory: &dyn GuestMemory,
    layout: &MemoryLayout,
) -> Result<EntryState, LoadError> {
    if !images.modules.is_empty() {
        return Err(LoadError::ModulesForLinux);
    }
    let header = SetupHeader::of(images.kernel)?;
    if header.run_end > layout.below_4g {
        return Err(LoadError::TooLittleMemory { needed: header.run_end, available: layout.below_4g });
    }
    let command_line_limit = u64::from(header.command_line_max).min(LOW_RAM_END - COMMAND_LINE - 1);
    let command_line_len = images.command_line.len() as u64;
    if command_line_len > command_line_limit {
        return Err(LoadError::CommandLineTooLong { len: command_line_len, limit: command_line_limit });
    }
    let initrd = images.initrd.filter(|initrd| !initrd.is_empty());
    let initrd_start = match initrd {
        Some(initrd) => place_initrd(initrd, &header, layout)?,
        None => 0,
    };

    memory.write(GuestPhys(header.load_addr), &images.kernel[header.code.clone()])?;
    if let Some(initrd) = initrd {
        memory.write(GuestPhys(initrd_start), initrd)?;
    }
    Writer::new(memory, COMMAND_LINE).put_text(images.command_line)?;
    memory.write(GuestPhys(GDT), &gdt_image())?;

    clear(memory, ZERO_PAGE, PAGE_SIZE)?;
    let put = |offset: u64, bytes: &[u8]| memory.write(GuestPhys(ZERO_PAGE + offset), bytes);
    let entry = low(header.load_addr)?;
    put(header::START as u64, &images.kernel[header.header.clone()])?;
    put(setup::VID_MODE, &VIDEO_NORMAL.to_le_bytes())?;
    put(setup::TYPE_OF_LOADER, &[LOADER_UNDEFINED])?;
    put(setup::CODE32_START, &entry.to_le_bytes())?;
    put(setup::RAMDISK_IMAGE, &low(initrd_start)?.to_le_bytes())?;
    put(setup::RAMDISK_SIZE, &low(initrd.map_or(0, |initrd| initrd.len() as u64))?.to_le_bytes())?;
    put(setup::CMD_LINE_PTR, &low(COMMAND_LINE)?.to_le_bytes())?;
    // The ext_ fields, the upper halves of these three, stay zero: everything lies below 4 GiB.
    if header.version >= 0x020e {
        put(zero_page::ACPI_RSDP_ADDR, &RSDP_ADDRESS.to_le_bytes())?;
    }
    put(zero_page::ALT_MEM_K, &low((layout.below_4g - EXTENDED_START) >> 10)?.to_le_bytes())?;
    let mut table = Writer::new(memory, ZERO_PAGE + zero_page::E820_TABLE);
    let mut entries = 0u8;
    for range in &layout.e820() {
        table.put(&range.start.to_le_bytes())?;
        table.put(&range.len.to_le_bytes())?;
        table.put(&(range.kind as u32).to_le_bytes())?;
        entries += 1;
    }
    put(zero_page::E820_ENTRIES, &[entries])?;

    let mut state = EntryState::new(entry, low(GDT)?);
    state.esi = low(ZERO_PAGE)?;
    Ok(state)
}

/// The initrd ends at the top of the RAM that the kernel can reach early, and begins on a page.
fn place_initrd(initrd: &[u8], header: &SetupHeader, layout: &MemoryLayout) -> Result<u64, LoadError> {
    let len = initrd.len() as u64;
    let top = layout.below_4g.min(u64::from(header.initrd_addr_max) + 1);
    let bottom = header.run_end.next_multiple_of(PAGE_SIZE);
    let start = top.saturating_sub(len) & !(PAGE_SIZE - 1);
    if start < bottom || len > top {
        return Err(LoadError::InitrdDoesNotFit { len, available: top.saturating_sub(bottom) });
    }
    Ok(start)
}
