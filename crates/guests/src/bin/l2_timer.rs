//! The VMX-preemption timer: SDM 3C 26.5.1 "VMX-Preemption Timer", 27.7.4 "VMX-Preemption Timer". No values, as they are times.
#![no_std]
#![no_main]
#![expect(clippy::cast_possible_truncation, reason = "parts of words that are known to be small")]

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use guests::vmx::{Current, L2, equal, setup};
use guests::{cpu, entry, exit, interrupts, pic, println};
use vmcs::Access;
use vmcs::controls::{ExitControls, PinBased, PrimaryBased};
use vmcs::fields::{
    GUEST_ACTIVITY_STATE, GUEST_RFLAGS, GUEST_RIP, VM_ENTRY_INTERRUPTION_INFO, VMX_PREEMPTION_TIMER_VALUE,
};

entry!(main);

static ROUNDS: AtomicU32 = AtomicU32::new(0);
static STOP: AtomicU64 = AtomicU64::new(0);

fn main() {
    setup::require();
    pic::remap();
    setup::on();
    let l2 = &mut L2::new(|| {});
    if !l2.control(|controls| controls.pin |= PinBased::ACTIVATE_PREEMPTION_TIMER) {
        println!("not offered");
        exit(0);
    }
    at_once(l2);
    later(l2);
    saved(l2);
    others(l2);
    println!("done");
}

/// Counts until L1 says that it is enough.
fn count() {
    while STOP.load(Ordering::Relaxed) == 0 {
        ROUNDS.fetch_add(1, Ordering::Relaxed);
    }
}

/// The rate: a tick of the timer is 2^this ticks of the TSC.
fn shift() -> u32 {
    setup::capabilities().misc.preemption_timer_shift()
}

fn at_once(l2: &mut L2) {
    println!("0");
    let mut current = Current;
    current.write(VMX_PREEMPTION_TIMER_VALUE, 0);
    let start = current.read(GUEST_RIP);
    println!(" {}", l2.run());
    equal("nothing was executed", current.read(GUEST_RIP), start);
    println!(" again: {}", l2.run());
    equal("nothing was executed", current.read(GUEST_RIP), start);
    // An event is delivered before.
    interrupts::handle(0x50, |_| println!("  L2 takes the interrupt"));
    current.write(GUEST_RFLAGS, 0x202);
    current.write(VM_ENTRY_INTERRUPTION_INFO, 0x8000_0050);
    println!(" with an interrupt injected: {}", l2.run());
    equal("in the handler", current.read(GUEST_RFLAGS) & 0x200, 0);
    current.write(VMX_PREEMPTION_TIMER_VALUE, u32::MAX);
    println!(" then: {}", l2.run());
    interrupts::forget(0x50);
}

fn later(l2: &mut L2) {
    println!("later");
    let mut current = Current;
    for (what, ticks) in [("short", 20_000_u64), ("longer", 200_000)] {
        STOP.store(0, Ordering::Relaxed);
        ROUNDS.store(0, Ordering::Relaxed);
        l2.restart(count);
        current.write(VMX_PREEMPTION_TIMER_VALUE, (ticks >> shift()) as u32);
        let before = cpu::tsc();
        println!(" {what}: {}", l2.run());
        let passed = cpu::tsc() - before;
        // The timer counts when bits of the TSC roll over: up to one of its ticks less.
        equal("the time has passed", u64::from(passed >= ticks - (1 << shift())), 1);
        equal("L2 counted", u64::from(ROUNDS.load(Ordering::Relaxed) > 0), 1);
        STOP.store(1, Ordering::Relaxed);
        current.write(VMX_PREEMPTION_TIMER_VALUE, u32::MAX);
        println!(" then: {}", l2.run());
    }
}

fn saved(l2: &mut L2) {
    println!("saved");
    let mut current = Current;
    STOP.store(0, Ordering::Relaxed);
    current.write(VMX_PREEMPTION_TIMER_VALUE, 0x10_0000);
    l2.restart(|| _ = cpu::cpuid(0, 0));
    println!(" not saved: {}", l2.run());
    equal("the field is as it was", current.read(VMX_PREEMPTION_TIMER_VALUE).into(), 0x10_0000);
    l2.control(|controls| controls.exit |= ExitControls::SAVE_PREEMPTION_TIMER_VALUE);
    l2.restart(|| {
        for _ in 0..100 {
            cpu::cr2();
        }
        cpu::cpuid(0, 0);
    });
    println!(" saved: {}", l2.run());
    let left = current.read(VMX_PREEMPTION_TIMER_VALUE);
    equal("no more than before", u64::from(left <= 0x10_0000), 1);
    l2.skip();
    println!(" then: {}", l2.run());
    equal("no more than before", u64::from(current.read(VMX_PREEMPTION_TIMER_VALUE) <= left), 1);
    current.write(VMX_PREEMPTION_TIMER_VALUE, (1000 >> shift()) as u32);
    l2.restart(count);
    println!(" expired: {}", l2.run());
    equal("nothing is left", current.read(VMX_PREEMPTION_TIMER_VALUE).into(), 0);
}

/// The timer and other reasons for an exit.
fn others(l2: &mut L2) {
    println!("and others");
    let mut current = Current;
    // Off, it says nothing.
    l2.control(|controls| {
        controls.pin -= PinBased::ACTIVATE_PREEMPTION_TIMER;
        controls.exit -= ExitControls::SAVE_PREEMPTION_TIMER_VALUE;
    });
    current.write(VMX_PREEMPTION_TIMER_VALUE, 0);
    l2.restart(|| {});
    println!(" off: {}", l2.run());
    l2.control(|controls| controls.pin |= PinBased::ACTIVATE_PREEMPTION_TIMER);
    // A pending MTF exit comes first, a window after the timer.
    l2.restart(|| {});
    current.write(VM_ENTRY_INTERRUPTION_INFO, 0x8000_0700);
    println!(" with a pending MTF exit: {}", l2.run());
    println!(" then: {}", l2.run());
    l2.control(|controls| controls.primary |= PrimaryBased::INTERRUPT_WINDOW_EXITING);
    l2.restart(|| {});
    current.write(GUEST_RFLAGS, 0x202);
    println!(" with an interrupt window: {}", l2.run());
    current.write(VMX_PREEMPTION_TIMER_VALUE, u32::MAX);
    println!(" then: {}", l2.run());
    l2.control(|controls| controls.primary -= PrimaryBased::INTERRUPT_WINDOW_EXITING);
    // HLT is left by the timer, and nothing else. It is reached by then, whatever a hypervisor below has to do meanwhile.
    current.write(VMX_PREEMPTION_TIMER_VALUE, (200_000 >> shift()) as u32);
    l2.restart(|| {
        // SAFETY: the timer wakes.
        unsafe { core::arch::asm!("hlt") };
    });
    println!(" in HLT: {}", l2.run());
    equal("halted", current.read(GUEST_ACTIVITY_STATE).into(), 1);
}
