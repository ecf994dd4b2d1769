//! Two processors: what one sends and the other one's L2 meets. SDM 3C 26.2 "Other Causes of VM Exits", 24.8 "Restrictions on VMX
//! Operation".
//!
//! The second processor is the L1 and prints; the first one sends, and waits until it is asked to.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU32, Ordering};

use guests::vmx::{Current, L2, equal, instructions, setup};
use guests::{apic, cpu, entry, exit, interrupts, pic, pm_timer, println, smp};
use vmcs::Access;
use vmcs::controls::PinBased;
use vmcs::fields::{GUEST_ACTIVITY_STATE, GUEST_RFLAGS};

entry!(main);

/// A start-up IPI for page 12; nobody starts there.
const START_UP_12: u32 = 0x4612;
const NMI: u32 = 0x4400;
const FIXED: u32 = 0x4050;

/// What the first processor shall send; 0 when it has.
static ASKED: AtomicU32 = AtomicU32::new(0);
/// Whether L2 runs.
static RUNNING: AtomicU32 = AtomicU32::new(0);
/// Tells L2 to end.
static STOP: AtomicU32 = AtomicU32::new(0);
/// The number of processors that came through the trampoline.
static CAME: AtomicU32 = AtomicU32::new(0);

fn main() {
    setup::require();
    pic::remap();
    apic::init();
    let Some(other) = smp::start_another(second) else {
        println!("one processor only");
        exit(0);
    };
    loop {
        match ASKED.load(Ordering::SeqCst) {
            0 => core::hint::spin_loop(),
            END => break,
            what => {
                // Whoever asked is where it wants to be by then.
                pm_timer::wait_microseconds(2000);
                apic::send(other, what);
                pm_timer::wait_microseconds(2000);
                ASKED.store(0, Ordering::SeqCst);
            }
        }
    }
    // It has left VMX operation and stopped: INIT resets it again.
    println!(" INIT and start-up");
    smp::start_processor(other);
    let came = smp::wait_until(1000, || CAME.load(Ordering::SeqCst) == 2);
    equal("it came", came.into(), 1);
    println!("done");
}

/// Not something to send.
const END: u32 = u32::MAX;

/// Asks the first processor; it sends a while later.
fn ask(what: u32) {
    ASKED.store(what, Ordering::SeqCst);
}

fn wait_until_sent() {
    while ASKED.load(Ordering::SeqCst) != 0 {
        core::hint::spin_loop();
    }
}

/// Asks from L2, and waits for the end.
fn spin() {
    RUNNING.store(1, Ordering::SeqCst);
    while STOP.load(Ordering::SeqCst) == 0 {
        core::hint::spin_loop();
    }
}

fn second(number: u32) {
    if number != 1 {
        CAME.fetch_add(1, Ordering::SeqCst);
        cpu::stop();
    }
    CAME.fetch_add(1, Ordering::SeqCst);
    apic::init();
    setup::on();
    let l2 = &mut L2::new(spin);
    let mut current = Current;

    println!("INIT");
    l2.restart(spin);
    ask(smp::INIT);
    println!(" in L2: {}", l2.run());
    wait_until_sent();

    println!("start-up");
    ask(START_UP_12);
    l2.restart(|| {
        while ASKED.load(Ordering::SeqCst) != 0 {
            core::hint::spin_loop();
        }
    });
    println!(" while L2 is active: {}", l2.run());
    ask(START_UP_12);
    l2.restart(spin);
    current.write(GUEST_ACTIVITY_STATE, 3);
    println!(" while L2 waits for it: {}", l2.run());
    wait_until_sent();
    ask(smp::INIT);
    l2.restart(spin);
    current.write(GUEST_ACTIVITY_STATE, 1);
    println!(" INIT while L2 halts: {}", l2.run());
    wait_until_sent();

    println!("interrupts");
    l2.control(|controls| controls.pin |= PinBased::EXTERNAL_INTERRUPT_EXITING | PinBased::NMI_EXITING);
    ask(FIXED);
    l2.restart(spin);
    current.write(GUEST_RFLAGS, 0x202);
    println!(" fixed: {}", l2.run());
    wait_until_sent();
    interrupts::handle(0x50, |_| {
        println!("  L1 takes it");
        apic::eoi();
    });
    cpu::take_interrupts();
    ask(NMI);
    l2.restart(spin);
    println!(" NMI: {}", l2.run());
    wait_until_sent();

    println!("outside VMX operation");
    let _ = instructions::vmclear(l2.region);
    println!(" VMXOFF: {}", if instructions::vmxoff().is_ok() { "done" } else { "failed" });
    ask(END);
    cpu::stop();
}
