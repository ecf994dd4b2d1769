//! From the interrupt command register to a message.

use arch::apic::{DeliveryMode, Message, Shorthand};
use bit_field::BitField;

/// Reserved bits of the low half. Bit 12, the delivery status of xAPIC mode, is not among them: processors ignore it
/// in writes.
pub(crate) const RESERVED: u32 = 0xfff3_2000;
/// Bits of the low half that read back as written.
pub(crate) const WRITABLE: u32 = 0x000c_cfff;

/// What writing `low` sends, or `None` for a command that sends nothing.
///
/// Sources: SDM 3A 11.6.1 "Interrupt Command Register (ICR)" and its table "Valid Combinations for the Pentium 4 and
/// Intel Xeon Processors' Local xAPIC Interrupt Command Register"; SDM 3A 11.12.9 "ICR Operation in x2APIC Mode".
/// Invalid combinations and reserved delivery modes send nothing. A level-triggered IPI goes out as an edge, and the
/// INIT level de-assert, which only synchronized bus arbitration, is gone from these processors.
pub(crate) fn decode(low: u32, destination: u32, xapic_destination: bool) -> Option<Message> {
    let mode = DeliveryMode::from_bits(low >> 8);
    let level_triggered = low.get_bit(15);
    let asserted = low.get_bit(14);
    let shorthand = match low.get_bits(18..20) {
        0 => Shorthand::None,
        1 => Shorthand::Myself,
        2 => Shorthand::AllIncludingSelf,
        _ => Shorthand::AllExcludingSelf,
    };
    let sent = match mode {
        DeliveryMode::Fixed => true,
        DeliveryMode::Reserved | DeliveryMode::ExtInt => false,
        _ if matches!(shorthand, Shorthand::Myself | Shorthand::AllIncludingSelf) => false,
        DeliveryMode::Init => asserted || !level_triggered,
        _ => true,
    };
    sent.then_some(Message {
        vector: (low & 0xff) as u8,
        mode,
        logical: low.get_bit(11),
        level_triggered: false,
        destination,
        xapic_destination,
        shorthand,
    })
}

/// Whether the vector field of a message in `mode` names an interrupt vector, which must then be 16 or above.
pub(crate) const fn has_vector(mode: DeliveryMode) -> bool {
    matches!(mode, DeliveryMode::Fixed | DeliveryMode::LowestPriority)
}
