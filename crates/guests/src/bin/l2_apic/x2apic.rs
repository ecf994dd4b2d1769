//! The x2APIC's MSRs of L2. SDM 3C 30.5 "Virtualizing MSR-Based APIC Accesses".
//!
//! The MSR bitmap has no bit set: what the processor does not virtualize reaches L1's APIC, in whichever mode that is.

use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

use arch::apic::Register;
use arch::msr::Msr;
use guests::vmx::{Controls, Current, pages};
use guests::{apic, cpu, expect_fault, fault, interrupts, memory, msr, print, println};
use vmcs::controls::{PinBased, PrimaryBased, SecondaryBased};
use vmcs::fields::{EOI_EXIT_BITMAP1, GUEST_RFLAGS, MSR_BITMAP, TPR_THRESHOLD};
use vmcs::{Access, ExitReason};

use crate::Guest;

const X2APIC: SecondaryBased = SecondaryBased::VIRTUALIZE_X2APIC_MODE;
const REGISTERS: SecondaryBased = X2APIC.union(SecondaryBased::APIC_REGISTER_VIRTUALIZATION);
const DELIVERY: SecondaryBased = REGISTERS.union(SecondaryBased::VIRTUAL_INTERRUPT_DELIVERY);

/// What became of RDMSR of an MSR from 0x800 on.
static OUTCOMES: [AtomicU8; COUNT] = [const { AtomicU8::new(0) }; COUNT];
const COUNT: usize = 0x48;
/// The virtual-APIC page.
static PAGE: AtomicU64 = AtomicU64::new(0);
/// What WRMSR shall write.
static NUMBER: AtomicU32 = AtomicU32::new(0);
static VALUE: AtomicU64 = AtomicU64::new(0);

fn guest(secondary: SecondaryBased) -> Option<Guest> {
    let guest = Guest::with(|controls: &mut Controls| {
        controls.primary |= PrimaryBased::USE_MSR_BITMAPS;
        controls.secondary |= secondary;
        if secondary.contains(SecondaryBased::VIRTUAL_INTERRUPT_DELIVERY) {
            controls.pin |= PinBased::EXTERNAL_INTERRUPT_EXITING;
        }
    })?;
    Current.write(MSR_BITMAP, pages::take());
    Some(guest)
}

pub(crate) fn all() {
    for (what, secondary) in
        [("x2APIC mode", X2APIC), ("x2APIC mode and registers", REGISTERS), ("x2APIC mode and delivery", DELIVERY)]
    {
        println!("{what}, with L1 in xAPIC mode");
        let Some(mut guest) = guest(secondary) else { continue };
        reads(&mut guest);
        writes(&mut guest);
        if secondary == DELIVERY {
            bits(&mut guest);
            delivery(&mut guest);
        }
    }
    if !apic::has_x2apic() {
        return;
    }
    apic::enable_x2apic();
    for (what, secondary) in [("x2APIC mode", X2APIC), ("x2APIC mode and delivery", DELIVERY)] {
        println!("{what}, with L1 in it too");
        let Some(mut guest) = guest(secondary) else { continue };
        reads(&mut guest);
        if secondary == DELIVERY {
            writes(&mut guest);
            delivery(&mut guest);
        }
    }
}

/// Reads all of them; what became of each, by ranges.
fn reads(guest: &mut Guest) {
    const NAMES: [&str; 3] = ["#GP", "the page's", "L1's"];
    guest.apic.fill();
    PAGE.store(guest.apic.page, Ordering::Relaxed);
    guest.run("reads", || {
        for (number, outcome) in (0x800..).zip(&OUTCOMES) {
            let mut value = 0;
            let faulted = expect_fault(|| value = msr::read(Msr(number))).is_some();
            let is_page = value == memory::read::<u64>(PAGE.load(Ordering::Relaxed) + u64::from(number - 0x800) * 16);
            let index = if faulted {
                0
            } else if is_page {
                1
            } else {
                2
            };
            outcome.store(index, Ordering::Relaxed);
        }
    });
    let outcome = |index: usize| OUTCOMES[index].load(Ordering::Relaxed);
    let mut first = 0;
    for index in 1..=COUNT {
        if index == COUNT || outcome(index) != outcome(first) {
            println!("  {:x} to {:x}: {}", 0x800 + first, 0x7ff + index, NAMES[usize::from(outcome(first))]);
            first = index;
        }
    }
}

