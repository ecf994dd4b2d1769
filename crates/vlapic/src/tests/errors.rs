//! The error status register and the error interrupt (SDM 3A "Error Handling").

use arch::apic::Register;

use super::Fixture;

const SEND: u32 = 0x20;
const RECEIVE: u32 = 0x40;
const REGISTER: u32 = 0x80;

/// What provokes an error.
type Act<'a> = &'a dyn Fn(&mut Fixture);

/// Errors show only after a write, and the write after that makes them go.
#[test]
fn write_then_read() {
    let mut fixture = Fixture::xapic(0);
    fixture.apic.accept(15, false);
    assert_eq!(fixture.read(Register::ESR), 0);
    fixture.write(Register::ESR, 0xffff_ffff);
    assert_eq!(fixture.read(Register::ESR), RECEIVE);
    fixture.read(Register(0x40));
    assert_eq!(fixture.read(Register::ESR), RECEIVE);
    assert_eq!(fixture.errors(), REGISTER);
    assert_eq!(fixture.errors(), 0);
}

/// What each illegal use sets.
#[test]
fn kinds() {
    let icr = |value| move |fixture: &mut Fixture| fixture.write(Register::ICR, value);
    let cases: &[(&str, Act<'_>, u32)] = &[
        ("fixed IPI, vector 15", &icr(0x000c_400f), SEND),
        ("fixed IPI, vector 16", &icr(0x000c_4010), 0),
        ("lowest-priority IPI, vector 0", &icr(0x000c_4100), SEND),
        ("NMI, whose vector is ignored", &icr(0x000c_4400), 0),
        ("INIT", &icr(0x000c_4500), 0),
        ("start-up of page 1", &icr(0x000c_4601), 0),
        ("self-IPI by shorthand, vector 2", &icr(0x0004_4002), SEND | RECEIVE),
        ("received, vector 0", &|fixture| fixture.apic.accept(0, false), RECEIVE),
        (
            "timer with vector 15",
            &|fixture| {
                fixture.write(Register::LVT_TIMER, 15);
                fixture.write(Register::INITIAL_COUNT, 1);
                fixture.apic.tick(1000);
            },
            RECEIVE,
        ),
        ("reserved register", &|fixture| fixture.write(Register(0x3f0), 0x40), REGISTER),
    ];
    for (story, act, expected) in cases {
        let mut fixture = Fixture::xapic(0);
        act(&mut fixture);
        assert_eq!(fixture.errors(), *expected, "{story}");
        assert_eq!(fixture.apic.highest_requested().filter(|vector| vector.0 < 16), None, "{story}");
    }
}

/// x2APIC's self-IPI register reports both ends of an illegal vector; a wrong MSR is #GP and no error.
#[test]
fn x2apic_self_ipi() {
    let mut fixture = Fixture::x2apic(0);
    fixture.write_x2(Register::SELF_IPI, 7).unwrap();
    fixture.read_x2(Register(0x40)).unwrap_err();
    fixture.write_x2(Register::ESR, 0).unwrap();
    assert_eq!(fixture.read_x2(Register::ESR), Ok(u64::from(SEND | RECEIVE)));
}

/// The interrupt comes once; only a write to ESR arms it again.
#[test]
fn interrupt_once_until_written() {
    let mut fixture = Fixture::xapic(0);
    fixture.write(Register::LVT_ERROR, 0x73);
    fixture.apic.accept(1, false);
    assert_eq!(fixture.apic.acknowledge().unwrap().0, 0x73);
    fixture.apic.end_of_interrupt(&fixture.bus);
    fixture.apic.accept(1, false);
    assert_eq!(fixture.apic.pending(), None);
    fixture.write(Register::ESR, 0);
    fixture.apic.accept(1, false);
    assert_eq!(fixture.apic.pending().unwrap().0, 0x73);
}

/// A masked entry raises nothing and leaves the mechanism armed.
#[test]
fn masked() {
    let mut fixture = Fixture::xapic(0);
    fixture.apic.accept(1, false);
    fixture.write(Register::LVT_ERROR, 0x73);
    assert_eq!(fixture.apic.pending(), None);
    fixture.apic.accept(1, false);
    assert_eq!(fixture.apic.pending().unwrap().0, 0x73);
}

/// An error entry with an illegal vector is an error of its own, and no endless one.
#[test]
fn illegal_error_vector() {
    let mut fixture = Fixture::xapic(0);
    fixture.write(Register::LVT_ERROR, 0x3);
    fixture.read(Register(0x40));
    assert_eq!(fixture.errors(), REGISTER | RECEIVE);
    assert_eq!(fixture.apic.highest_requested(), None);
}
