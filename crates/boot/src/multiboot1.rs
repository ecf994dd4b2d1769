//! The multiboot1 information structure (Multiboot Specification 0.6.96, 3.3 "Boot information format").

use arch::HostPhys;
use heapless::Vec;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::info::{
    BootError, BootInfo, Framebuffer, FramebufferKind, MAX_COMMAND_LINE, MAX_MODULES, MAX_NAME, text, truncated,
};
use crate::memory::{MemoryKind, MemoryRange};
use crate::phys_memory::{PhysMemory, read};

/// EAX at entry from a multiboot1 loader (3.2 "Machine state").
pub const MAGIC: u32 = 0x2bad_b002;

/// Bits of `flags`: which fields count.
mod flag {
    pub(super) const MEMORY: u32 = 1 << 0;
    pub(super) const COMMAND_LINE: u32 = 1 << 2;
    pub(super) const MODULES: u32 = 1 << 3;
    pub(super) const MEMORY_MAP: u32 = 1 << 6;
    pub(super) const BOOT_LOADER_NAME: u32 = 1 << 9;
    pub(super) const FRAMEBUFFER: u32 = 1 << 12;
}

#[derive(FromBytes, IntoBytes, Immutable)]
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
    apm_table: U32,
    vbe: [U32; 4],
}

const _: () = assert!(size_of::<Info>() as u64 == FRAMEBUFFER_OFFSET);

/// The framebuffer follows; it is read only when the flags say that it is there, for older loaders end before it.
const FRAMEBUFFER_OFFSET: u64 = 88;

#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct FramebufferFields {
    address: U64,
    pitch: U32,
    width: U32,
    height: U32,
    bits_per_pixel: u8,
    kind: u8,
}

#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct ModuleEntry {
    start: U32,
    end: U32,
    text: U32,
    reserved: U32,
}

/// `size` does not count itself.
#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct MapEntry {
    size: U32,
    start: U64,
    len: U64,
    kind: U32,
}

/// Reads the structure at `at`.
pub(crate) fn parse(memory: &impl PhysMemory, at: HostPhys) -> Result<BootInfo, BootError> {
    const WHAT: &str = "multiboot1 information";
    let fields: Info = read(memory, at).map_err(truncated(WHAT))?;
    let has = |flag| fields.flags.get() & flag != 0;
    let mut info = BootInfo::default();
    if has(flag::COMMAND_LINE) {
        let bytes = string::<{ MAX_COMMAND_LINE + 1 }>(memory, fields.command_line.get(), "command line")?;
        info.command_line = text(&bytes, "command line")?;
    }
    if has(flag::BOOT_LOADER_NAME) {
        let bytes = string::<{ MAX_NAME + 1 }>(memory, fields.boot_loader_name.get(), "boot loader's name")?;
        info.boot_loader_name = text(&bytes, "boot loader's name")?;
    }
    if has(flag::MODULES) {
        read_modules(&mut info, memory, &fields)?;
    }
    if has(flag::MEMORY_MAP) {
        read_memory_map(&mut info, memory, &fields)?;
    } else if has(flag::MEMORY) {
        let usable = |start, kib: U32| MemoryRange {
            start: HostPhys(start),
            len: u64::from(kib.get()) << 10,
            kind: MemoryKind::Usable,
        };
        info.add_memory(usable(0, fields.mem_lower_kib))?;
        info.add_memory(usable(1 << 20, fields.mem_upper_kib))?;
    }
    if has(flag::FRAMEBUFFER) {
        let fields: FramebufferFields = read(memory, at.add(FRAMEBUFFER_OFFSET)).map_err(truncated(WHAT))?;
        info.framebuffer = Some(Framebuffer {
            address: HostPhys(fields.address.get()),
            pitch: fields.pitch.get(),
            width: fields.width.get(),
            height: fields.height.get(),
            bits_per_pixel: fields.bits_per_pixel,
            kind: FramebufferKind::from_number(fields.kind),
        });
    }
    info.finish()
}

fn read_modules(info: &mut BootInfo, memory: &impl PhysMemory, fields: &Info) -> Result<(), BootError> {
    let count = fields.modules_count.get();
    if count as usize > MAX_MODULES {
        return Err(BootError::TooMany { what: "modules", limit: MAX_MODULES });
    }
    for index in 0..u64::from(count) {
        let at = HostPhys(u64::from(fields.modules.get()) + 16 * index);
        let entry: ModuleEntry = read(memory, at).map_err(truncated("module list"))?;
        // The specification lets the string be absent: address 0.
        let mut name = Vec::new();
        if entry.text.get() != 0 {
            name = first_part(memory, entry.text.get())?;
        }
        info.add_module(entry.start.get().into(), entry.end.get().into(), &name)?;
    }
    Ok(())
}

fn read_memory_map(info: &mut BootInfo, memory: &impl PhysMemory, fields: &Info) -> Result<(), BootError> {
    const WHAT: &str = "memory map";
    let mut at = u64::from(fields.memory_map.get());
    let end = at + u64::from(fields.memory_map_len.get());
    while at < end {
        let entry: MapEntry = read(memory, HostPhys(at)).map_err(truncated(WHAT))?;
        if (entry.size.get() as usize) < size_of::<MapEntry>() - 4 {
            return Err(BootError::Malformed { what: WHAT });
        }
        info.add_memory(MemoryRange {
            start: HostPhys(entry.start.get()),
            len: entry.len.get(),
            kind: MemoryKind::from_number(entry.kind.get()),
        })?;
        at += u64::from(entry.size.get()) + 4;
    }
    Ok(())
}

