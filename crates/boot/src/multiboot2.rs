//! The multiboot2 information structure (Multiboot2 Specification 2.0, 3.6 "Boot information").

use arch::HostPhys;
use heapless::Vec;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout};

use crate::info::{BootError, BootInfo, Framebuffer, FramebufferKind, text, until_nul};
use crate::memory::{MemoryKind, MemoryRange};

/// EAX at entry from a multiboot2 loader (3.3 "I386 machine state").
pub const MAGIC: u32 = 0x36d7_6289;

/// Tag types (3.6.3 to 3.6.20).
mod tag {
    pub(super) const END: u32 = 0;
    pub(super) const COMMAND_LINE: u32 = 1;
    pub(super) const BOOT_LOADER_NAME: u32 = 2;
    pub(super) const MODULE: u32 = 3;
    pub(super) const MEMORY_MAP: u32 = 6;
    pub(super) const FRAMEBUFFER: u32 = 8;
    pub(super) const RSDP_V1: u32 = 14;
    pub(super) const RSDP_V2: u32 = 15;
}

/// Start of the structure, and of every tag, with other meanings: type and size, or total size and zero.
#[derive(FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Words {
    first: U32,
    second: U32,
}

/// 3.6.10 "Framebuffer info", the part that all types have.
#[derive(FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct FramebufferTag {
    address: U64,
    pitch: U32,
    width: U32,
    height: U32,
    bits_per_pixel: u8,
    kind: u8,
}

/// 3.6.8 "Memory map", one entry.
#[derive(FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct MapEntry {
    start: U64,
    len: U64,
    kind: U32,
}

/// A value of type `T` at the start of `bytes`, and the rest.
fn take<'a, T: FromBytes>(bytes: &'a [u8], what: &'static str) -> Result<(T, &'a [u8]), BootError> {
    T::read_from_prefix(bytes).map_err(|_| BootError::Truncated { what })
}

/// Reads the structure at the start of `bytes`.
pub(crate) fn parse(bytes: &[u8]) -> Result<BootInfo, BootError> {
    const WHAT: &str = "multiboot2 information";
    let cut = BootError::Truncated { what: WHAT };
    let (start, _) = take::<Words>(bytes, WHAT)?;
    let mut rest = bytes.get(8..start.first.get() as usize).ok_or(cut)?;
    let mut info = BootInfo::default();
    // Loaders end the list with an end tag; a list that ends with the structure is as clear.
    while !rest.is_empty() {
        let (words, _) = take::<Words>(rest, WHAT)?;
        let size = words.second.get() as usize;
        let body = rest.get(8..size).ok_or(cut)?;
        if words.first.get() == tag::END {
            break;
        }
        read_tag(&mut info, words.first.get(), body)?;
        // Tags are padded to 8 bytes; the padding of the last may be missing. `get` bounded the size above.
        rest = rest.get(size.next_multiple_of(8)..).unwrap_or_default();
    }
    info.finish()
}

fn read_tag(info: &mut BootInfo, kind: u32, body: &[u8]) -> Result<(), BootError> {
    match kind {
        tag::COMMAND_LINE => info.command_line = text(body, "command line")?,
        tag::BOOT_LOADER_NAME => info.boot_loader_name = text(body, "boot loader's name")?,
        tag::MODULE => {
            let (range, string) = take::<Words>(body, "module list")?;
            info.add_module(range.first.get().into(), range.second.get().into(), until_nul(string))?;
        }
        tag::MEMORY_MAP => read_memory_map(info, body)?,
        tag::FRAMEBUFFER => {
            let (tag, _) = take::<FramebufferTag>(body, "framebuffer description")?;
            info.framebuffer = Some(Framebuffer {
                address: HostPhys(tag.address.get()),
                pitch: tag.pitch.get(),
                width: tag.width.get(),
                height: tag.height.get(),
                bits_per_pixel: tag.bits_per_pixel,
                kind: FramebufferKind::from_number(tag.kind),
            });
        }
        // The newer RSDP is the better one, in whatever order they come.
        tag::RSDP_V1 if info.rsdp.is_some() => {}
        tag::RSDP_V1 | tag::RSDP_V2 => {
            let len = if kind == tag::RSDP_V1 { 20 } else { 36 };
            let copy = body.get(..len).ok_or(BootError::Truncated { what: "copy of the ACPI RSDP" })?;
            info.rsdp = Vec::from_slice(copy).ok();
        }
        // Everything else is of no use to L0.
        _ => {}
    }
    Ok(())
}

