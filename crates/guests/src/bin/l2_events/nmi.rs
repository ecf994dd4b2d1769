//! Non-maskable interrupts, of the machine and virtual: SDM 3C 25.6.1 "Pin-Based VM-Execution Controls", 26.2 "Other Causes of VM
//! Exits", 27.7.6 "NMI-Window Exiting".

use core::arch::asm;

use guests::vmx::{Current, equal};
use guests::{apic, cpu, interrupts, println};
use vmcs::Access;
use vmcs::controls::{PinBased, PrimaryBased};
use vmcs::fields::{GUEST_INTERRUPTIBILITY_INFO, GUEST_RIP, VM_ENTRY_INTERRUPTION_INFO};

use crate::from;
use crate::injection::{event, inject};

const BLOCKED: u64 = 1 << 3;

/// Sends an NMI to this processor. xAPIC: no shorthand for itself with NMI, so by its ID.
fn raise() {
    apic::send(apic::id(), 0x4400);
    // It arrives before this ends, whatever the way is.
    for _ in 0..100 {
        core::hint::spin_loop();
    }
}

/// IRET, which lets NMIs in again.
fn unblock() {
    // SAFETY: returns to the next instruction with everything as it is.
    unsafe {
        asm!(
            "mov {0:e}, ss",
            "push {0}",
            "lea {0}, [rsp + 8]",
            "push {0}",
            "pushfq",
            "mov {0:e}, cs",
            "push {0}",
            "lea {0}, [rip + 2f]",
            "push {0}",
            "iretq",
            "2:",
            out(reg) _,
        );
    }
}

fn blocking() -> u64 {
    Current.read(GUEST_INTERRUPTIBILITY_INFO).into()
}

pub(crate) fn all() {
    println!("NMI");
    let l2 = &mut crate::l2_with_msrs();
    let mut current = Current;
    l2.control(|controls| controls.pin |= PinBased::NMI_EXITING);
    l2.restart(raise);
    println!(" NMI exiting: {}", l2.run());
    equal("not blocked in L2", blocking() & BLOCKED, 0);
    // The exit blocks NMIs in L1.
    interrupts::handle(2, |_| println!("  L1 takes an NMI"));
    println!(" L1 sends itself one");
    raise();
    println!(" L1 executes IRET");
    unblock();
    println!(" then: {}", l2.run());

    println!("L2's own");
    l2.control(|controls| controls.pin -= PinBased::NMI_EXITING);
    interrupts::handle(2, |_| {
        println!("  L2 takes an NMI");
        cpu::cpuid(0, 0);
    });
    l2.restart(|| {
        raise();
        cpu::cpuid(0, 0);
    });
    println!(" in the handler: {}", l2.run());
    equal("blocked", blocking() & BLOCKED, BLOCKED);
    l2.skip();
    println!(" after it: {}", l2.run());
    equal("blocked", blocking() & BLOCKED, 0);
    l2.skip();
    println!(" then: {}", l2.run());
    // Injected, it blocks as one of the machine does.
    l2.restart(|| {});
    from(current.read(GUEST_RIP));
    inject(event(2, 2), 0, 0);
    println!(" injected, in the handler: {}", l2.run());
    equal("blocked", blocking() & BLOCKED, BLOCKED);
    l2.skip();
    println!(" then: {}", l2.run());
    equal("blocked", blocking() & BLOCKED, 0);

    println!("virtual NMIs");
    l2.control(|controls| controls.pin |= PinBased::NMI_EXITING | PinBased::VIRTUAL_NMIS);
    l2.restart(|| {});
    inject(event(2, 2), 0, 0);
    println!(" injected, in the handler: {}", l2.run());
    equal("virtual-NMI blocking", blocking() & BLOCKED, BLOCKED);
    // One of the machine exits in spite of it.
    l2.skip();
    println!(" after the handler: {}", l2.run());
    equal("virtual-NMI blocking", blocking() & BLOCKED, 0);
    l2.restart(raise);
    current.write(GUEST_INTERRUPTIBILITY_INFO, 1 << 3);
    println!(" one of the machine while virtual NMIs are blocked: {}", l2.run());
    equal("virtual-NMI blocking", blocking() & BLOCKED, BLOCKED);
    unblock();
    println!(" then: {}", l2.run());

    println!("NMI window");
    l2.control(|controls| controls.primary |= PrimaryBased::NMI_WINDOW_EXITING);
    l2.restart(|| {});
    let start = current.read(GUEST_RIP);
    println!(" open: {}", l2.run());
    equal("before the first instruction", current.read(GUEST_RIP), start);
    l2.restart(|| {});
    current.write(GUEST_INTERRUPTIBILITY_INFO, 1 << 3);
    println!(" blocked: {}", l2.run());
    l2.restart(|| {
        println!("  L2 executes IRET");
        unblock();
        println!("  L2 goes on");
    });
    current.write(GUEST_INTERRUPTIBILITY_INFO, 1 << 3);
    println!(" opened by IRET: {}", l2.run());
    l2.control(|controls| controls.primary -= PrimaryBased::NMI_WINDOW_EXITING);
    println!(" then: {}", l2.run());
    equal("no event is left", u64::from(current.read(VM_ENTRY_INTERRUPTION_INFO) >> 31), 0);
    interrupts::forget(2);
}
