//! Register access rules against the manual's two address maps.

use arch::apic::Register;
use arch::{Fault, Msr};

use super::Fixture;
use crate::Features;

const READ: u8 = 1;
const WRITE: u8 = 2;
const BOTH: u8 = READ | WRITE;

/// SDM 3A, table "Local APIC Register Address Map", without remote read, which newer processors lack, and with its
/// footnote's arbitration priority, which the comparison machine has.
const XAPIC: &[(u16, u16, u8)] = &[
    (0x020, 0x020, BOTH),
    (0x030, 0x030, READ),
    (0x080, 0x080, BOTH),
    (0x090, 0x090, READ),
    (0x0a0, 0x0a0, READ),
    (0x0b0, 0x0b0, WRITE),
    (0x0d0, 0x0d0, BOTH),
    (0x0e0, 0x0e0, BOTH),
    (0x0f0, 0x0f0, BOTH),
    (0x100, 0x170, READ),
    (0x180, 0x1f0, READ),
    (0x200, 0x270, READ),
    (0x280, 0x280, BOTH),
    (0x2f0, 0x2f0, BOTH),
    (0x300, 0x300, BOTH),
    (0x310, 0x310, BOTH),
    (0x320, 0x370, BOTH),
    (0x380, 0x380, BOTH),
    (0x390, 0x390, READ),
    (0x3e0, 0x3e0, BOTH),
];

/// SDM 3A, table "Local APIC Register Address Map Supported by x2APIC".
const X2APIC: &[(u16, u16, u8)] = &[
    (0x802, 0x802, READ),
    (0x803, 0x803, READ),
    (0x808, 0x808, BOTH),
    (0x80a, 0x80a, READ),
    (0x80b, 0x80b, WRITE),
    (0x80d, 0x80d, READ),
    (0x80f, 0x80f, BOTH),
    (0x810, 0x817, READ),
    (0x818, 0x81f, READ),
    (0x820, 0x827, READ),
    (0x828, 0x828, BOTH),
    (0x82f, 0x82f, BOTH),
    (0x830, 0x830, BOTH),
    (0x832, 0x837, BOTH),
    (0x838, 0x838, BOTH),
    (0x839, 0x839, READ),
    (0x83e, 0x83e, BOTH),
    (0x83f, 0x83f, WRITE),
];

fn rule(map: &[(u16, u16, u8)], number: u16) -> u8 {
    map.iter().find(|(first, last, _)| (*first..=*last).contains(&number)).map_or(0, |(_, _, rule)| *rule)
}

/// A reserved xAPIC register is the illegal-register error for reads and writes; every other access is none.
#[test]
fn xapic_address_map() {
    for offset in (0..0x1000).step_by(16) {
        let illegal = if rule(XAPIC, offset) == 0 { 0x80 } else { 0 };
        let mut fixture = Fixture::xapic(1);
        fixture.read(Register(offset));
        assert_eq!(fixture.errors(), illegal, "read of {offset:#x}");
        // Fixed delivery of vector 0x40 to nobody, where the offset is ICR's.
        fixture.write(Register(offset), 0x40);
        assert_eq!(fixture.errors(), illegal, "write of {offset:#x}");
    }
}

/// A write to a register that software only reads is ignored.
#[test]
fn xapic_read_only_registers_keep_their_value() {
    for offset in (0..0x1000).step_by(16).filter(|offset| rule(XAPIC, *offset) == READ) {
        let mut fixture = Fixture::xapic(1);
        let before = fixture.read(Register(offset));
        fixture.write(Register(offset), !before);
        assert_eq!(fixture.read(Register(offset)), before, "{offset:#x}");
    }
}

/// In x2APIC mode each MSR from 0x800 to 0x8ff is readable and writable as the manual's map says, and #GP otherwise.
#[test]
fn x2apic_address_map() {
    for number in 0x800..=0x8ff {
        let mut fixture = Fixture::x2apic(1);
        let rule = rule(X2APIC, number);
        let msr = Msr(number.into());
        assert_eq!(fixture.rdmsr(msr).is_ok(), rule & READ != 0, "RDMSR of {number:#x}");
        assert_eq!(fixture.wrmsr(msr, 0).is_ok(), rule & WRITE != 0, "WRMSR of {number:#x}");
    }
}

/// Outside x2APIC mode the MSRs are not there, and in it the page is not.
#[test]
fn each_interface_in_its_mode_only() {
    let mut disabled = Fixture::xapic(1);
    disabled.wrmsr(Msr::APIC_BASE, 0xfee0_0100).unwrap();
    for (name, mut fixture) in [("xAPIC", Fixture::xapic(1)), ("disabled", disabled)] {
        for number in 0x800..=0x8ff {
            assert_eq!(fixture.rdmsr(Msr(number)), Err(Fault::Gp(0)), "{name} {number:#x}");
            assert_eq!(fixture.wrmsr(Msr(number), 0), Err(Fault::Gp(0)), "{name} {number:#x}");
        }
    }
    let mut fixture = Fixture::x2apic(1);
    assert_eq!(fixture.read(Register::VERSION), 0xffff_ffff);
    fixture.write(Register::TPR, 0x50);
    assert_eq!(fixture.read_x2(Register::TPR), Ok(0));
}

/// MSRs that are not the APIC's are nobody's here.
#[test]
fn foreign_msrs_fault() {
    for number in [0, 0x1a, 0x7ff, 0x900, 0x6df, u32::MAX] {
        let mut fixture = Fixture::x2apic(1);
        assert_eq!(fixture.rdmsr(Msr(number)), Err(Fault::Gp(0)), "{number:#x}");
        assert_eq!(fixture.wrmsr(Msr(number), 0), Err(Fault::Gp(0)), "{number:#x}");
    }
}

