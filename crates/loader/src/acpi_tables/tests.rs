//! The tables as an operating system finds them: from the RSDP on, by checksum and signature.

use crate::acpi_tables::{RSDP_ADDRESS, write};
use crate::e820::{FIRMWARE_START, MIB, MemoryLayout};
use crate::test_memory::TestMemory;

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte))
}

fn tables(cpus: u32) -> TestMemory {
    let memory = TestMemory::new(2 * MIB);
    write(&memory, &MemoryLayout::new(2 * MIB, cpus)).unwrap();
    memory
}

/// The table at `at`, checked: inside the firmware region, and the sum of its bytes zero.
fn table(memory: &TestMemory, at: u64, signature: &[u8]) -> Vec<u8> {
    let len = memory.u32(at + 4) as usize;
    assert!(at >= FIRMWARE_START && at + len as u64 <= MIB, "{at:#x} + {len:#x}");
    let bytes = memory.get(at, len);
    assert_eq!(&bytes[..4], signature);
    assert_eq!(sum(&bytes), 0, "checksum of {}", String::from_utf8_lossy(signature));
    bytes
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(bytes[offset..offset + 4].try_into().unwrap())
}

/// Both roots lead to the same tables; every checksum is right, for one processor and for as many as there can be.
#[test]
fn roots_lead_to_sound_tables() {
    for cpus in [1, 1024] {
        let memory = tables(cpus);
        let rsdp = memory.get(RSDP_ADDRESS, 36);
        assert_eq!(&rsdp[..8], b"RSD PTR ");
        assert_eq!((sum(&rsdp[..20]), sum(&rsdp), rsdp[15]), (0, 0, 2));
        let rsdt = table(&memory, u32_at(&rsdp, 16).into(), b"RSDT");
        let xsdt = table(&memory, u32_at(&rsdp, 24).into(), b"XSDT");
        for (index, signature) in [b"FACP", b"APIC"].into_iter().enumerate() {
            let address = u32_at(&rsdt, 36 + 4 * index);
            assert_eq!(u32_at(&xsdt, 36 + 8 * index), address);
            table(&memory, address.into(), signature);
        }
        let fadt = table(&memory, u32_at(&rsdt, 36).into(), b"FACP");
        table(&memory, u32_at(&fadt, 40).into(), b"DSDT");
        let facs = u32_at(&fadt, 36);
        assert_eq!((facs % 64, &memory.get(facs.into(), 4)[..]), (0, &b"FACS"[..]));
    }
}

/// The FADT at the offsets of its specification names the ports that the device models answer at.
#[test]
fn fadt_describes_power_management() {
    let memory = tables(1);
    let rsdt = table(&memory, memory.u32(RSDP_ADDRESS + 16).into(), b"RSDT");
    let fadt = table(&memory, u32_at(&rsdt, 36).into(), b"FACP");
    assert_eq!(u32_at(&fadt, 46) & 0xffff, 9, "SCI_INT");
    assert_eq!(u32_at(&fadt, 48), 0, "SMI_CMD");
    assert_eq!([56, 64, 76].map(|offset| u32_at(&fadt, offset)), [0xb000, 0xb004, 0xb008]);
    assert_eq!([88, 89, 91].map(|offset| fadt[offset]), [4, 2, 4], "lengths of the blocks");
    assert_eq!(fadt[109], 0b101, "legacy devices, no VGA, no 8042");
    let flags = u32_at(&fadt, 112);
    assert_eq!((flags >> 8 & 1, flags >> 10 & 1, flags >> 20 & 1), (0, 1, 0), "24-bit timer, reset, full hardware");
    assert_eq!((&fadt[116..128], fadt[128]), (&[1, 8, 0, 1, 0xf9, 0x0c, 0, 0, 0, 0, 0, 0][..], 6));
}

/// One entry for each processor, of the kind that its id fits, and the wiring of a PC.
#[test]
fn madt_lists_processors_and_wiring() {
    let memory = tables(300);
    let rsdt = table(&memory, memory.u32(RSDP_ADDRESS + 16).into(), b"RSDT");
    let madt = table(&memory, u32_at(&rsdt, 40).into(), b"APIC");
    let mut rest = &madt[44..];
    let (mut ids, mut others) = (Vec::new(), Vec::new());
    while !rest.is_empty() {
        let (entry, tail) = rest.split_at(usize::from(rest[1]));
        match entry[0] {
            0 => ids.push((0, u32::from(entry[3]))),
            9 => ids.push((9, u32_at(entry, 4))),
            _ => others.push(entry.to_vec()),
        }
        rest = tail;
    }
    let expected: Vec<_> = (0..300).map(|id| (if id < 255 { 0 } else { 9 }, id)).collect();
    assert_eq!(ids, expected);
    let expected: [&[u8]; 5] = [
        // The id that the IOAPIC's register shows: the low byte of 300.
        &[1, 12, 44, 0, 0x00, 0x00, 0xc0, 0xfe, 0, 0, 0, 0],
        &[2, 10, 0, 0, 2, 0, 0, 0, 0, 0],
        &[2, 10, 0, 9, 9, 0, 0, 0, 0x0d, 0],
        &[4, 6, 0xff, 0, 0, 1],
        &[10, 12, 0, 0, 0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0],
    ];
    assert_eq!(others, expected);
}

/// The AML holds together: package lengths add up to the whole, so an interpreter neither stops early nor runs over.
#[test]
fn aml_package_lengths_add_up() {
    let mut rest: &[u8] = &super::dsdt::AML;
    let mut devices = 0;
    // Top level: the name _S5_ with a package behind it, then devices.
    assert_eq!(&rest[..6], b"\x08_S5_\x12");
    rest = &rest[6 + usize::from(rest[6])..];
    while !rest.is_empty() {
        assert_eq!(&rest[..2], [0x5b, 0x82]);
        // PkgLength counts itself: one byte below 0x40, else its low nibble and the next byte.
        let len = match rest[2] {
            short @ 0..0x40 => usize::from(short),
            long => usize::from(long & 0xf) | usize::from(rest[3]) << 4,
        };
        rest = &rest[2 + len..];
        devices += 1;
    }
    assert_eq!(devices, 2);
}