/// The string at `at` without its NUL.
fn string<const N: usize>(memory: &impl PhysMemory, at: u32, what: &'static str) -> Result<Vec<u8, N>, BootError> {
    let mut bytes = Vec::new();
    for offset in 0.. {
        let byte: u8 = read(memory, HostPhys(u64::from(at) + offset)).map_err(truncated(what))?;
        if byte == 0 {
            break;
        }
        bytes.push(byte).map_err(|_| BootError::TextTooLong { what, limit: N - 1 })?;
    }
    Ok(bytes)
}

/// The first word of the string at `at`, whatever folders it begins with and however long the rest is.
fn first_part(memory: &impl PhysMemory, at: u32) -> Result<Vec<u8, MAX_COMMAND_LINE>, BootError> {
    const WHAT: &str = "name of a boot module";
    let mut word = Vec::new();
    // Bounded, for the string may be blanks as far as memory goes.
    for offset in 0..4096 {
        let byte: u8 = read(memory, HostPhys(u64::from(at) + offset)).map_err(truncated(WHAT))?;
        let blank = byte.is_ascii_whitespace();
        if byte == 0 || (blank && !word.is_empty()) {
            break;
        }
        if blank {
            continue;
        }
        word.push(byte).map_err(|_| BootError::TextTooLong { what: WHAT, limit: MAX_NAME })?;
    }
    Ok(word)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::test_memory::TestMemory;

    /// What QEMU's `-kernel` gives: flags 0x24f, map entries of 20 bytes with their size before them.
    fn from_qemu() -> TestMemory {
        let mut memory = TestMemory::new(0x1_0000);
        let words = [0x24f, 639, 0x1_fb80, 0x8000_ffff, 0x9100, 2, 0x9200, 0, 0, 0, 0, 48, 0x9300];
        for (index, word) in (0u64..).zip(words) {
            memory.put(0x9000 + 4 * index, &u32::to_le_bytes(word));
        }
        memory.put(0x9040, &0x9180u32.to_le_bytes());
        memory.put(0x9100, b"nestling console=com1\0");
        memory.put(0x9180, b"qemu\0");
        for (index, (start, end, text)) in
            (0u64..).zip([(0x20_0000u32, 0x20_0010u32, 0x9400u32), (0x30_0000, 0x30_0000, 0)])
        {
            memory.put(0x9200 + 16 * index, &[start, end, text, 0].map(u32::to_le_bytes).concat());
        }
        memory.put(0x9400, b"out/nestling.toml with words\0");
        for (index, (start, len, kind)) in (0u64..).zip([(0u64, 0x9_fc00u64, 1u32), (1 << 32, 1 << 30, 3)]) {
            let at = 0x9300 + 24 * index;
            memory.put(at, &20u32.to_le_bytes());
            memory.put(at + 4, &start.to_le_bytes());
            memory.put(at + 12, &len.to_le_bytes());
            memory.put(at + 20, &kind.to_le_bytes());
        }
        memory
    }

    /// Every field that L0 uses, at the offsets of the specification.
    #[test]
    fn reads_what_qemu_gives() {
        let info = BootInfo::from_multiboot1(&from_qemu(), HostPhys(0x9000)).unwrap();
        assert_eq!((info.command_line.as_str(), info.boot_loader_name.as_str()), ("nestling console=com1", "qemu"));
        let modules: Vec<_, 4> =
            info.modules.iter().map(|module| (module.start.0, module.len, module.name.as_str())).collect();
        assert_eq!(modules, [(0x20_0000, 0x10, "nestling.toml"), (0x30_0000, 0, "")]);
        let memory: Vec<_, 4> = info.memory.iter().map(|range| (range.start.0, range.len, range.kind)).collect();
        assert_eq!(memory, [(0, 0x9_fc00, MemoryKind::Usable), (1 << 32, 1 << 30, MemoryKind::AcpiReclaimable)]);
        assert_eq!((info.rsdp, info.framebuffer), (None, None));
    }

    /// A loader without a memory map still tells the size of memory below the first hole.
    #[test]
    fn sizes_stand_in_for_a_missing_map() {
        let mut memory = from_qemu();
        memory.put(0x9000, &1u32.to_le_bytes());
        let info = BootInfo::from_multiboot1(&memory, HostPhys(0x9000)).unwrap();
        let memory: Vec<_, 4> = info.memory.iter().map(|range| (range.start.0, range.len)).collect();
        assert_eq!(memory, [(0, 639 << 10), (1 << 20, 0x1_fb80 << 10)]);
    }

    proptest! {
        /// Words replaced anywhere: a value or an error, never a panic, and never without end.
        #[test]
        fn hostile_information_does_not_panic(changes in prop::collection::vec((0u64..0x500, any::<u32>()), 1..8)) {
            let mut memory = from_qemu();
            for (offset, value) in changes {
                memory.put(0x9000 + (offset & !3), &(if value % 2 == 0 { value % 0x1_0000 } else { value }).to_le_bytes());
            }
            let _ = BootInfo::from_multiboot1(&memory, HostPhys(0x9000));
        }
    }
}
