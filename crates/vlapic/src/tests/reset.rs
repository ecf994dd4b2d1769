//! RESET, INIT and software-disabling, register by register.

use arch::Msr;
use arch::apic::Register;

use super::Fixture;
use crate::{Features, Mode};

/// SDM 3A "Local APIC State After Power-Up or Reset": everything 0 but these.
const AFTER_RESET: &[(Register, u32)] = &[
    (Register::TPR, 0),
    (Register::PPR, 0),
    (Register::LDR, 0),
    (Register::DFR, 0xffff_ffff),
    (Register::SVR, 0xff),
    (Register::ESR, 0),
    (Register::ICR, 0),
    (Register::ICR_HIGH, 0),
    (Register::LVT_CMCI, 0x10000),
    (Register::LVT_TIMER, 0x10000),
    (Register::LVT_THERMAL, 0x10000),
    (Register::LVT_PERFMON, 0x10000),
    (Register::LVT_LINT0, 0x10000),
    (Register::LVT_LINT1, 0x10000),
    (Register::LVT_ERROR, 0x10000),
    (Register::INITIAL_COUNT, 0),
    (Register::CURRENT_COUNT, 0),
    (Register::DIVIDE, 0),
];

/// Gives every register a value of its own, with an interrupt in IRR, one in ISR, and the timer running.
fn dirty(fixture: &mut Fixture) {
    let x2apic = fixture.apic.mode() == Mode::X2apic;
    let mut write = |register, value| match x2apic {
        true => drop(fixture.write_x2(register, u64::from(value))),
        false => fixture.write(register, value),
    };
    for (register, value) in [
        (Register::LDR, 0x0400_0000),
        (Register::DFR, 0),
        (Register::SVR, 0x1ee),
        (Register::LVT_CMCI, 0x31),
        (Register::LVT_TIMER, 0x2_0032),
        (Register::LVT_THERMAL, 0x33),
        (Register::LVT_PERFMON, 0x34),
        (Register::LVT_LINT0, 0x700),
        (Register::LVT_LINT1, 0x400),
        (Register::LVT_ERROR, 0x35),
        (Register::DIVIDE, 0xb),
        (Register::INITIAL_COUNT, 1000),
        (Register::ICR_HIGH, 0x0700_0000),
        (Register::ICR, 0x0004_4041),
    ] {
        write(register, value);
    }
    fixture.apic.accept(0x91, true);
    fixture.apic.acknowledge().unwrap();
    fixture.apic.accept(0xa2, true);
    // An illegal vector: the error interrupt waits too, and ESR shows something.
    fixture.apic.accept(3, false);
    match x2apic {
        true => fixture.write_x2(Register::ESR, 0).unwrap(),
        false => fixture.write(Register::ESR, 0),
    }
    fixture.apic.set_cr8(2, &fixture.bus).unwrap();
}

fn check_registers(fixture: &mut Fixture, story: &str) {
    for &(register, expected) in AFTER_RESET {
        assert_eq!(fixture.read(register), expected, "{story}: {register:?}");
    }
    for offset in (0x100..0x280).step_by(16) {
        assert_eq!(fixture.read(Register(offset)), 0, "{story}: {offset:#x}");
    }
    assert_eq!(fixture.apic.pending(), None);
    assert_eq!(fixture.apic.deadline(), u64::MAX);
}

/// RESET from any mode leads to xAPIC mode at the default base, with the processor's own id.
#[test]
fn reset_values() {
    check_registers(&mut Fixture::reset(5), "new");
    let features = Features { writable_xapic_id: true, ..Features::DEFAULT };
    for mode in [0x800, 0xc00, 0] {
        let mut fixture = Fixture::xapic(5).with_features(features);
        fixture.write(Register::ID, 0x0900_0000);
        fixture.wrmsr(Msr::APIC_BASE, 0x1234_5000 | mode).unwrap();
        if mode != 0 {
            dirty(&mut fixture);
        }
        fixture.apic.reset();
        assert_eq!(fixture.rdmsr(Msr::APIC_BASE), Ok(0xfee0_0900));
        assert_eq!(fixture.read(Register::ID), 0x0500_0000);
        check_registers(&mut fixture, "RESET");
    }
}

