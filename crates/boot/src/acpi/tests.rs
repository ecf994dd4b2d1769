//! Machines built from tables at the offsets of the specification.

use arch::HostPhys;
use proptest::prelude::*;

use super::{
    AcpiError, IoApic, PmTimer, PowerManagement, Register, ResetRegister, SleepTypes, SourceOverride, discover,
};
use crate::phys_memory::PhysMemory;
use crate::test_memory::TestMemory;

fn fix_checksum(bytes: &mut [u8], at: usize) {
    bytes[at] = 0;
    bytes[at] = bytes.iter().fold(0, |sum: u8, byte| sum.wrapping_sub(*byte));
}

fn table(signature: &[u8; 4], body: &[u8]) -> Vec<u8> {
    let mut bytes = signature.to_vec();
    bytes.extend(u32::try_from(36 + body.len()).unwrap().to_le_bytes());
    bytes.extend([0; 28]);
    bytes.extend(body);
    fix_checksum(&mut bytes, 9);
    bytes
}

fn rsdp(revision: u8, rsdt: u32, xsdt: u64) -> Vec<u8> {
    let mut bytes = b"RSD PTR \0NSTLNG".to_vec();
    bytes.push(revision);
    bytes.extend(rsdt.to_le_bytes());
    fix_checksum(&mut bytes, 8);
    bytes.extend(36u32.to_le_bytes());
    bytes.extend(xsdt.to_le_bytes());
    bytes.extend([0; 4]);
    fix_checksum(&mut bytes, 32);
    bytes
}

const RSDT: u32 = 0x1_0000;
const XSDT: u64 = 0x1_1000;
const MADT: u64 = 0x1_2000;
const FADT: u64 = 0x1_3000;
const DSDT: u64 = 0x1_4000;
const IN_ROM: u64 = 0xf_0010;

/// AML before the object that is searched, so long that the object crosses the end of the first window.
const AML_BEFORE: usize = 248;

fn madt_body() -> Vec<u8> {
    [
        &0xfee0_0000u32.to_le_bytes()[..],
        &[1, 0, 0, 0],
        &[0, 8, 0, 0, 1, 0, 0, 0],
        &[0, 8, 1, 2, 1, 0, 0, 0],
        &[0, 8, 2, 0xff, 0, 0, 0, 0],
        &[9, 16, 0, 0, 0x2c, 1, 0, 0, 1, 0, 0, 0, 3, 0, 0, 0],
        &[9, 16, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0],
        &[1, 12, 4, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0],
        &[2, 10, 0, 0, 2, 0, 0, 0, 0, 0],
        &[2, 10, 0, 9, 9, 0, 0, 0, 0x0f, 0],
        &[4, 6, 0xff, 0, 0, 1],
    ]
    .concat()
}

fn fadt_body() -> Vec<u8> {
    let mut bytes = vec![0; 244];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(40, &u32::try_from(DSDT).unwrap().to_le_bytes());
    put(48, &0xb2u32.to_le_bytes());
    put(52, &[0xf1]);
    put(64, &0x604u32.to_le_bytes());
    put(76, &0x608u32.to_le_bytes());
    put(91, &[4]);
    put(112, &(1u32 << 8 | 1 << 10).to_le_bytes());
    put(116, &[1, 8, 0, 1, 0xf9, 0x0c, 0, 0, 0, 0, 0, 0]);
    put(128, &[0x0e]);
    // X_PM1a_CNT_BLK at another port than the 32-bit field: the wide one counts.
    put(172, &[1, 16, 0, 2, 0x04, 0xb0, 0, 0, 0, 0, 0, 0]);
    bytes.split_off(36)
}

fn machine(s5: &[u8]) -> TestMemory {
    let mut memory = TestMemory::new(0x10_0000);
    let pointers = |len: usize| [FADT, MADT].map(|at| at.to_le_bytes()[..len].to_vec()).concat();
    memory.put(RSDT.into(), &table(b"RSDT", &pointers(4)));
    memory.put(XSDT, &table(b"XSDT", &pointers(8)));
    memory.put(MADT, &table(b"APIC", &madt_body()));
    memory.put(FADT, &table(b"FACP", &fadt_body()));
    memory.put(DSDT, &table(b"DSDT", &[&[0x5b; AML_BEFORE], s5, &[0; 50]].concat()));
    memory
}

/// What firmware compilers make of `Name (_S5, Package (4) { 5, 5, 0, 0 })`.
const S5: &[u8] = b"\x08_S5_\x12\x08\x04\x0a\x05\x0a\x05\0\0";

