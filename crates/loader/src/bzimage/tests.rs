//! bzImages built as bytes; what the kernel then reads, at the offsets of the kernel's boot.rst and zero-page.rst.

use proptest::prelude::*;

use crate::e820::{MIB, MemoryLayout};
use crate::test_memory::TestMemory;
use crate::{EntryState, Images, LoadError, ModuleImage, load};

const CODE_PARAGRAPHS: u8 = 0x80;
const CODE_LEN: usize = CODE_PARAGRAPHS as usize * 16;

fn put(file: &mut [u8], offset: usize, bytes: &[u8]) {
    file[offset..offset + bytes.len()].copy_from_slice(bytes);
}

/// A bzImage with one setup sector and 2 KiB of code, protocol 2.15, relocatable, at 2 MiB with 1 MiB to run in.
fn bzimage() -> Vec<u8> {
    let mut file = vec![0; 1024 + CODE_LEN];
    file[1024..].fill(0xc0);
    put(&mut file, 0x1f1, &[1]);
    put(&mut file, 0x1f4, &[CODE_PARAGRAPHS]);
    put(&mut file, 0x1fe, &[0x55, 0xaa, 0xeb, 0x6a]);
    put(&mut file, 0x202, b"HdrS\x0f\x02");
    put(&mut file, 0x211, &[1]);
    put(&mut file, 0x214, &0x10_0000u32.to_le_bytes());
    put(&mut file, 0x22c, &0x7fff_ffffu32.to_le_bytes());
    put(&mut file, 0x234, &[1]);
    put(&mut file, 0x238, &2047u32.to_le_bytes());
    put(&mut file, 0x258, &0x20_0000u64.to_le_bytes());
    put(&mut file, 0x260, &0x10_0000u32.to_le_bytes());
    file
}

fn load_into(images: &Images<'_>, bytes: u64) -> (TestMemory, Result<EntryState, LoadError>) {
    let memory = TestMemory::new(bytes);
    let result = load(images, &memory, &MemoryLayout::new(bytes, 1));
    (memory, result)
}

/// Everything "32-bit Boot Protocol" asks of the loader.
#[test]
fn zero_page_and_entry() {
    let kernel = bzimage();
    let initrd = vec![7; 5000];
    let images = Images {
        kernel: &kernel,
        initrd: Some(&initrd),
        command_line: "console=ttyS0 quiet",
        kernel_name: "vmlinuz",
        modules: &[],
    };
    let (memory, entry) = load_into(&images, 16 * MIB);
    let entry = entry.unwrap();
    assert_eq!((entry.rip, entry.eax, entry.ebx), (0x20_0000, 0, 0));
    assert_eq!((entry.code.selector, entry.data.selector), (0x10, 0x18), "__BOOT_CS and __BOOT_DS");
    assert_eq!(memory.get(0x20_0000, CODE_LEN), &kernel[1024..]);

    let page = u64::from(entry.esi);
    let field = |offset: u64| memory.u32(page + offset);
    assert_eq!(memory.get(page + 0x202, 6), b"HdrS\x0f\x02", "the setup header is copied");
    assert_eq!(memory.get(page + 0x210, 1), [0xff], "type_of_loader");
    assert_eq!(field(0x214), 0x20_0000, "code32_start");
    assert_eq!(memory.text(field(0x228)), "console=ttyS0 quiet");
    let (start, len) = (u64::from(field(0x218)), field(0x21c) as usize);
    assert_eq!(start % 4096, 0);
    assert!(start + 8192 >= 16 * MIB, "at the top");
    assert_eq!(memory.get(start, len), initrd);
    assert_eq!((field(0xc0), field(0xc4), field(0xc8)), (0, 0, 0), "ext_ fields");
    assert_eq!(memory.get(page + 0x1ef, 1), [0], "sentinel: the zero page was cleared");
    let rsdp = u64::from(field(0x70));
    assert_eq!(memory.get(rsdp, 8), b"RSD PTR ");
    assert_eq!(memory.get(page + 0x1e8, 1), [4], "e820 entries");
    let extended = page + 0x2d0 + 3 * 20;
    assert_eq!([0, 8, 16].map(|offset| memory.u32(extended + offset)), [0x10_0000, 15 << 20, 1]);
}

