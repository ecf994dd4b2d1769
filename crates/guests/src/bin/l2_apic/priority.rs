//! What L2 sends itself, and in which order it comes. SDM 3C 30.1.3 "PPR Virtualization", 30.1.4 "EOI Virtualization", 30.1.5
//! "Self-IPI Virtualization".

use arch::apic::Register;
use guests::interrupts::Frame;
use guests::vmx::Current;
use guests::{cpu, interrupts, memory, println};
use vmcs::Access;
use vmcs::fields::{EOI_EXIT_BITMAP0, EOI_EXIT_BITMAP1, GUEST_RFLAGS};

use crate::delivery::{end, guest};
use crate::{Guest, at};

/// A self-IPI by shorthand.
const TO_SELF: u32 = 0x4_4000;
/// What the first one to be taken sends, in its handler.
const HIGHER: u8 = 0x81;
const LOWER: u8 = 0x41;

fn send(command: u32) {
    memory::write_register(at(Register::ICR), command);
}

fn quick(frame: &mut Frame) {
    println!("  L2 takes {:x}", frame.vector);
    end();
}

/// Sends two more and lets interrupts in before it ends.
fn slow(frame: &mut Frame) {
    println!("  L2 takes {:x} and goes on", frame.vector);
    send(TO_SELF | u32::from(LOWER));
    send(TO_SELF | u32::from(HIGHER));
    cpu::take_interrupts();
    println!("  L2 ends {:x}", frame.vector);
    end();
}

pub(crate) fn all() {
    println!("what L2 sends itself");
    let Some(mut guest) = guest() else { return };
    let guest = &mut guest;
    for vector in [0x10, 0x51, 0x61, 0x71, HIGHER, LOWER] {
        interrupts::handle(vector, quick);
    }
    run(guest, "three", || {
        [0x51, 0x71, 0x61].iter().for_each(|vector| send(TO_SELF | vector));
        cpu::take_interrupts();
    });
    run(guest, "one twice", || {
        send(TO_SELF | 0x51);
        send(TO_SELF | 0x51);
        cpu::take_interrupts();
    });
    interrupts::handle(0x51, slow);
    run(guest, "two more from its handler", || {
        send(TO_SELF | 0x51);
        cpu::take_interrupts();
    });
    interrupts::handle(0x51, quick);
    run(guest, "held back by its task priority", || {
        cpu::write_cr8(6);
        [0x61, 0x71].iter().for_each(|vector| send(TO_SELF | vector));
        cpu::take_interrupts();
        println!("  L2 lowers it");
        cpu::write_cr8(5);
        cpu::take_interrupts();
    });
    run(guest, "an end without anything in service", end);
    commands(guest);
    ends(guest);
    for vector in [0x10, 0x51, 0x61, 0x71, HIGHER, LOWER] {
        interrupts::forget(vector);
    }
}

fn run(guest: &mut Guest, what: &str, code: fn()) {
    guest.apic.set(0, 0);
    guest.run(what, code);
    println!("  {}", guest.apic);
}

/// What else is written to the interrupt command register.
fn commands(guest: &mut Guest) {
    println!("interrupt commands");
    for (what, code) in [
        ("to itself, lowest vector", (|| send(0x4_4010)) as fn()),
        ("to itself, vector 0f", || send(0x4_400f)),
        ("to itself, not asserted", || send(0x4_0061)),
        ("to itself, logical", || send(0x4_4861)),
        ("to itself, level-triggered", || send(0x4_c061)),
        ("to itself, lowest priority", || send(0x4_4161)),
        ("to itself, NMI", || send(0x4_4400)),
        ("to itself, delivery pending", || send(0x4_5061)),
        ("to itself, reserved bit 20", || send(0x14_4061)),
        ("to itself, reserved bit 17", || send(0x6_4061)),
        ("to none", || send(0x4061)),
        ("to all", || send(0x8_4061)),
        ("to all others", || send(0xc_4061)),
    ] {
        guest.apic.set(0, 0);
        guest.run(what, code);
        println!("  {}, command {:x}", guest.apic, guest.apic.read(Register::ICR));
    }
}

/// Ends that exit.
fn ends(guest: &mut Guest) {
    println!("ends that exit");
    let mut current = Current;
    current.write(EOI_EXIT_BITMAP0, 1);
    current.write(EOI_EXIT_BITMAP1, 1 << (0x61 - 0x40));
    for (requested, in_service) in [(0, 0x61), (0, 0x51), (0x51, 0x61), (0x61, 0x71), (0, 0)] {
        guest.apic.set(requested, in_service);
        println!(" {requested:x} requested, {in_service:x} in service");
        guest.l2.restart(end);
        current.write(GUEST_RFLAGS, 0x202);
        loop {
            let report = guest.l2.run();
            println!("  {report}; {}", guest.apic);
            if report.is_done() {
                break;
            }
        }
    }
    current.write(EOI_EXIT_BITMAP0, 0);
    current.write(EOI_EXIT_BITMAP1, 0);
}