/// Everything L0 asks the tables, through both roots and both ways to them.
#[test]
fn a_whole_machine() {
    let memory = machine(S5);
    let v1 = &rsdp(0, RSDT, 0)[..20];
    let v2 = rsdp(2, 0, XSDT);
    let mut with_rom = machine(S5);
    with_rom.put(IN_ROM, v1);
    let mut with_ebda = machine(S5);
    with_ebda.put(0x40e, &0x9fc0u16.to_le_bytes());
    with_ebda.put(0x9_fc40, &v2);
    let found = discover(&memory, Some(v1)).unwrap();
    assert_eq!(discover(&memory, Some(&v2)).as_ref(), Ok(&found));
    assert_eq!(discover(&with_rom, None).as_ref(), Ok(&found));
    assert_eq!(discover(&with_rom, Some(&[0; 36])).as_ref(), Ok(&found), "a bad copy is not the end");
    assert_eq!(discover(&with_ebda, None).as_ref(), Ok(&found));

    let cpus: Vec<_> = found.cpus.iter().map(|cpu| (cpu.acpi_id, cpu.apic_id, cpu.usable)).collect();
    assert_eq!(cpus, [(0, 0, true), (1, 2, true), (2, 255, false), (3, 300, true)], "id 2 is there twice");
    assert_eq!(found.ioapics, [IoApic { id: 4, address: HostPhys(0xfec0_0000), gsi_base: 0 }]);
    let timer = SourceOverride { irq: 0, gsi: 2, active_low: false, level: false };
    let sci = SourceOverride { irq: 9, gsi: 9, active_low: true, level: true };
    assert_eq!(found.overrides, [timer, sci]);
    assert_eq!(found.local_apic_address, HostPhys(0xfee0_0000));
    let expected = PowerManagement {
        pm1a_cnt: Some(0xb004),
        pm1b_cnt: None,
        pm_timer: Some(PmTimer { port: 0x608, width: 32 }),
        reset: Some(ResetRegister { register: Register::Port(0xcf9), value: 0x0e }),
        s5: Some(SleepTypes { a: 5, b: 5 }),
        acpi_enable: Some((0xb2, 0xf1)),
    };
    assert_eq!(found.pm, expected);
}

/// The object in the encodings that compilers use; anything else is unknown, not a guess.
#[test]
fn sleep_types() {
    type Types = Option<(u8, u8)>;
    let cases: [(&[u8], Types); 7] = [
        (b"\x08_S5_\x12\x06\x04\0\0\0\0", Some((0, 0))),
        (b"\x08\\_S5_\x12\x07\x04\x0a\x07\0\0\0", Some((7, 0))),
        (b"\x08_S5_\x12\x40\x00\x02\x0b\x03\0\x01", Some((3, 1))),
        (b"\x08_S5_\x12\x04\x01\x0a\x06", Some((6, 6))),
        (b"\x08_S4_\x12\x06\x04\0\0\0\0", None),
        (b"\x14\x08_S5_\x00\xa4\x00", None),
        (b"\x08_S5_\x12\x06\x04\x60\x60\0\0", None),
    ];
    for (aml, expected) in cases {
        let found = discover(&machine(aml), Some(&rsdp(2, 0, XSDT))).unwrap();
        assert_eq!(found.pm.s5.map(|types| (types.a, types.b)), expected, "{aml:x?}");
    }
}

/// ACPI 1.0's FADT is shorter; what it lacks is absent, not read from behind it.
#[test]
fn a_short_fadt() {
    let mut memory = machine(S5);
    memory.put(FADT, &table(b"FACP", &fadt_body()[..116 - 36]));
    let found = discover(&memory, Some(&rsdp(2, 0, XSDT))).unwrap();
    assert_eq!((found.pm.pm1a_cnt, found.pm.reset), (Some(0x604), None));
}

/// Each broken table is named.
#[test]
fn broken_tables() {
    let discover_with = |at: u64, bytes: &[u8]| {
        let mut memory = machine(S5);
        memory.put(at, bytes);
        discover(&memory, Some(&rsdp(2, 0, XSDT))).unwrap_err()
    };
    assert_eq!(discover(&machine(S5), None), Err(AcpiError::NoRsdp));
    assert_eq!(discover_with(MADT + 50, &[0x55]), AcpiError::Checksum { table: *b"APIC" });
    assert_eq!(discover_with(MADT, b"APIX"), AcpiError::Missing { table: *b"APIC" });
    assert_eq!(discover_with(FADT + 4, &[0xff; 4]), AcpiError::Malformed { table: *b"FACP" });
    assert_eq!(discover_with(XSDT, &table(b"XSDT", &[0xff; 8])), AcpiError::Missing { table: *b"APIC" });
    let mut body = madt_body();
    body[9] = 0;
    assert_eq!(discover_with(MADT, &table(b"APIC", &body)), AcpiError::Malformed { table: *b"APIC" });
    let error = discover(&machine(S5), Some(&rsdp(2, 0, 0xffff_f000))).unwrap_err();
    assert_eq!(error.to_string(), "the firmware's ACPI table XSDT lies outside of memory: update the firmware");
}

proptest! {
    /// Bytes replaced anywhere, checksums made right again: a machine or an error, never a panic.
    #[test]
    fn hostile_tables_do_not_panic(
        changes in prop::collection::vec((0..5usize, 4usize..250, any::<u8>()), 1..8), s5 in prop::collection::vec(any::<u8>(), 0..8),
    ) {
        let mut memory = machine(&[&b"\x08_S5_\x12"[..], &s5].concat());
        for (which, offset, value) in changes {
            let (at, len) = [(u64::from(RSDT), 44), (XSDT, 52), (MADT, 36 + madt_body().len()), (FADT, 244), (DSDT, 300)][which];
            let mut bytes = vec![0; len];
            memory.read(HostPhys(at), &mut bytes).unwrap();
            bytes[offset % len] = value;
            fix_checksum(&mut bytes, 9);
            memory.put(at, &bytes);
        }
        let _ = discover(&memory, Some(&rsdp(0, RSDT, 0)));
        let _ = discover(&memory, Some(&rsdp(2, 0, XSDT)));
    }

    /// Whatever a boot loader gives as RSDP.
    #[test]
    fn hostile_rsdp_does_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
        let _ = discover(&TestMemory::new(0x10_0000), Some(&bytes));
    }
}