/// Only the bootstrap processor has the flag in IA32_APIC_BASE.
#[test]
fn bootstrap_flag() {
    let mut other = crate::LocalApic::new(1, false, super::FREQUENCIES);
    assert_eq!(other.read_msr(Msr::APIC_BASE, 0), Ok(0xfee0_0800));
    other.reset();
    assert_eq!(other.read_msr(Msr::APIC_BASE, 0), Ok(0xfee0_0800));
}

/// INIT resets the registers but keeps IA32_APIC_BASE and the id
/// (SDM 3A "Local APIC State After an INIT Reset ("Wait-for-SIPI" State)").
#[test]
fn init_keeps_base_and_id() {
    let features = Features { writable_xapic_id: true, ..Features::DEFAULT };
    let mut fixture = Fixture::xapic(5).with_features(features);
    fixture.write(Register::ID, 0x0900_0000);
    fixture.wrmsr(Msr::APIC_BASE, 0x1234_5900).unwrap();
    dirty(&mut fixture);
    fixture.apic.init();
    assert_eq!(fixture.rdmsr(Msr::APIC_BASE), Ok(0x1234_5900));
    assert_eq!(fixture.read(Register::ID), 0x0900_0000);
    check_registers(&mut fixture, "INIT");
}

/// INIT in x2APIC mode stays in x2APIC mode, with id and logical id; a disabled APIC stays disabled.
#[test]
fn init_keeps_the_mode() {
    let mut fixture = Fixture::x2apic(0x123);
    dirty(&mut fixture);
    fixture.apic.init();
    assert_eq!(fixture.apic.mode(), Mode::X2apic);
    assert_eq!(fixture.read_x2(Register::ID), Ok(0x123));
    assert_eq!(fixture.read_x2(Register::LDR), Ok(0x12_0008));
    for &(register, expected) in AFTER_RESET {
        if !matches!(register, Register::LDR | Register::DFR | Register::ICR_HIGH) {
            assert_eq!(fixture.read_x2(register), Ok(expected.into()), "{register:?}");
        }
    }
    fixture.wrmsr(Msr::APIC_BASE, 0xfee0_0100).unwrap();
    fixture.apic.init();
    assert_eq!(fixture.apic.mode(), Mode::Disabled);
}

/// SDM 3A "Local APIC State After It Has Been Software Disabled": entries are masked and stay so, what IRR and ISR
/// have stays, new interrupts are not taken, IPIs can still be sent.
#[test]
fn software_disabled() {
    let mut fixture = Fixture::xapic(0);
    fixture.write(Register::LVT_LINT0, 0x700);
    fixture.apic.accept(0x61, false);
    fixture.write(Register::SVR, 0xff);
    assert_eq!(fixture.read(Register::LVT_LINT0), 0x1_0700);
    fixture.write(Register::LVT_LINT0, 0x700);
    fixture.write(Register::LVT_CMCI, 0x31);
    assert_eq!((fixture.read(Register::LVT_LINT0), fixture.read(Register::LVT_CMCI)), (0x1_0700, 0x1_0031));
    fixture.apic.accept(0x71, false);
    assert_eq!(fixture.apic.highest_requested().unwrap().0, 0x61);
    assert_eq!(fixture.apic.pending().unwrap().0, 0x61);
    fixture.write(Register::ICR, 0x000c_4041);
    assert_eq!(fixture.bus.sent.borrow().len(), 1);
    // Enabling again does not unmask by itself.
    fixture.write(Register::SVR, 0x1ff);
    assert_eq!(fixture.read(Register::LVT_LINT0), 0x1_0700);
}

/// What firmware hands over: the APIC on, the PIC at LINT0, the board's NMI at LINT1, all else as after RESET; and an
/// INIT takes it back.
#[test]
fn virtual_wire() {
    let mut fixture = Fixture::reset(0);
    fixture.apic.set_virtual_wire();
    for &(register, reset) in AFTER_RESET {
        let expected = match register {
            Register::SVR => 0x1ff,
            Register::LVT_LINT0 => 0x700,
            Register::LVT_LINT1 => 0x400,
            _ => reset,
        };
        assert_eq!(fixture.read(register), expected, "{register:?}");
    }
    assert!(fixture.apic.identity().software_enabled);
    fixture.apic.init();
    assert_eq!((fixture.read(Register::SVR), fixture.read(Register::LVT_LINT0)), (0xff, 0x10000));
}
