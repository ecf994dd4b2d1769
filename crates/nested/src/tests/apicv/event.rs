//! What can happen.

use super::oracle::{self, Mode8};
#[cfg(doc)]
use super::oracle::{EDGE, LEVEL};

/// What happens to a vCPU, or to the VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// The guest writes CR8.
    Cr8(u8),
    /// The guest ends an interrupt, in the way that its mode has.
    Eoi,
    /// In x2APIC mode: a store to EOI of the old page.
    OldPageEoi,
    /// The guest sends itself [`EDGE`].
    SelfIpi,
    /// Another processor posts [`EDGE`].
    Post,
    /// The notification of the post arrives.
    Notice,
    /// An IOAPIC sends [`LEVEL`].
    Level,
    /// The guest can take an interrupt; from L2 it is an exit that acknowledges.
    Take,
    /// The guest writes the APIC base, for another mode.
    Mode(Mode8),
    /// The same, for another address.
    Base(bool),
    /// The guest gives itself the other vCPU's id, or its own.
    Id(bool),
    /// L1 enters L2.
    Enter,
    /// The same, and it fails after vmcs02 was loaded.
    EnterFails,
    /// L2 exits to L1.
    Exit,
    /// AutoEOI is switched on or off.
    HyperV(bool),
    /// A debugger blocks or frees the interrupts of the VM.
    Block(bool),
    /// The vCPU is saved and restored elsewhere.
    Migrate,
}

/// All events.
pub(super) const EVENTS: [Event; 24] = [
    Event::Cr8(0),
    Event::Cr8(oracle::BUSY >> 4),
    Event::Eoi,
    Event::OldPageEoi,
    Event::SelfIpi,
    Event::Post,
    Event::Notice,
    Event::Level,
    Event::Take,
    Event::Mode(Mode8::Disabled),
    Event::Mode(Mode8::Xapic),
    Event::Mode(Mode8::X2apic),
    Event::Base(true),
    Event::Base(false),
    Event::Id(true),
    Event::Id(false),
    Event::Enter,
    Event::EnterFails,
    Event::Exit,
    Event::HyperV(true),
    Event::HyperV(false),
    Event::Block(true),
    Event::Block(false),
    Event::Migrate,
];