/// Writes what the processor virtualizes, and what it does not.
fn writes(guest: &mut Guest) {
    println!(" writes");
    for (number, value) in [
        (0x808_u16, 0x65),
        (0x808, 0x100),
        (0x808, 1 << 32),
        (0x80b, 0),
        (0x80b, 1),
        (0x83f, 0x61),
        (0x83f, 0x161),
        (0x83f, 0x0f),
        (0x802, 0),
        (0x840, 0),
    ] {
        // What reaches an APIC of L1's in that mode is for other guests.
        guest.apic.set(0, 0x51);
        NUMBER.store(number.into(), Ordering::Relaxed);
        VALUE.store(value, Ordering::Relaxed);
        guest.l2.restart(|| {
            let (number, value) = (NUMBER.load(Ordering::Relaxed), VALUE.load(Ordering::Relaxed));
            if let Some(fault) = expect_fault(|| msr::write(Msr(number), value)) {
                print!("  {fault},");
            }
        });
        let report = guest.l2.run();
        fault::forget();
        let written = guest.apic.read(Register((number - 0x800) << 4));
        println!("  {number:x}, {value:x}: {report}, {written:#x}");
        if guest.l2.controls.secondary.contains(SecondaryBased::VIRTUAL_INTERRUPT_DELIVERY) {
            println!("   {}", guest.apic);
        }
    }
}

/// Bits of the bitmap: the access exits before anything is virtualized.
fn bits(guest: &mut Guest) {
    let bitmap = Current.read(MSR_BITMAP);
    println!(" with the bits of 802 and 808 for reading, 808 and 83f for writing");
    for (part, number) in [(0, 0x802_u64), (0, 0x808), (0x800, 0x808), (0x800, 0x83f)] {
        let byte = bitmap + part + number / 8;
        memory::write(byte, memory::read::<u8>(byte) | 1 << (number % 8));
    }
    guest.apic.set(0, 0);
    for (what, code) in [
        ("802 is read", (|| _ = msr::read(Msr(0x802))) as fn()),
        ("803 is read", || _ = msr::read(Msr(0x803))),
        ("808 is read", || _ = msr::read(Msr(0x808))),
        ("808 is written", || msr::write(Msr(0x808), 0x60)),
        ("83f is written", || msr::write(Msr(0x83f), 0x61)),
        ("80b is written", || msr::write(Msr(0x80b), 0)),
        ("CR8", || cpu::write_cr8(7)),
    ] {
        guest.run(what, code);
    }
    println!("  VTPR {:x}, {}", guest.apic.read(Register::TPR), guest.apic);
    for offset in (0..4096).step_by(8) {
        memory::write(bitmap + offset, 0_u64);
    }
}

/// Interrupts from end to end, without an exit.
fn delivery(guest: &mut Guest) {
    println!(" interrupts");
    for vector in [0x51, 0x61, 0x71] {
        interrupts::handle(vector, |frame| {
            println!("  L2 takes {:x}", frame.vector);
            msr::write(Msr(0x80b), 0);
        });
    }
    guest.apic.set(0, 0);
    guest.run(" three to itself", || {
        [0x51, 0x71, 0x61].iter().for_each(|&vector| msr::write(Msr(0x83f), vector));
        msr::write(Msr(0x808), 0x60);
        cpu::take_interrupts();
        println!("  L2 lowers its priority");
        msr::write(Msr(0x808), 0);
        cpu::take_interrupts();
    });
    println!("  {}", guest.apic);
    let mut current = Current;
    current.write(EOI_EXIT_BITMAP1, 1 << (0x61 - 0x40));
    guest.apic.set(0x61, 0);
    guest.l2.restart(|| {});
    current.write(GUEST_RFLAGS, 0x202);
    let report = guest.l2.run();
    println!("  an end that exits: {report}; {}", guest.apic);
    if report.reason() == Some(ExitReason::VIRTUALIZED_EOI) {
        println!("  then: {}", guest.l2.run());
    }
    current.write(EOI_EXIT_BITMAP1, 0);
    current.write(TPR_THRESHOLD, 0);
    for vector in [0x51, 0x61, 0x71] {
        interrupts::forget(vector);
    }
}
