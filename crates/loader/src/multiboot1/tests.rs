//! Kernels built as bytes, loaded, and read back as a multiboot1 kernel reads.

use proptest::prelude::*;

use super::header::HEADER_MAGIC;
use crate::e820::{MIB, MemoryLayout};
use crate::entry::STACK_BYTES;
use crate::test_memory::TestMemory;
use crate::{EntryState, Images, LoadError, ModuleImage, load};

const MEMORY: u64 = 8 * MIB;

fn put32(file: &mut [u8], offset: usize, words: &[u32]) {
    for (index, word) in words.iter().enumerate() {
        file[offset + 4 * index..][..4].copy_from_slice(&word.to_le_bytes());
    }
}

/// A flat kernel: header with address fields at file offset 0x40, loaded to `load`, 0x1000 bytes, `bss` zeros.
fn flat_kernel(load: u32, bss: u32) -> Vec<u8> {
    let mut file: Vec<u8> = (0..=255).cycle().take(0x1000).collect();
    let flags = 0x1_0003;
    let checksum = 0u32.wrapping_sub(HEADER_MAGIC + flags);
    let end = load + 0x1000;
    put32(&mut file, 0x40, &[HEADER_MAGIC, flags, checksum, load + 0x40, load, end, end + bss, load + 0x80]);
    file
}

