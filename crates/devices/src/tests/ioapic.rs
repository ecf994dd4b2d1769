//! The IOAPIC against the 82093AA data sheet.

use arch::Width;
use arch::apic::DeliveryMode;

use crate::ioapic::IoApic;

fn write(ioapic: &mut IoApic, register: u8, value: u32) -> Option<arch::apic::Message> {
    ioapic.write(0x00, Width::Dword, u64::from(register));
    ioapic.write(0x10, Width::Dword, u64::from(value))
}

fn read(ioapic: &mut IoApic, register: u8) -> u32 {
    ioapic.write(0x00, Width::Dword, u64::from(register));
    u32::try_from(ioapic.read(0x10, Width::Dword)).unwrap()
}

const LEVEL: u32 = 1 << 15;
const MASKED: u32 = 1 << 16;
const REMOTE_IRR: u32 = 1 << 14;

/// The ID has four bits, and the arbitration register is loaded with it and not writable. A well-known test suite of
/// hypervisors asks for all three; Bochs has eight bits and arbitrates with 0.
#[test]
fn id_and_arbitration() {
    let mut ioapic = IoApic::new(0);
    write(&mut ioapic, 0, u32::MAX);
    assert_eq!((read(&mut ioapic, 0), read(&mut ioapic, 2)), (0x0f00_0000, 0x0f00_0000));
    write(&mut ioapic, 2, 0);
    assert_eq!(read(&mut ioapic, 2), 0x0f00_0000);
}

/// Identification and reset values; read-only bits; the ID that Bochs starts with.
#[test]
fn registers() {
    let mut ioapic = IoApic::new(2);
    assert_eq!(read(&mut ioapic, 0), 2 << 24);
    assert_eq!(read(&mut ioapic, 1), 0x0017_0011, "24 entries, version 0x11");
    write(&mut ioapic, 0, 0x0f00_0000);
    write(&mut ioapic, 1, 0);
    assert_eq!((read(&mut ioapic, 0), read(&mut ioapic, 1)), (0x0f00_0000, 0x0017_0011));
    for pin in 0..24 {
        assert_eq!((read(&mut ioapic, 0x10 + 2 * pin), read(&mut ioapic, 0x11 + 2 * pin)), (MASKED, 0));
    }
    write(&mut ioapic, 0x3e, u32::MAX);
    write(&mut ioapic, 0x3f, 0xab00_0000);
    assert_eq!(read(&mut ioapic, 0x3e), 0x0001_afff, "delivery status and remote IRR are read-only");
    assert_eq!(read(&mut ioapic, 0x3f), 0xab00_0000);
    for register in [0x03, 0x0f, 0x40, 0xff] {
        write(&mut ioapic, register, u32::MAX);
        assert_eq!(read(&mut ioapic, register), 0, "there is no register {register:#x}");
    }
}

/// Narrow reads see their part of the register, as Bochs lets them.
#[test]
fn narrow_accesses() {
    let mut ioapic = IoApic::new(0);
    ioapic.write(0x00, Width::Byte, 1);
    assert_eq!(ioapic.read(0x00, Width::Byte), 1);
    assert_eq!(ioapic.read(0x10, Width::Byte), 0x11);
    assert_eq!(ioapic.read(0x12, Width::Byte), 0x17);
    assert_eq!(ioapic.read(0x12, Width::Word), 0x17);
    assert_eq!(ioapic.read(0x20, Width::Dword), 0);
}

/// All fields of an entry reach the message.
#[test]
fn message() {
    let mut ioapic = IoApic::new(0);
    for (low, mode, logical) in [
        (0x0041, DeliveryMode::Fixed, false),
        (0x0941, DeliveryMode::LowestPriority, true),
        (0x0441, DeliveryMode::Nmi, false),
        (0x0741, DeliveryMode::ExtInt, false),
    ] {
        write(&mut ioapic, 0x13, 0x8300_0000);
        write(&mut ioapic, 0x12, low);
        let message = ioapic.set_pin(1, true).unwrap();
        assert_eq!((message.vector, message.mode, message.logical), (0x41, mode, logical));
        assert_eq!((message.destination, message.xapic_destination, message.level_triggered), (0x83, true, false));
        assert_eq!(ioapic.set_pin(1, true), None, "no edge");
        assert_eq!(ioapic.set_pin(1, false), None);
    }
    assert_eq!(ioapic.set_pin(24, true), None, "there is no pin 24");
}

/// "Edge-sensitive interrupts signaled on a masked interrupt pin are ignored (i.e., not delivered or held pending)."
#[test]
fn masked_edge_is_lost() {
    let mut ioapic = IoApic::new(0);
    write(&mut ioapic, 0x14, 0x30 | MASKED);
    assert_eq!(ioapic.set_pin(2, true), None);
    assert_eq!(write(&mut ioapic, 0x14, 0x30), None);
    ioapic.set_pin(2, false);
    assert!(ioapic.set_pin(2, true).is_some());
}

/// A level is sent once, waits for the EOI of its vector with remote IRR set, and is sent again if it still asks.
#[test]
fn level() {
    let mut ioapic = IoApic::new(0);
    write(&mut ioapic, 0x22, 0x51 | LEVEL | MASKED);
    assert_eq!(ioapic.set_pin(9, true), None);
    let message = write(&mut ioapic, 0x22, 0x51 | LEVEL).expect("unmasked while asserted");
    assert!(message.level_triggered);
    assert_eq!(read(&mut ioapic, 0x22), 0x51 | LEVEL | REMOTE_IRR);
    assert_eq!(write(&mut ioapic, 0x22, 0x51 | LEVEL), None, "a rewrite does not send it again");
    let mut sent = Vec::new();
    ioapic.end_of_interrupt(0x50, |message| sent.push(message));
    assert_eq!(sent, [], "another vector's EOI");
    ioapic.end_of_interrupt(0x51, |message| sent.push(message));
    assert_eq!(sent.len(), 1);
    ioapic.set_pin(9, false);
    ioapic.end_of_interrupt(0x51, |message| sent.push(message));
    assert_eq!(sent.len(), 1);
    assert_eq!(read(&mut ioapic, 0x22), 0x51 | LEVEL);
}

/// How Linux ends an interrupt at an IOAPIC without EOI register: masked and edge for a moment, then as before.
#[test]
fn eoi_by_switching_to_edge() {
    let mut ioapic = IoApic::new(0);
    write(&mut ioapic, 0x22, 0x51 | LEVEL);
    assert!(ioapic.set_pin(9, true).is_some());
    write(&mut ioapic, 0x22, 0x51 | MASKED);
    assert_eq!(read(&mut ioapic, 0x22) & REMOTE_IRR, 0);
    assert!(write(&mut ioapic, 0x22, 0x51 | LEVEL).is_some());
}
