//! The LINT pins in every mode (SDM 3A "Local Vector Table").

use arch::Msr;
use arch::apic::Register;

use super::Fixture;
use crate::{Events, Pin};

const NMI: Events = Events { nmi: true, ..Events::NONE };
const SMI: Events = Events { smi: true, ..Events::NONE };
const INIT: Events = Events { init: true, ..Events::NONE };

/// An edge per delivery mode and pin; a second call without a fall between is no edge.
#[test]
fn edges_by_delivery_mode() {
    for (entry, events, vector) in [
        (0x0_0033, Events::NONE, Some(0x33)),
        (0x1_0033, Events::NONE, None),
        (0x0_0200, SMI, None),
        (0x0_0400, NMI, None),
        (0x0_0500, INIT, None),
        // NMI is an edge whatever the trigger bit says.
        (0x0_8400, NMI, None),
        (0x1_0400, Events::NONE, None),
        (0x0_0700, Events::NONE, None),
    ] {
        for (pin, register) in [(Pin::Lint0, Register::LVT_LINT0), (Pin::Lint1, Register::LVT_LINT1)] {
            let mut fixture = Fixture::xapic(0);
            fixture.write(register, entry);
            assert_eq!(fixture.apic.lint(pin, true), events, "{entry:#x} {pin:?}");
            assert_eq!(fixture.apic.acknowledge().map(|vector| vector.0), vector, "{entry:#x} {pin:?}");
            assert_eq!(fixture.apic.lint(pin, true), Events::NONE, "{entry:#x} {pin:?}: no edge");
            assert_eq!(fixture.apic.highest_requested(), None);
            assert_eq!(fixture.apic.lint(pin, false), Events::NONE);
            assert_eq!(fixture.apic.lint(pin, true), events, "{entry:#x} {pin:?}: again");
        }
    }
}

/// The PIC reaches the processor through LINT0 in ExtINT mode, unmasked, while its line is high.
#[test]
fn extint() {
    let mut fixture = Fixture::reset(0);
    assert_eq!(fixture.apic.lint(Pin::Lint0, true), Events::NONE);
    for (svr, entry, accepts) in [
        (0x1ff, 0x1_0000, false),
        (0x1ff, 0x0_8700, true),
        (0x1ff, 0x1_8700, false),
        (0x1ff, 0x0_0700, true),
        (0x1ff, 0x0_0030, false),
        // Software-disabling masks it.
        (0x0ff, 0x0_0700, false),
    ] {
        fixture.write(Register::SVR, svr);
        fixture.write(Register::LVT_LINT0, entry);
        assert_eq!((fixture.apic.accepts_extint(), fixture.apic.extint_pending()), (accepts, accepts), "{entry:#x}");
    }
    fixture.write(Register::SVR, 0x1ff);
    fixture.write(Register::LVT_LINT0, 0x700);
    assert_eq!(fixture.apic.lint(Pin::Lint0, false), Events::NONE);
    assert!(!fixture.apic.extint_pending());
}

/// A globally disabled APIC is not there: LINT0 is INTR, LINT1 is NMI.
#[test]
fn disabled_apic() {
    let mut fixture = Fixture::xapic(0);
    fixture.wrmsr(Msr::APIC_BASE, 0xfee0_0100).unwrap();
    assert_eq!(fixture.apic.lint(Pin::Lint1, true), NMI);
    assert_eq!(fixture.apic.lint(Pin::Lint1, true), Events::NONE);
    assert!(!fixture.apic.extint_pending());
    assert_eq!(fixture.apic.lint(Pin::Lint0, true), Events::NONE);
    assert!(fixture.apic.extint_pending());
}

/// A level at LINT0 is accepted once until its EOI, and again after it while the pin stays asserted. LINT1 has no
/// levels.
#[test]
fn level_until_eoi() {
    let mut fixture = Fixture::xapic(0);
    fixture.write(Register::LVT_LINT0, 0x8044);
    let _ = fixture.apic.lint(Pin::Lint0, true);
    assert_eq!(fixture.read(Register::LVT_LINT0), 0xc044, "remote IRR");
    assert_eq!(fixture.apic.acknowledge().unwrap().0, 0x44);
    let _ = fixture.apic.lint(Pin::Lint0, true);
    assert_eq!(fixture.apic.highest_requested(), None);
    fixture.write(Register::EOI, 0);
    assert_eq!(fixture.apic.acknowledge().unwrap().0, 0x44);
    let _ = fixture.apic.lint(Pin::Lint0, false);
    fixture.write(Register::EOI, 0);
    assert_eq!(fixture.apic.highest_requested(), None);
    assert_eq!(fixture.read(Register::LVT_LINT0), 0x8044);

    fixture.write(Register::LVT_LINT1, 0x8045);
    let _ = fixture.apic.lint(Pin::Lint1, true);
    assert_eq!(fixture.apic.acknowledge().unwrap().0, 0x45);
    fixture.write(Register::EOI, 0);
    assert_eq!(fixture.apic.highest_requested(), None);
}

/// Unmasking shows a level that is already there, and no edge that is over.
#[test]
fn unmasking() {
    let mut fixture = Fixture::xapic(0);
    let _ = fixture.apic.lint(Pin::Lint0, true);
    fixture.write(Register::LVT_LINT0, 0x0044);
    assert_eq!(fixture.apic.highest_requested(), None);
    fixture.write(Register::LVT_LINT0, 0x8044);
    assert_eq!(fixture.apic.highest_requested().unwrap().0, 0x44);
}
