//! The information that a multiboot1 kernel gets (Multiboot Specification 0.6.96, 3.3 "Boot information format").

use arch::GuestMemory;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{Immutable, IntoBytes};

use crate::Images;
use crate::e820::{EXTENDED_START, LOW_RAM_END, MemoryLayout};
use crate::entry::{GDT_BYTES, STACK_BYTES, gdt_image};
use crate::error::LoadError;
use crate::writer::{Writer, low};

/// mem_lower and mem_upper count.
pub const FLAG_MEMORY: u32 = 1 << 0;
/// boot_device counts.
pub const FLAG_BOOT_DEVICE: u32 = 1 << 1;
/// cmdline counts.
pub const FLAG_COMMAND_LINE: u32 = 1 << 2;
/// The modules count.
pub const FLAG_MODULES: u32 = 1 << 3;
/// The memory map counts.
pub const FLAG_MEMORY_MAP: u32 = 1 << 6;
/// boot_loader_name counts.
pub const FLAG_BOOT_LOADER_NAME: u32 = 1 << 9;

/// What the guest is told that loaded it.
pub const BOOT_LOADER_NAME: &str = "nestling";
/// First hard disk, no partition: what QEMU says for a kernel that came from no disk.
const BOOT_DEVICE: u32 = 0x8000_ffff;

/// The information structure, up to its last field that the flags above name.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct Info {
    flags: U32,
    mem_lower_kib: U32,
    mem_upper_kib: U32,
    boot_device: U32,
    command_line: U32,
    modules_count: U32,
    modules: U32,
    symbols: [U32; 4],
    memory_map_len: U32,
    memory_map: U32,
    drives_len: U32,
    drives: U32,
    config_table: U32,
    boot_loader_name: U32,
    /// APM table, VBE and framebuffer: absent, but a kernel may read the whole structure.
    absent: [U32; 13],
}

/// One entry of the module list.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct Module {
    start: U32,
    end: U32,
    command_line: U32,
    reserved: U32,
}

/// One entry of the memory map. `size` does not count itself.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct MapEntry {
    size: U32,
    start: U64,
    len: U64,
    kind: U32,
}

const _: () = {
    assert!(size_of::<Info>() == 120);
    assert!(core::mem::offset_of!(Info, memory_map_len) == 44);
    assert!(core::mem::offset_of!(Info, boot_loader_name) == 64);
    assert!(size_of::<MapEntry>() == 24);
};

/// Where a module was put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PlacedModule {
    /// First byte, page-aligned.
    pub(crate) start: u32,
    /// Address after the last byte.
    pub(crate) end: u32,
}

/// Where the parts of the information are.
pub(crate) struct Written {
    /// The GDT.
    pub(crate) gdt: u64,
    /// The information structure.
    pub(crate) info: u64,
}

/// Bytes that [`write`] takes at most, the stack included.
pub(crate) fn len(images: &Images<'_>) -> u64 {
    const MAP_ENTRIES: usize = 5;
    let texts = images.kernel_name.len() + 1 + images.command_line.len() + 1 + BOOT_LOADER_NAME.len() + 1;
    let modules: usize = images.modules.iter().map(|module| size_of::<Module>() + module.command_line.len() + 1).sum();
    STACK_BYTES + (GDT_BYTES + size_of::<Info>() + MAP_ENTRIES * size_of::<MapEntry>() + texts + modules) as u64
}

/// Lays out stack, GDT, information structure, memory map, module list and strings from `start` on, in this order.
pub(crate) fn write(
    images: &Images<'_>,
    placed: &[PlacedModule],
    memory: &dyn GuestMemory,
    layout: &MemoryLayout,
    start: u64,
) -> Result<Written, LoadError> {
    let map = layout.e820();
    let gdt = start + STACK_BYTES;
    let info = gdt + GDT_BYTES as u64;
    let memory_map = info + size_of::<Info>() as u64;
    let memory_map_len = (map.len() * size_of::<MapEntry>()) as u64;
    let modules = memory_map + memory_map_len;

    // The strings first, behind the structures that point to them.
    let mut strings = Writer::new(memory, modules + (placed.len() * size_of::<Module>()) as u64);
    let command_line = strings.put(images.kernel_name.as_bytes())?;
    strings.put(b" ")?;
    strings.put_text(images.command_line)?;
    let boot_loader_name = strings.put_text(BOOT_LOADER_NAME)?;
    let mut list = Writer::new(memory, modules);
    for (module, placed) in images.modules.iter().zip(placed) {
        let entry = Module {
            start: placed.start.into(),
            end: placed.end.into(),
            command_line: low(strings.put_text(module.command_line)?)?.into(),
            reserved: 0.into(),
        };
        list.put(entry.as_bytes())?;
    }

    let mut structures = Writer::new(memory, gdt);
    structures.put(&gdt_image())?;
    let flags =
        FLAG_MEMORY | FLAG_BOOT_DEVICE | FLAG_COMMAND_LINE | FLAG_MODULES | FLAG_MEMORY_MAP | FLAG_BOOT_LOADER_NAME;
    let structure = Info {
        flags: flags.into(),
        mem_lower_kib: low(LOW_RAM_END >> 10)?.into(),
        mem_upper_kib: low((layout.below_4g - EXTENDED_START) >> 10)?.into(),
        boot_device: BOOT_DEVICE.into(),
        command_line: low(command_line)?.into(),
        modules_count: low(placed.len() as u64)?.into(),
        modules: low(modules)?.into(),
        symbols: [0.into(); 4],
        memory_map_len: low(memory_map_len)?.into(),
        memory_map: low(memory_map)?.into(),
        drives_len: 0.into(),
        drives: 0.into(),
        config_table: 0.into(),
        boot_loader_name: low(boot_loader_name)?.into(),
        absent: [0.into(); 13],
    };
    structures.put(structure.as_bytes())?;
    for range in &map {
        let entry = MapEntry {
            size: 20.into(),
            start: range.start.into(),
            len: range.len.into(),
            kind: (range.kind as u32).into(),
        };
        structures.put(entry.as_bytes())?;
    }
    Ok(Written { gdt, info })
}