/// An ELF32 kernel as kvm-unit-tests' are: no address fields, one segment at `paddr`, header in it.
fn elf32_kernel(paddr: u32, vaddr: u32) -> Vec<u8> {
    let mut file = vec![0x90; 0x1100];
    file[..16].copy_from_slice(b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0");
    // e_type EXEC, e_machine 386, version 1, entry, phoff 52, shoff 0, flags 0, ehsize 52, phentsize 32, phnum 1.
    put32(&mut file, 16, &[0x0003_0002, 1, vaddr + 0x10, 52, 0, 0, 0x0020_0034, 1, 0]);
    put32(&mut file, 52, &[1, 0x100, vaddr, paddr, 0x1000, 0x3000, 7, 0x1000]);
    put32(&mut file, 0x100, &[HEADER_MAGIC, 0, 0u32.wrapping_sub(HEADER_MAGIC)]);
    file
}

/// An ELF64 kernel without address fields: QEMU refuses such, GRUB takes them.
fn elf64_kernel(paddr: u64, vaddr: u64) -> Vec<u8> {
    let mut file = vec![0x90; 0x1100];
    file[..16].copy_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    put32(&mut file, 16, &[0x003e_0002, 1]);
    file[24..32].copy_from_slice(&(vaddr + 0x10).to_le_bytes());
    file[32..40].copy_from_slice(&64u64.to_le_bytes());
    put32(&mut file, 48, &[0, 0x0038_0040, 1, 0]);
    put32(&mut file, 64, &[1, 7]);
    for (index, value) in [0x100, vaddr, paddr, 0x1000, 0x3000, 0x1000u64].into_iter().enumerate() {
        file[72 + 8 * index..][..8].copy_from_slice(&value.to_le_bytes());
    }
    put32(&mut file, 0x100, &[HEADER_MAGIC, 0, 0u32.wrapping_sub(HEADER_MAGIC)]);
    file
}

fn load_one(kernel: &[u8]) -> (TestMemory, Result<EntryState, LoadError>) {
    let memory = TestMemory::new(MEMORY);
    let images = Images { kernel, kernel_name: "k", ..Images::default() };
    let result = load(&images, &memory, &MemoryLayout::new(MEMORY, 1));
    (memory, result)
}

/// The whole contract with a kernel: registers, text, zeros, strings, modules and memory map, at the offsets of
/// "Boot information format".
#[test]
fn a_flat_kernel_with_modules() {
    let kernel = flat_kernel(0x20_0000, 0x800);
    let modules = [
        ModuleImage { bytes: &[1; 5000], command_line: "disk.img root ro" },
        ModuleImage { bytes: b"", command_line: "empty" },
        ModuleImage { bytes: &[3; 10], command_line: "third" },
    ];
    let images = Images {
        kernel: &kernel,
        kernel_name: "dir/kernel.elf",
        modules: &modules,
        command_line: "one two",
        initrd: None,
    };
    let memory = TestMemory::new(MEMORY);
    let entry = load(&images, &memory, &MemoryLayout::new(MEMORY, 1)).unwrap();

    assert_eq!((entry.rip, entry.eax, entry.esi), (0x20_0080, 0x2bad_b002, 0));
    assert_eq!(memory.get(0x20_0000, 0x1000), kernel);
    assert_eq!(memory.get(0x20_1000, 0x800), [0; 0x800], "bss is cleared");
    let info = u64::from(entry.ebx);
    let field = |offset: u64| memory.u32(info + offset);
    assert_eq!(field(0), 0x24f, "memory, boot device, cmdline, modules, mmap, loader name");
    assert_eq!((field(4), field(8)), (639, 7 * 1024), "KiB of low and extended memory");
    assert_eq!(memory.text(field(16)), "dir/kernel.elf one two");
    assert_eq!(memory.text(field(64)), "nestling");
    assert_eq!(field(20), 3);
    let mut end_before = 0x20_1800;
    for (index, module) in (0..).zip(&modules) {
        let entry = u64::from(field(24)) + 16 * index;
        let (start, end) = (memory.u32(entry), memory.u32(entry + 4));
        assert!(start % 4096 == 0 && start >= end_before, "module {index} at {start:#x}");
        assert_eq!(memory.get(start.into(), (end - start) as usize), module.bytes);
        assert_eq!(memory.text(memory.u32(entry + 8)), module.command_line);
        end_before = end;
    }
    // mmap: walk by size, as kernels do.
    let (mut at, end) = (u64::from(field(48)), u64::from(field(48) + field(44)));
    let mut usable = 0;
    while at < end {
        if memory.u32(at + 20) == 1 {
            usable += u64::from(memory.u32(at + 12));
        }
        at += u64::from(memory.u32(at)) + 4;
    }
    assert_eq!((at, usable), (end, MEMORY - (MIB - 0x9_fc00)));
}

/// The segments that the entry state names are those that the GDT in memory has.
#[test]
fn the_gdt_has_the_segments_of_the_entry_state() {
    let (memory, entry) = load_one(&flat_kernel(0x10_0000, 0));
    let entry = entry.unwrap();
    for segment in [entry.code, entry.data] {
        let descriptor = memory.get(entry.gdt_base.0 + u64::from(segment.selector), 8);
        assert!(usize::from(segment.selector) + 7 <= usize::from(entry.gdt_limit));
        // Access rights: bytes 5 and 6 of the descriptor less the limit's top bits (SDM 3A, 3.4.5).
        let rights = u32::from(descriptor[5]) | u32::from(descriptor[6] & 0xf0) << 8;
        assert_eq!(rights, segment.rights.0);
        assert_eq!((segment.base, segment.limit), (0, u32::MAX));
    }
}

/// Without address fields the program headers count; a kernel linked high is entered at its physical address.
#[test]
fn elf_kernels_of_both_classes() {
    let cases = [
        elf32_kernel(0x40_0000, 0x40_0000),
        elf32_kernel(0x40_0000, 0xc040_0000),
        elf64_kernel(0x40_0000, 0x40_0000),
        elf64_kernel(0x40_0000, 0xffff_ffff_8040_0000),
    ];
    for kernel in cases {
        let (memory, entry) = load_one(&kernel);
        assert_eq!(entry.unwrap().rip, 0x40_0010);
        assert_eq!(memory.get(0x40_0000, 0x1000), &kernel[0x100..0x1100]);
        assert_eq!(memory.get(0x40_1000, 0x2000), [0; 0x2000]);
    }
}

/// A small guest linked into low memory, where boot information would go, keeps its bytes.
#[test]
fn information_makes_room_for_a_kernel_in_low_memory() {
    let kernel = flat_kernel(0x8800, 0x1000);
    let (memory, entry) = load_one(&kernel);
    let entry = entry.unwrap();
    assert_eq!(memory.get(0x8800, 0x1000), kernel);
    assert!(entry.ebx >= 0xa800 && entry.gdt_base.0 >= 0xa800);
    assert!(u64::from(entry.esp) - STACK_BYTES >= 0xa800, "a push must not change the kernel");
}

/// What a user can do wrong, and the sentence's kind.
#[test]
fn refused_kernels() {
    type Expected = fn(&LoadError) -> bool;
    let truncated = flat_kernel(0x10_0000, 0)[..0x800].to_vec();
    let mut flags = flat_kernel(0x10_0000, 0);
    put32(&mut flags, 0x44, &[0x1_0103, 0u32.wrapping_sub(HEADER_MAGIC + 0x1_0103)]);
    let mut entry = flat_kernel(0x10_0000, 0);
    put32(&mut entry, 0x40 + 28, &[0x50_0000]);
    let mut load_above_header = flat_kernel(0x10_0000, 0);
    put32(&mut load_above_header, 0x40 + 12, &[0x0f_0000]);
    let mut no_segments = elf32_kernel(0x10_0000, 0x10_0000);
    put32(&mut no_segments, 52, &[4]);
    let cases: [(&str, Vec<u8>, Expected); 9] = [
        ("truncated", truncated, |error| {
            matches!(error, LoadError::KernelTruncated { announced: 0x1000, found: 0x800 })
        }),
        ("ELF truncated", elf32_kernel(0x10_0000, 0x10_0000)[..0x900].to_vec(), |error| {
            matches!(error, LoadError::KernelTruncated { announced: 0x1100, found: 0x900 })
        }),
        ("unknown requirement", flags, |error| matches!(error, LoadError::MultibootFlags { unknown: 0x100 })),
        ("entry outside", entry, |error| matches!(error, LoadError::KernelHeader { .. })),
        ("header below load address", load_above_header, |error| matches!(error, LoadError::KernelHeader { .. })),
        ("no segments", no_segments, |error| matches!(error, LoadError::KernelHeader { .. })),
        ("over firmware", flat_kernel(0xf_f000, 0x1000), |error| matches!(error, LoadError::KernelOutsideRam { .. })),
        ("above memory", flat_kernel(0x7f_f800, 0), |error| matches!(error, LoadError::TooLittleMemory { .. })),
        ("in the PCI hole", flat_kernel(0xd000_0000, 0), |error| matches!(error, LoadError::KernelOutsideRam { .. })),
    ];
    for (name, kernel, expected) in cases {
        let error = load_one(&kernel).1.unwrap_err();
        assert!(expected(&error), "{name}: {error:?}");
    }
}

/// Modules that do not fit, an initrd for the wrong kind, too long or cut command lines.
#[test]
fn refused_companions() {
    let kernel = flat_kernel(0x10_0000, 0);
    let memory = TestMemory::new(MEMORY);
    let big = vec![0; 7 << 20];
    let long = "x".repeat(0xa_0000);
    let plain = Images { kernel: &kernel, ..Images::default() };
    let try_load = |images: &Images<'_>| load(images, &memory, &MemoryLayout::new(MEMORY, 1)).unwrap_err();
    let modules = [ModuleImage { bytes: &[1], command_line: "a" }, ModuleImage { bytes: &big, command_line: "b" }];
    assert!(matches!(
        try_load(&Images { modules: &modules, ..plain }),
        LoadError::ModuleDoesNotFit { index: 1, len: 0x70_0000, .. }
    ));
    assert_eq!(try_load(&Images { initrd: Some(&[]), ..plain }), LoadError::InitrdForMultiboot);
    assert!(matches!(try_load(&Images { command_line: &long, ..plain }), LoadError::CommandLineTooLong { .. }));
    assert_eq!(try_load(&Images { command_line: "a\0b", ..plain }), LoadError::NulInCommandLine);
}

proptest! {
    /// Any word of a kernel's headers may be anything: an error or a loaded kernel, never a panic.
    #[test]
    fn hostile_headers_do_not_panic(
        kind in 0..3usize, changes in prop::collection::vec((0usize..0x120, any::<u32>()), 1..6), cut in 0usize..0x1100,
    ) {
        let mut file =
            [flat_kernel(0x10_0000, 0x100), elf32_kernel(0x10_0000, 0x10_0000), elf64_kernel(0x10_0000, 0x10_0000)][kind].clone();
        for (offset, value) in changes {
            put32(&mut file, offset & !3, &[value]);
        }
        file.truncate(0x1100 - cut.min(file.len()));
        let _ = load_one(&file);
    }
}
