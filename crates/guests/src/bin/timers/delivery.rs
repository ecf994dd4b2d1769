//! When the processor takes what it is given: SDM 3A "Enabling and Disabling Interrupts", "Masking Maskable Hardware
//! Interrupts", "Handling Multiple NMIs".

use core::arch::asm;
use core::sync::atomic::{AtomicU32, Ordering};

use guests::{apic, cpu, expect_fault, interrupts, pm_timer, println};

use crate::rules::send_self;
use crate::{equal, note, order, reset, taken};

const VECTOR: u8 = 0x91;

pub(crate) fn all() {
    println!(" delivery");
    interrupts::handle(VECTOR, |frame| {
        note(frame);
        apic::eoi();
    });
    shadows();
    halt();
    nmi();
}

macro_rules! with_pending {
    ($name:literal, $wanted:literal, $($instruction:literal),+) => {
        reset();
        send_self(VECTOR);
        // SAFETY: every vector has a gate, and SS is given what it has.
        unsafe { asm!($($instruction),+, out("rax") _, options(nostack)) };
        equal($name, taken().into(), $wanted);
        cpu::take_interrupts();
    };
}

fn shadows() {
    with_pending!("off", 0, "nop", "nop");
    with_pending!("STI, CLI", 0, "sti", "cli");
    with_pending!("STI, NOP, CLI", 1, "sti", "nop", "cli");
    with_pending!("STI, STI, CLI", 1, "sti", "sti", "cli");
    with_pending!("STI, MOV SS, CLI", 0, "mov eax, ss", "sti", "mov ss, eax", "cli");
    with_pending!("STI, MOV SS, NOP, CLI", 1, "mov eax, ss", "sti", "mov ss, eax", "nop", "cli");
    with_pending!("STI, CPUID, CLI", 1, "push rbx", "xor eax, eax", "xor ecx, ecx", "sti", "cpuid", "cli", "pop rbx");
    with_pending!("STI, IN, CLI", 1, "sti", "in al, 0x21", "cli");

    // POPF has no shadow.
    reset();
    send_self(VECTOR);
    // SAFETY: sets the interrupt flag.
    unsafe { asm!("push 0x202", "popfq", "cli") };
    equal("POPF, CLI", taken().into(), 1);

    // A fault in the shadow ends it, and the handler runs with interrupts off.
    reset();
    send_self(VECTOR);
    // SAFETY: the fault is expected.
    let fault = expect_fault(|| unsafe { asm!("sti", "ud2") });
    cpu::cli();
    equal("STI, UD2", fault.map_or(0, |fault| fault.vector.0.into()), 6);
    equal("taken after the fault's handler", taken().into(), 1);
}

fn halt() {
    // It waits already: STI, HLT goes on at once.
    reset();
    send_self(VECTOR);
    cpu::wait_for_interrupt();
    equal("HLT with one waiting", taken().into(), 1);
    // Nothing waits but one that the task priority holds back, which must not wake it: the timer does.
    apic::write(arch::apic::Register::LVT_TIMER, 0xa1);
    interrupts::handle(0xa1, |frame| {
        note(frame);
        apic::eoi();
    });
    reset();
    cpu::write_cr8(9);
    send_self(VECTOR);
    apic::write(arch::apic::Register::INITIAL_COUNT, 20_000);
    cpu::wait_for_interrupt();
    equal("HLT with one held back", order(), 0xa1);
    cpu::write_cr8(0);
    cpu::take_interrupts();
    equal("let go", order(), 0xa1_91);
}

fn nmi() {
    static DEPTH: AtomicU32 = AtomicU32::new(0);
    static DEEPEST: AtomicU32 = AtomicU32::new(0);
    let send = || apic::send(apic::id(), 4 << 8 | 1 << 14);
    interrupts::handle(2, |frame| {
        note(frame);
        DEEPEST.fetch_max(DEPTH.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        if taken() == 1 {
            // Two more, of which one is kept until this handler's IRET.
            for _ in 0..2 {
                apic::send(apic::id(), 4 << 8 | 1 << 14);
                pm_timer::wait_microseconds(100);
            }
        }
        DEPTH.fetch_sub(1, Ordering::SeqCst);
    });
    reset();
    send();
    pm_timer::wait_microseconds(1_000);
    equal("NMIs, two in the handler of one", taken().into(), 2);
    equal("NMIs, nested", DEEPEST.load(Ordering::SeqCst).into(), 1);

    // It comes before an interrupt that waits, and its handler's interrupt flag is off.
    interrupts::handle(2, |frame| note(frame));
    reset();
    send_self(VECTOR);
    send();
    pm_timer::wait_microseconds(100);
    cpu::take_interrupts();
    equal("NMI, interrupt", order(), 0x02_91);
    interrupts::forget(2);
}
