//! IA32_APIC_BASE and the state transitions of SDM 3A "x2APIC State Transitions".

use arch::apic::Register;
use arch::{Fault, GuestPhys, Msr};

use super::Fixture;
use crate::{Features, Mode};

const DISABLED: u64 = 0;
const XAPIC: u64 = 0x800;
const INVALID: u64 = 0x400;
const X2APIC: u64 = 0xc00;

/// Reaches a valid state from RESET.
fn in_state(state: u64) -> Fixture {
    let mut fixture = Fixture::xapic(2);
    if state != XAPIC {
        fixture.wrmsr(Msr::APIC_BASE, 0xfee0_0100 | state).unwrap();
    }
    fixture
}

/// All pairs: the manual's figure "Local x2APIC State Transitions with IA32_APIC_BASE, INIT, and Reset".
#[test]
fn transitions() {
    for (from, to, legal) in [
        (DISABLED, DISABLED, true),
        (DISABLED, XAPIC, true),
        (DISABLED, X2APIC, false),
        (DISABLED, INVALID, false),
        (XAPIC, DISABLED, true),
        (XAPIC, XAPIC, true),
        (XAPIC, X2APIC, true),
        (XAPIC, INVALID, false),
        (X2APIC, DISABLED, true),
        (X2APIC, XAPIC, false),
        (X2APIC, X2APIC, true),
        (X2APIC, INVALID, false),
    ] {
        let mut fixture = in_state(from);
        let (before, mode) = (fixture.rdmsr(Msr::APIC_BASE), fixture.apic.mode());
        let outcome = fixture.wrmsr(Msr::APIC_BASE, 0xfee0_0100 | to);
        if legal {
            assert_eq!(outcome, Ok(()), "{from:#x} to {to:#x}");
            assert_eq!(fixture.rdmsr(Msr::APIC_BASE), Ok(0xfee0_0100 | to));
            let expected =
                if to == X2APIC { Mode::X2apic } else { [Mode::Disabled, Mode::Xapic][usize::from(to != 0)] };
            assert_eq!(fixture.apic.mode(), expected);
        } else {
            assert_eq!(outcome, Err(Fault::Gp(0)), "{from:#x} to {to:#x}");
            assert_eq!((fixture.rdmsr(Msr::APIC_BASE), fixture.apic.mode()), (before, mode));
        }
    }
}

/// Bits 7:0 and 9 and those above the physical-address width are reserved; the bootstrap flag and the base are not.
#[test]
fn reserved_bits() {
    for width in [36, 40, 46, 52] {
        let features = Features { physical_address_bits: width, ..Features::DEFAULT };
        for bit in (0..64).filter(|bit| !matches!(bit, 10 | 11)) {
            let mut fixture = Fixture::xapic(0).with_features(features);
            let reserved = matches!(bit, 0..=7 | 9) || bit >= u32::from(width);
            let expected = if reserved { Err(Fault::Gp(0)) } else { Ok(()) };
            assert_eq!(fixture.wrmsr(Msr::APIC_BASE, 0x800 | 1 << bit), expected, "bit {bit} at width {width}");
        }
    }
}

#[test]
fn base_moves() {
    let mut fixture = Fixture::xapic(0);
    assert_eq!(fixture.apic.base(), GuestPhys(0xfee0_0000));
    fixture.wrmsr(Msr::APIC_BASE, 0x12_3456_7900).unwrap();
    assert_eq!(fixture.apic.base(), GuestPhys(0x12_3456_7000));
}

/// The contents survive the way from xAPIC to x2APIC mode: interrupts in IRR and ISR, priorities, entries, the timer.
#[test]
fn entering_x2apic_keeps_the_contents() {
    let mut fixture = Fixture::xapic(2);
    fixture.write(Register::LVT_LINT0, 0x700);
    fixture.write(Register::TPR, 0x21);
    fixture.write(Register::INITIAL_COUNT, 500);
    fixture.apic.accept(0xe0, true);
    fixture.apic.acknowledge().unwrap();
    fixture.apic.accept(0x41, false);
    fixture.wrmsr(Msr::APIC_BASE, 0xfee0_0d00).unwrap();
    for (register, expected) in [
        (Register::SVR, 0x1ff),
        (Register::TPR, 0x21),
        (Register::PPR, 0xe0),
        (Register(0x170), 1),
        (Register(0x1f0), 1),
        (Register(0x220), 2),
        (Register::LVT_LINT0, 0x700),
        (Register::INITIAL_COUNT, 500),
        (Register::CURRENT_COUNT, 500),
    ] {
        assert_eq!(fixture.read_x2(register), Ok(expected), "{register:?}");
    }
    fixture.write_x2(Register::EOI, 0).unwrap();
    assert_eq!(*fixture.bus.ended.borrow(), [0xe0]);
}

/// The way out of x2APIC mode is through the disabled state, which loses everything but the base.
#[test]
fn disabling_loses_the_contents() {
    let mut fixture = Fixture::x2apic(0x102);
    fixture.write_x2(Register::LVT_ERROR, 0x33).unwrap();
    fixture.apic.accept(0x41, false);
    fixture.wrmsr(Msr::APIC_BASE, 0xfee0_0100).unwrap();
    assert_eq!(fixture.apic.pending(), None);
    fixture.apic.accept(0x41, false);
    assert_eq!(fixture.apic.highest_requested(), None, "a disabled APIC takes nothing");
    fixture.wrmsr(Msr::APIC_BASE, 0xfee0_0900).unwrap();
    assert_eq!(fixture.read(Register::ID), 0x0200_0000);
    assert_eq!(fixture.read(Register::SVR), 0xff);
    assert_eq!(fixture.read(Register::LVT_ERROR), 0x10000);
}

/// Others learn each change of mode, and nothing is published when nothing changed.
#[test]
fn changes_are_published() {
    let mut fixture = Fixture::xapic(0x102);
    let count = |fixture: &Fixture| fixture.bus.published.borrow().len();
    assert_eq!(count(&fixture), 1, "software-enabling");
    fixture.wrmsr(Msr::APIC_BASE, 0xfee0_0d00).unwrap();
    let last = *fixture.bus.published.borrow().last().unwrap();
    assert_eq!((last.mode, last.id, last), (Mode::X2apic, 0x102, fixture.apic.identity()));
    assert_eq!(count(&fixture), 2);
    fixture.wrmsr(Msr::APIC_BASE, 0xfee0_0d00).unwrap();
    fixture.write_x2(Register::SVR, 0x1fe).unwrap();
    fixture.write_x2(Register::LVT_ERROR, 0x31).unwrap();
    assert_eq!(count(&fixture), 2);
    fixture.write_x2(Register::TPR, 0x40).unwrap();
    fixture.apic.set_cr8(4, &fixture.bus).unwrap();
    assert_eq!(count(&fixture), 3);
    assert_eq!(fixture.bus.published.borrow().last().unwrap().priority, 0x40);
}
