//! Which interrupt the APIC gives the processor: SDM 3A "Handling Interrupts", "Interrupt, Task, and Processor Priority".

use core::sync::atomic::{AtomicU64, Ordering};

use arch::apic::Register;
use guests::{apic, cpu, interrupts, println};

use crate::{equal, note, order, reset, taken};

/// Sends an interrupt to this processor itself.
pub(crate) fn send_self(vector: u8) {
    apic::send(0, 1 << 18 | 1 << 14 | u32::from(vector));
}

pub(crate) fn all() {
    println!(" priorities");
    for vector in (0x31..=0xf1).step_by(16) {
        interrupts::handle(vector, |frame| {
            note(frame);
            apic::eoi();
        });
    }
    task_priority();
    registers();
    nested();
    many();
}

fn task_priority() {
    for (priority, wanted) in [(0, 1), (5, 1), (6, 0), (7, 0), (15, 0)] {
        cpu::write_cr8(priority);
        reset();
        send_self(0x61);
        cpu::take_interrupts();
        equal("vector 61 and CR8", taken().into(), wanted);
        equal("TPR shows CR8", apic::read(Register::TPR).into(), priority << 4);
        cpu::write_cr8(0);
        cpu::take_interrupts();
        equal("taken in the end", taken().into(), 1);
    }
    // The register's low half is in CR8's way, and does not count but against its own class.
    apic::write(Register::TPR, 0x5f);
    equal("CR8 shows TPR", cpu::cr8(), 5);
    reset();
    send_self(0x51);
    send_self(0x61);
    cpu::take_interrupts();
    equal("above the class only", order(), 0x61);
    apic::write(Register::TPR, 0);
    cpu::take_interrupts();
    equal("lowered by the register", order(), 0x61_51);
}

fn registers() {
    static SEEN: AtomicU64 = AtomicU64::new(0);
    interrupts::handle(0x71, |frame| {
        note(frame);
        let in_service = apic::bit(Register::ISR, 0x71);
        let requested = apic::bit(Register::IRR, 0x71);
        let ppr = apic::read(Register::PPR);
        apic::eoi();
        let after = apic::bit(Register::ISR, 0x71);
        let ppr_after = apic::read(Register::PPR);
        SEEN.store(
            u64::from(in_service) << 28
                | u64::from(requested) << 24
                | u64::from(ppr) << 16
                | u64::from(after) << 8
                | u64::from(ppr_after),
            Ordering::SeqCst,
        );
    });
    reset();
    send_self(0x71);
    equal("requested", apic::bit(Register::IRR, 0x71).into(), 1);
    cpu::take_interrupts();
    equal("in service, requested, PPR; after EOI", SEEN.load(Ordering::SeqCst), 0x1070_0000);
    // An EOI with nothing in service does nothing.
    apic::eoi();
    interrupts::handle(0x71, |frame| {
        note(frame);
        apic::eoi();
    });
}

fn nested() {
    static INSIDE: AtomicU64 = AtomicU64::new(0);
    interrupts::handle(0x61, |frame| {
        note(frame);
        for vector in [0x51, 0x61, 0x81, 0x71] {
            send_self(vector);
        }
        cpu::take_interrupts();
        // Higher ones came in; the lower and the own wait for the EOI, which is for the highest in service.
        INSIDE.store(order(), Ordering::SeqCst);
        interrupts::handle(0x61, |frame| {
            note(frame);
            apic::eoi();
        });
        apic::eoi();
        cpu::take_interrupts();
    });
    reset();
    send_self(0x61);
    cpu::take_interrupts();
    equal("inside the handler", INSIDE.load(Ordering::SeqCst), 0x61_81_71);
    equal("after its EOI", order(), 0x61_81_71_61_51);
}

/// One of each class waits; the highest goes first.
fn many() {
    reset();
    for vector in (0x31..=0xf1).step_by(32) {
        send_self(vector);
    }
    for vector in (0x41..=0xe1).step_by(32) {
        send_self(vector);
    }
    cpu::take_interrupts();
    equal("all classes, how many", taken().into(), 13);
    equal("all classes, the last eight", order(), 0xa1_91_81_71_61_51_41_31);
}
