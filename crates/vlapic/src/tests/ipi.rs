//! What a write to ICR sends (SDM 3A "Interrupt Command Register (ICR)").

use arch::apic::{DeliveryMode, Message, Register, Shorthand};

use super::Fixture;

const MODES: [DeliveryMode; 8] = [
    DeliveryMode::Fixed,
    DeliveryMode::LowestPriority,
    DeliveryMode::Smi,
    DeliveryMode::Reserved,
    DeliveryMode::Nmi,
    DeliveryMode::Init,
    DeliveryMode::StartUp,
    DeliveryMode::ExtInt,
];
const SHORTHANDS: [Shorthand; 4] =
    [Shorthand::None, Shorthand::Myself, Shorthand::AllIncludingSelf, Shorthand::AllExcludingSelf];

/// The manual's table "Valid Combinations for the Pentium 4 and Intel Xeon Processors' Local xAPIC Interrupt Command
/// Register", with the two reserved delivery modes.
fn is_valid(shorthand: Shorthand, mode: DeliveryMode) -> bool {
    use DeliveryMode::{ExtInt, Fixed, Reserved};
    match shorthand {
        Shorthand::None | Shorthand::AllExcludingSelf => !matches!(mode, Reserved | ExtInt),
        Shorthand::Myself | Shorthand::AllIncludingSelf => mode == Fixed,
    }
}

/// All shorthands, delivery modes, destination modes and trigger modes, by ICR in both modes. What is valid goes out,
/// always as an edge; a fixed interrupt to the sender alone stays here; nothing else goes anywhere.
#[test]
fn every_combination() {
    for code in 0..4 * 8 * 2 * 2 {
        let (shorthand_code, mode_code) = (code / 32, code / 4 % 8);
        let (logical, level) = (code / 2 % 2 != 0, code % 2 != 0);
        let (shorthand, mode) = (SHORTHANDS[shorthand_code as usize], MODES[mode_code as usize]);
        let low =
            shorthand_code << 18 | u32::from(level) << 15 | 0x4000 | u32::from(logical) << 11 | mode_code << 8 | 0x42;

        let mut xapic = Fixture::xapic(0);
        xapic.write(Register::ICR_HIGH, 0x0300_0000);
        xapic.write(Register::ICR, low);
        let mut x2apic = Fixture::x2apic(0);
        x2apic.write_x2(Register::ICR, 0x1234_5678 << 32 | u64::from(low)).unwrap();

        for (fixture, destination, xapic_destination) in [(xapic, 3, true), (x2apic, 0x1234_5678, false)] {
            let message = Message {
                vector: 0x42,
                mode,
                logical,
                level_triggered: false,
                destination,
                xapic_destination,
                shorthand,
            };
            let to_itself = shorthand == Shorthand::Myself && mode == DeliveryMode::Fixed;
            let sent = if is_valid(shorthand, mode) && !to_itself { vec![message] } else { vec![] };
            assert_eq!(*fixture.bus.sent.borrow(), sent, "{low:#x}");
            let received = fixture.apic.highest_requested().map(|vector| vector.0);
            assert_eq!(received, to_itself.then_some(0x42), "{low:#x}");
        }
    }
}

/// The INIT level de-assert is not an INIT: a processor that had just been started would be lost. INIT with the level
/// bit clear but edge triggered is one.
#[test]
fn init_deassert_sends_nothing() {
    for (low, count) in [(0x8500, 0), (0xc500, 1), (0x4500, 1), (0x0500, 1), (0x8_8500, 0)] {
        let mut fixture = Fixture::xapic(0);
        fixture.write(Register::ICR, low);
        assert_eq!(fixture.bus.sent.borrow().len(), count, "{low:#x}");
    }
}

/// The delivery status reads as idle: nothing is ever on its way.
#[test]
fn reads_back() {
    let mut fixture = Fixture::xapic(0);
    fixture.write(Register::ICR_HIGH, 0x0312_3456);
    fixture.write(Register::ICR, 0x000c_5042);
    assert_eq!((fixture.read(Register::ICR_HIGH), fixture.read(Register::ICR)), (0x0300_0000, 0x000c_4042));

    let mut fixture = Fixture::x2apic(0);
    fixture.write_x2(Register::ICR, 0x0000_0003_0000_5042).unwrap();
    assert_eq!(fixture.read_x2(Register::ICR), Ok(0x0000_0003_0000_4042));
}

/// An xAPIC sends on the write to the low half only.
#[test]
fn the_high_half_sends_nothing() {
    let mut fixture = Fixture::xapic(0);
    fixture.write(Register::ICR, 0x4042);
    fixture.write(Register::ICR_HIGH, 0x0300_0000);
    assert_eq!(fixture.bus.sent.borrow().len(), 1);
}

/// A vector below 16 goes out and is the receiver's error too.
#[test]
fn illegal_vectors_reach_the_receiver() {
    let mut fixture = Fixture::xapic(0);
    fixture.write(Register::ICR, 0x000c_4009);
    let message = fixture.bus.sent.borrow()[0];
    let mailbox = crate::Mailbox::new();
    assert!(mailbox.deliver(&message));
    let mut receiver = Fixture::xapic(1);
    assert!(receiver.apic.drain(&mailbox).is_empty());
    assert_eq!((fixture.errors(), receiver.errors()), (0x20, 0x40));
    assert_eq!(receiver.apic.highest_requested(), None);
}

/// x2APIC's self-IPI register.
#[test]
fn self_ipi_register() {
    let mut fixture = Fixture::x2apic(0);
    fixture.write_x2(Register::SELF_IPI, 0x77).unwrap();
    assert_eq!(fixture.apic.acknowledge().unwrap().0, 0x77);
    assert!(fixture.bus.sent.borrow().is_empty());
    fixture.write_x2(Register::EOI, 0).unwrap();
    assert!(fixture.bus.ended.borrow().is_empty(), "a self-IPI is an edge");
}