fn read_memory_map(info: &mut BootInfo, body: &[u8]) -> Result<(), BootError> {
    const WHAT: &str = "memory map";
    // "entry_size ... is guaranteed to be a multiple of 8"; newer versions may be longer.
    let (format, entries) = take::<Words>(body, WHAT)?;
    let entry_size = format.first.get() as usize;
    if entry_size < size_of::<MapEntry>() {
        return Err(BootError::Malformed { what: WHAT });
    }
    for entry in entries.chunks_exact(entry_size) {
        let (entry, _) = take::<MapEntry>(entry, WHAT)?;
        info.add_memory(MemoryRange {
            start: HostPhys(entry.start.get()),
            len: entry.len.get(),
            kind: MemoryKind::from_number(entry.kind.get()),
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use multiboot2::{
        BootLoaderNameTag, Builder, CommandLineTag, FramebufferTag, FramebufferType, MemoryArea, MemoryAreaType,
        MemoryMapTag, ModuleTag, RsdpV1Tag, RsdpV2Tag,
    };
    use proptest::prelude::*;

    use super::*;

    /// What GRUB gives for a kernel with two modules, made by the multiboot2 crate.
    fn from_grub() -> Vec<u8, 2048> {
        let areas = [
            MemoryArea::new(0, 0x9_fc00, MemoryAreaType::Available),
            MemoryArea::new(0xf_0000, 0x1_0000, MemoryAreaType::Reserved),
            MemoryArea::new(0x10_0000, 0x7ee0_0000, MemoryAreaType::Available),
            MemoryArea::new(0x7ff0_0000, 0x1_0000, MemoryAreaType::AcpiAvailable),
        ];
        let built = Builder::new()
            .cmdline(CommandLineTag::new("console=com1 pcpus=2"))
            .bootloader(BootLoaderNameTag::new("GRUB 2.06"))
            .add_module(ModuleTag::new(0x20_0000, 0x20_0123, "nestling.toml"))
            .add_module(ModuleTag::new(0x30_0000, 0x40_0000, "/boot/vmlinuz some words"))
            .mmap(MemoryMapTag::new(&areas))
            .framebuffer(FramebufferTag::new(0xb_8000, 160, 80, 25, 16, FramebufferType::Text))
            .rsdpv1(RsdpV1Tag::new(*b"BOCHS ", 0, 0x7ff0_0000))
            .rsdpv2(RsdpV2Tag::new(*b"BOCHS ", 2, 1, 36, 0x7ff0_0100))
            .build();
        let bytes = zerocopy::IntoBytes::as_bytes(built.payload());
        let mut all = Vec::new();
        let total = u32::try_from(bytes.len() + 8).unwrap();
        all.extend_from_slice(&total.to_le_bytes()).unwrap();
        all.extend_from_slice(&[0; 4]).unwrap();
        all.extend_from_slice(bytes).unwrap();
        all
    }

    /// Every field that L0 uses, from a structure that another implementation built.
    #[test]
    fn reads_what_the_multiboot2_crate_builds() {
        let info = BootInfo::from_multiboot2(&from_grub()).unwrap();
        assert_eq!(info.command_line, "console=com1 pcpus=2");
        assert_eq!(info.boot_loader_name, "GRUB 2.06");
        let modules: Vec<_, 4> =
            info.modules.iter().map(|module| (module.start.0, module.len, module.name.as_str())).collect();
        assert_eq!(modules, [(0x20_0000, 0x123, "nestling.toml"), (0x30_0000, 0x10_0000, "vmlinuz")]);
        assert_eq!(info.module("some/folder/vmlinuz").map(|module| module.len), Some(0x10_0000));
        assert_eq!(info.module("initrd"), None);
        let memory: Vec<_, 4> = info.memory.iter().map(|range| (range.start.0, range.len, range.kind)).collect();
        assert_eq!(
            memory,
            [
                (0, 0x9_fc00, MemoryKind::Usable),
                (0xf_0000, 0x1_0000, MemoryKind::Reserved),
                (0x10_0000, 0x7ee0_0000, MemoryKind::Usable),
                (0x7ff0_0000, 0x1_0000, MemoryKind::AcpiReclaimable),
            ]
        );
        let framebuffer = info.framebuffer.unwrap();
        assert_eq!((framebuffer.address.0, framebuffer.pitch, framebuffer.height), (0xb_8000, 160, 25));
        assert_eq!(framebuffer.kind, FramebufferKind::Text);
        let rsdp = info.rsdp.unwrap();
        assert_eq!((&rsdp[..8], rsdp.len(), rsdp[15]), (&b"RSD PTR "[..], 36, 2));
    }

    /// Cut anywhere, the structure is refused: its total size is at its start.
    #[test]
    fn truncated_information_is_refused() {
        let whole = from_grub();
        for len in 0..whole.len() {
            assert!(matches!(BootInfo::from_multiboot2(&whole[..len]), Err(BootError::Truncated { .. })), "{len}");
        }
    }

    /// An empty list has no memory map, and L0 cannot go on without one.
    #[test]
    fn a_memory_map_is_required() {
        assert_eq!(
            BootInfo::from_multiboot2(&[16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0]),
            Err(BootError::NoMemoryMap)
        );
    }

    proptest! {
        /// Words replaced anywhere: a value or an error, never a panic, and never without end.
        #[test]
        fn hostile_information_does_not_panic(changes in prop::collection::vec((0usize..600, any::<u32>()), 1..6)) {
            let mut bytes = from_grub();
            for (offset, value) in changes {
                if let Some(word) = bytes.get_mut(offset & !3..).and_then(|tail| tail.first_chunk_mut()) {
                    *word = if value % 2 == 0 { (value % 64).to_le_bytes() } else { value.to_le_bytes() };
                }
            }
            let _ = BootInfo::from_multiboot2(&bytes);
        }
    }
}