/// Each of the 64 bits of each writable x2APIC MSR: #GP if and only if the manual's figure shows it reserved. Bits
/// that are read-only in the figure are ignored.
#[test]
fn x2apic_reserved_bits() {
    let writable: &[(Register, u64)] = &[
        (Register::TPR, 0xff),
        (Register::EOI, 0),
        (Register::SVR, 0x1ff),
        (Register::ESR, 0),
        (Register::LVT_CMCI, 0x117ff),
        // Destination 63:32, shorthand 19:18, trigger 15, level 14, mode 11:8, vector; bit 12 is ignored.
        (Register::ICR, 0xffff_ffff_000c_dfff),
        (Register::LVT_TIMER, 0x710ff),
        (Register::LVT_THERMAL, 0x117ff),
        (Register::LVT_PERFMON, 0x117ff),
        (Register::LVT_LINT0, 0x1f7ff),
        (Register::LVT_LINT1, 0x1f7ff),
        (Register::LVT_ERROR, 0x110ff),
        (Register::INITIAL_COUNT, 0xffff_ffff),
        (Register::DIVIDE, 0xb),
        (Register::SELF_IPI, 0xff),
    ];
    for &(register, allowed) in writable {
        for bit in 0..64 {
            let outcome = Fixture::x2apic(1).write_x2(register, 1 << bit);
            let expected = if allowed >> bit & 1 != 0 { Ok(()) } else { Err(Fault::Gp(0)) };
            assert_eq!(outcome, expected, "{register:?} bit {bit}");
        }
    }
}

/// A write that faults has changed nothing.
#[test]
fn refused_writes_have_no_effect() {
    let mut fixture = Fixture::x2apic(1);
    for register in [Register::TPR, Register::SVR, Register::LVT_TIMER, Register::INITIAL_COUNT, Register::ICR] {
        let before = fixture.read_x2(register);
        let value = if register == Register::ICR { 0x1_0010_40ff } else { 0x1_0000_0033 };
        assert_eq!(fixture.write_x2(register, value), Err(Fault::Gp(0)));
        assert_eq!(fixture.read_x2(register), before, "{register:?}");
    }
    assert!(fixture.bus.sent.borrow().is_empty());
}

/// What reads back after writing all ones in xAPIC mode: exactly the bits that the manual's figures show as writable.
#[test]
fn xapic_writable_bits() {
    for (register, expected) in [
        (Register::TPR, 0xff),
        (Register::LDR, 0xff00_0000),
        (Register::SVR, 0x3ff),
        (Register::ICR_HIGH, 0xff00_0000),
        (Register::LVT_CMCI, 0x107ff),
        (Register::LVT_TIMER, 0x700ff),
        (Register::LVT_THERMAL, 0x107ff),
        (Register::LVT_PERFMON, 0x107ff),
        (Register::LVT_LINT0, 0x1a7ff),
        (Register::LVT_LINT1, 0x1a7ff),
        (Register::LVT_ERROR, 0x100ff),
        (Register::INITIAL_COUNT, 0xffff_ffff),
        (Register::DIVIDE, 0xb),
        (Register::ICR, 0x000c_cfff),
    ] {
        let mut fixture = Fixture::xapic(1);
        // A one-shot timer, where the initial count can be written.
        fixture.write(register, 0xffff_ffff);
        assert_eq!(fixture.read(register), expected, "{register:?}");
    }
    let mut fixture = Fixture::xapic(1);
    fixture.write(Register::DFR, 0);
    assert_eq!(fixture.read(Register::DFR), 0x0fff_ffff, "only the model bits of DFR are writable");
}

/// Version: an integrated APIC with six LVT entries, and the suppression bit where it is offered.
#[test]
fn version() {
    assert_eq!(Fixture::xapic(1).read(Register::VERSION), 0x0005_0014);
    let features = Features { broadcast_suppression: true, ..Features::DEFAULT };
    assert_eq!(Fixture::xapic(1).with_features(features).read(Register::VERSION), 0x0105_0014);
}

/// The id and logical id as each mode shows them; the x2APIC logical id follows from the id
/// (SDM 3A "Deriving Logical x2APIC ID from the Local x2APIC ID").
#[test]
fn ids() {
    assert_eq!(Fixture::xapic(0x1_23).read(Register::ID), 0x2300_0000);
    for (id, logical) in
        [(0, 1), (1, 2), (15, 0x8000), (16, 0x1_0001), (0x123, 0x12_0008), (0xf_ffff, 0xffff_8000), (0x10_0002, 4)]
    {
        let mut fixture = Fixture::x2apic(id);
        assert_eq!(fixture.read_x2(Register::ID), Ok(id.into()));
        assert_eq!(fixture.read_x2(Register::LDR), Ok(logical), "{id:#x}");
    }
}

/// The xAPIC id is fixed unless the model lets software change it; the change is published.
#[test]
fn xapic_id_is_writable_where_offered() {
    let mut fixture = Fixture::xapic(3);
    fixture.write(Register::ID, 0x0900_0000);
    assert_eq!((fixture.read(Register::ID), fixture.apic.id()), (0x0300_0000, 3));

    let features = Features { writable_xapic_id: true, ..Features::DEFAULT };
    let mut fixture = Fixture::xapic(3).with_features(features);
    fixture.write(Register::ID, 0x0900_0000);
    assert_eq!((fixture.read(Register::ID), fixture.apic.id()), (0x0900_0000, 9));
    assert_eq!(fixture.bus.published.borrow().last().unwrap().id, 9);
    // Entering x2APIC mode brings the processor's own id back.
    fixture.wrmsr(Msr::APIC_BASE, 0xfee0_0d00).unwrap();
    assert_eq!(fixture.read_x2(Register::ID), Ok(3));
}