/// The initrd must end at or below initrd_addr_max, however much memory there is.
#[test]
fn initrd_addr_max_is_honoured() {
    let mut kernel = bzimage();
    put(&mut kernel, 0x22c, &0x7f_ffffu32.to_le_bytes());
    let initrd = vec![7; 5000];
    let (memory, entry) = load_into(&Images { kernel: &kernel, initrd: Some(&initrd), ..Images::default() }, 16 * MIB);
    let page = u64::from(entry.unwrap().esi);
    assert_eq!(memory.u32(page + 0x218), 0x7f_e000);
}

/// A kernel that cannot move is loaded at 1 MiB, and a protocol before 2.14 gets no RSDP address.
#[test]
fn old_and_fixed_kernels() {
    let mut kernel = bzimage();
    put(&mut kernel, 0x206, &[0x06, 0x02]);
    put(&mut kernel, 0x234, &[0]);
    let (memory, entry) = load_into(&Images { kernel: &kernel, ..Images::default() }, 4 * MIB);
    let entry = entry.unwrap();
    assert_eq!(entry.rip, 0x10_0000);
    assert_eq!(memory.u32(u64::from(entry.esi) + 0x70), 0);
}

/// The size in the header counts whole paragraphs; memtest86+ and iPXE end within their last. Such were once refused.
#[test]
fn the_last_paragraph_may_be_short() {
    let kernel = bzimage();
    let cut = &kernel[..kernel.len() - 15];
    let (memory, entry) = load_into(&Images { kernel: cut, ..Images::default() }, 4 * MIB);
    assert_eq!(memory.get(entry.unwrap().rip.into(), CODE_LEN - 15), &cut[1024..]);
}

/// What a user can do wrong, and what the sentence says.
#[test]
fn refused() {
    let kernel = bzimage();
    let plain = Images { kernel: &kernel, ..Images::default() };
    let mut zimage = kernel.clone();
    zimage[0x211] = 0;
    let mut old = kernel.clone();
    old[0x206] = 5;
    let long = "x".repeat(2048);
    let big = vec![0; 14 << 20];
    let module = [ModuleImage { bytes: b"", command_line: "m" }];
    let cases = [
        (Images { kernel: &kernel[..kernel.len() - 16], ..plain }, 16, "truncated"),
        (Images { kernel: &kernel[..0x280], ..plain }, 16, "truncated"),
        (Images { kernel: &zimage, ..plain }, 16, "boot protocol 2.15"),
        (Images { kernel: &old, ..plain }, 16, "boot protocol 2.05"),
        (Images { command_line: &long, ..plain }, 16, "2048 bytes is longer than the 2047"),
        (Images { initrd: Some(&big), ..plain }, 16, "initrd of 14680064 bytes does not fit into the 13631488 bytes"),
        (Images { modules: &module, ..plain }, 16, "takes no modules"),
        (plain, 2, "needs 3 MiB and the guest has 2 MiB"),
    ];
    for (images, mib, expected) in cases {
        let error = load_into(&images, mib * MIB).1.unwrap_err().to_string();
        assert!(error.contains(expected), "{error:?} should say {expected:?}");
    }
}

proptest! {
    /// Any header bytes: an error or a loaded kernel, never a panic.
    #[test]
    fn hostile_headers_do_not_panic(
        changes in prop::collection::vec((0x1f1usize..0x270, any::<u8>()), 1..8), cut in 0usize..0xc00,
    ) {
        let mut kernel = bzimage();
        for (offset, value) in changes {
            kernel[offset] = value;
        }
        kernel.truncate(kernel.len() - cut);
        let initrd = [1; 100];
        let _ = load_into(&Images { kernel: &kernel, initrd: Some(&initrd), ..Images::default() }, 4 * MIB);
    }
}
