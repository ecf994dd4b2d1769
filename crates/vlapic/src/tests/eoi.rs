//! End of interrupt: what it ends, and whom it tells (SDM 3A "Signaling Interrupt Servicing Completion").

use arch::apic::Register;

use super::Fixture;
use crate::Features;

fn take(fixture: &mut Fixture, vector: u8, level: bool) {
    fixture.apic.accept(vector, level);
    assert_eq!(fixture.apic.acknowledge().unwrap().0, vector);
}

/// Nested service ends highest first; only level-triggered vectors are told to the IOAPICs.
#[test]
fn highest_first_and_level_only() {
    let mut fixture = Fixture::xapic(0);
    take(&mut fixture, 0x41, true);
    take(&mut fixture, 0x52, false);
    take(&mut fixture, 0x63, true);
    for (told, left) in [(&[0x63][..], Some(0x52)), (&[0x63], Some(0x41)), (&[0x63, 0x41], None)] {
        fixture.write(Register::EOI, 0);
        assert_eq!(*fixture.bus.ended.borrow(), told);
        assert_eq!(fixture.apic.highest_in_service().map(|vector| vector.0), left);
    }
    fixture.write(Register::EOI, 0);
    assert_eq!(fixture.bus.ended.borrow().len(), 2, "an EOI with nothing in service does nothing");
}

/// The bit in TMR stays as it was when the interrupt was accepted, and follows the next acceptance.
#[test]
fn tmr_follows_acceptance() {
    let mut fixture = Fixture::xapic(0);
    take(&mut fixture, 0x41, true);
    fixture.write(Register::EOI, 0);
    assert_eq!(fixture.read(Register(0x1a0)), 2);
    take(&mut fixture, 0x41, false);
    assert_eq!(fixture.read(Register(0x1a0)), 0);
    fixture.write(Register::EOI, 0);
    assert_eq!(*fixture.bus.ended.borrow(), [0x41]);
}

/// An edge that arrives while the level interrupt of the same vector waits must not cost the IOAPIC its EOI: the pin
/// would stay blocked for ever.
#[test]
fn an_edge_does_not_hide_a_waiting_level() {
    let mut fixture = Fixture::xapic(0);
    fixture.apic.accept(0x41, true);
    fixture.apic.accept(0x41, false);
    fixture.apic.acknowledge().unwrap();
    fixture.write(Register::EOI, 0);
    assert_eq!(*fixture.bus.ended.borrow(), [0x41]);
}

/// SVR bit 12 suppresses the broadcast where the version register offers it, and is reserved where not.
#[test]
fn suppression() {
    let offered = Features { broadcast_suppression: true, ..Features::DEFAULT };
    for (features, told) in [(offered, &[][..]), (Features::DEFAULT, &[0x41])] {
        let mut fixture = Fixture::xapic(0).with_features(features);
        fixture.write(Register::SVR, 0x11ff);
        take(&mut fixture, 0x41, true);
        fixture.write(Register::EOI, 0);
        assert_eq!(*fixture.bus.ended.borrow(), told);
        assert_eq!(fixture.apic.highest_in_service(), None);

        let mut fixture = Fixture::x2apic(0).with_features(features);
        assert_eq!(fixture.write_x2(Register::SVR, 0x11ff).is_ok(), features.broadcast_suppression);
    }
}

/// An interrupt whose vector happens to be the spurious one is an interrupt: its EOI ends it. (A spurious interrupt
/// itself never enters ISR.)
#[test]
fn the_spurious_vector_can_be_ended() {
    let mut fixture = Fixture::xapic(0);
    take(&mut fixture, 0xff, false);
    fixture.write(Register::EOI, 0);
    assert_eq!(fixture.apic.highest_in_service(), None);
}

/// x2APIC's EOI takes only 0.
#[test]
fn x2apic_eoi() {
    let mut fixture = Fixture::x2apic(0);
    take(&mut fixture, 0x41, true);
    fixture.write_x2(Register::EOI, 1).unwrap_err();
    assert_eq!(fixture.apic.highest_in_service().unwrap().0, 0x41);
    fixture.write_x2(Register::EOI, 0).unwrap();
    assert_eq!(*fixture.bus.ended.borrow(), [0x41]);
}
