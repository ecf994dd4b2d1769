//! Event words.

use arch::Vector;
use proptest::prelude::*;
use vmcs::{EventInfo, EventKind};

/// The words of SDM 3C 25.8.3, table "Format of the VM-Entry Interruption-Information Field", written out.
#[test]
fn constructors_make_the_manuals_words() {
    for (event, word) in [
        (EventInfo::external(0x30), 0x8000_0030),
        (EventInfo::nmi(), 0x8000_0202),
        (EventInfo::hardware_exception(Vector::PF, true), 0x8000_0b0e),
        (EventInfo::hardware_exception(Vector::UD, false), 0x8000_0306),
        (EventInfo::software_interrupt(0x80), 0x8000_0480),
        (EventInfo::privileged_software_exception(), 0x8000_0501),
        (EventInfo::software_exception(Vector::BP), 0x8000_0603),
        (EventInfo::pending_mtf(), 0x8000_0700),
    ] {
        assert_eq!(event.0, word, "{event:?}");
    }
    assert!(!EventInfo::NONE.is_valid());
}

/// An event whose delivery an exit interrupted is injected again; bit 12 of IDT-vectoring information is undefined, and
/// with it set the entry would fail.
#[test]
fn vectoring_information_becomes_injectable() {
    assert_eq!(EventInfo(0x8000_1b0e).for_injection(), EventInfo(0x8000_0b0e));
}

proptest! {
    #[test]
    fn what_goes_in_comes_out(vector: u8, has_error: bool) {
        let event = EventInfo::hardware_exception(Vector(vector), has_error);
        prop_assert!(event.is_exception(Vector(vector)));
        prop_assert_eq!(event.has_error_code(), has_error);
        prop_assert_eq!(event.for_injection(), event);
        let event = EventInfo::external(vector);
        prop_assert!(event.is(EventKind::ExternalInterrupt));
        prop_assert_eq!(event.vector(), Vector(vector));
    }

    /// Whatever the processor reports, injecting it again sets no reserved bit and loses nothing that means something.
    #[test]
    fn injection_words_have_no_reserved_bits(word: u32) {
        let event = EventInfo(word).for_injection();
        prop_assert_eq!(event.0 & 0x7fff_f000, 0);
        prop_assert_eq!(event.0 & 0x8000_0fff, word & 0x8000_0fff);
    }
}
