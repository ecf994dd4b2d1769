//! Timers and interrupts: the PIT, the RTC, the UART and the APIC timer, through the PIC and through the IOAPIC, and the
//! rules by which a processor takes interrupts.
//!
//! Durations are compared with the power-management timer. A line says `ok`, or what it saw where that is not ok.
#![no_std]
#![no_main]
#![expect(clippy::cast_possible_truncation, reason = "counts and vectors are small")]

mod apic_timer;
mod delivery;
mod devices;
mod rules;

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use guests::interrupts::Frame;
use guests::{apic, cpu, entry, pic, pm_timer, println};

entry!(main);

fn main() {
    // The first reading looks for the timer's port, which takes its time.
    pm_timer::now();
    pic::remap();
    apic::init();
    devices::through_pic();
    devices::through_ioapic();
    devices::uart();
    println!("xAPIC mode");
    apic_timer::all();
    rules::all();
    delivery::all();
    if apic::has_x2apic() {
        println!("x2APIC mode");
        apic::enable_x2apic();
        apic_timer::all();
        rules::all();
        delivery::all();
    }
    println!("done");
}

/// Interrupts taken since [`reset`].
static TAKEN: AtomicU32 = AtomicU32::new(0);
/// Their vectors in their order, each a byte, the last in the lowest.
static ORDER: AtomicU64 = AtomicU64::new(0);

fn reset() {
    TAKEN.store(0, Ordering::SeqCst);
    ORDER.store(0, Ordering::SeqCst);
}

fn taken() -> u32 {
    TAKEN.load(Ordering::SeqCst)
}

fn order() -> u64 {
    ORDER.load(Ordering::SeqCst)
}

/// Records an interrupt; each handler begins with it.
fn note(frame: &Frame) {
    TAKEN.fetch_add(1, Ordering::SeqCst);
    ORDER.store(order() << 8 | frame.vector, Ordering::SeqCst);
}

/// Waits in HLT until `count` interrupts were taken, and says how long that was in microseconds.
fn wait_for(count: u32) -> u64 {
    let start = pm_timer::now();
    while taken() < count {
        cpu::wait_for_interrupt();
    }
    u64::from(pm_timer::since(start)) * 1_000_000 / pm_timer::FREQUENCY
}

/// Lets interrupts in for a time.
fn listen(microseconds: u32) {
    cpu::sti();
    pm_timer::wait_microseconds(microseconds);
    cpu::cli();
}

/// Prints whether `is` is within `percent` of `wanted`.
fn near(what: &str, is: u64, wanted: u64, percent: u64) {
    if is.abs_diff(wanted) * 100 <= wanted * percent {
        println!(" {what}: ok");
    } else {
        println!(" {what}: {is} instead of {wanted}");
    }
}

/// Prints whether `is` is `wanted`.
fn equal(what: &str, is: u64, wanted: u64) {
    if is == wanted {
        println!(" {what}: ok");
    } else {
        println!(" {what}: {is:#x} instead of {wanted:#x}");
    }
}
