//! The task priority: CR8 and its shadow, and the threshold. SDM 3C 30.1.2 "TPR Virtualization", 30.3 "Virtualizing CR8-Based TPR
//! Accesses".

use arch::apic::Register;
use guests::vmx::{Current, follow};
use guests::{cpu, interrupts, memory, println};
use vmcs::Access;
use vmcs::controls::{PrimaryBased, SecondaryBased};
use vmcs::fields::{GUEST_RFLAGS, TPR_THRESHOLD, VM_ENTRY_INTERRUPTION_INFO};

use crate::{Guest, at};

/// VTPR has a class and, below it, what CR8 does not show.
const VTPR: u32 = 0x5a;

pub(crate) fn all() {
    println!("TPR shadow");
    let Some(mut guest) = Guest::new(SecondaryBased::empty()) else { return };
    cr8(&mut guest);
    threshold_at_entry(&mut guest);
    threshold(&mut guest);
    println!("CR8 exits although there is a shadow");
    let code = || {
        _ = cpu::cr8();
        cpu::write_cr8(3);
    };
    for (what, control) in [("load", PrimaryBased::CR8_LOAD_EXITING), ("store", PrimaryBased::CR8_STORE_EXITING)] {
        guest.l2.control(|controls| controls.primary |= control);
        follow(&mut guest.l2, what, code);
        println!("  VTPR {:#x}", guest.apic.read(Register::TPR));
        guest.l2.control(|controls| controls.primary -= control);
    }
    by_page();
}

fn cr8(guest: &mut Guest) {
    guest.apic.write(Register::TPR, VTPR);
    guest.run("CR8", || {
        println!("  L2 reads {:#x}", cpu::cr8());
        cpu::write_cr8(7);
        println!("  L2 reads {:#x}", cpu::cr8());
    });
    println!("  VTPR {:#x}, L1's CR8 {:#x}", guest.apic.read(Register::TPR), cpu::cr8());
    let fault = || println!("  L2: {}", guests::expect_fault(|| cpu::write_cr8(0x10)).map_or("no", |_| "a fault"));
    guest.run("CR8 of 10", fault);
    println!("  VTPR {:#x}", guest.apic.read(Register::TPR));
}

/// The rules of VM entry.
fn threshold_at_entry(guest: &mut Guest) {
    println!("the threshold at an entry, VTPR 5a");
    for threshold in [0, 4, 5, 6, 15, 16, 0x8000_0005] {
        guest.apic.write(Register::TPR, VTPR);
        Current.write(TPR_THRESHOLD, threshold);
        guest.l2.restart(|| {});
        println!(" {threshold:#x}: {}", guest.l2.run());
    }
}

/// L2 moves its task priority.
fn threshold(guest: &mut Guest) {
    println!("the threshold of 5, VTPR 5a");
    for (what, code) in [
        ("CR8 of 5", (|| cpu::write_cr8(5)) as fn()),
        ("CR8 of 6", || cpu::write_cr8(6)),
        ("CR8 of 4", || cpu::write_cr8(4)),
        ("CR8 of 0, and then of 6", || {
            cpu::write_cr8(0);
            cpu::write_cr8(6);
        }),
    ] {
        guest.apic.write(Register::TPR, VTPR);
        Current.write(TPR_THRESHOLD, 5);
        guest.run(what, code);
        println!("  VTPR {:#x}", guest.apic.read(Register::TPR));
        if guest.apic.read(Register::TPR) < 0x50 {
            println!("  again: {}", guest.l2.run());
            Current.write(TPR_THRESHOLD, 0);
            println!("  without the threshold: {}, VTPR {:#x}", guest.l2.run(), guest.apic.read(Register::TPR));
        }
    }
    Current.write(TPR_THRESHOLD, 0);
}

/// With accesses to the page virtualized as well, an entry below the threshold is an exit right after it.
fn by_page() {
    println!("TPR shadow, and the APIC's page");
    let Some(mut guest) = Guest::new(SecondaryBased::VIRTUALIZE_APIC_ACCESSES) else { return };
    let mut current = Current;
    for threshold in [5, 6, 0x16] {
        guest.apic.write(Register::TPR, VTPR);
        current.write(TPR_THRESHOLD, threshold);
        guest.run("entry", || println!("  L2 runs"));
    }
    // What the entry injects comes before.
    current.write(TPR_THRESHOLD, 6);
    interrupts::handle(0x60, |_| println!("  L2 takes it"));
    guest.l2.restart(|| {});
    current.write(GUEST_RFLAGS, 0x202);
    current.write(VM_ENTRY_INTERRUPTION_INFO, 0x8000_0060);
    println!(" with an interrupt injected: {}", guest.l2.run());
    println!("  interrupts are {}", if current.read(GUEST_RFLAGS) & 0x200 == 0 { "off" } else { "on" });
    current.write(TPR_THRESHOLD, 5);
    println!("  then: {}", guest.l2.run());
    interrupts::forget(0x60);
    for (what, code) in [
        ("a store of 5f", (|| memory::write_register(at(Register::TPR), 0x5f)) as fn()),
        ("a store of 40", || memory::write_register(at(Register::TPR), 0x40)),
    ] {
        guest.apic.write(Register::TPR, VTPR);
        guest.run(what, code);
        println!("  VTPR {:#x}", guest.apic.read(Register::TPR));
    }
}
