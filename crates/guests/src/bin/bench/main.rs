//! What exits cost: prints `bench NAME TICKS` for each, TICKS being the average of [`ROUNDS`] rounds after a warm-up, less
//! what the loop itself takes; `bench-skip NAME` for what this machine does not have. Runs bare, under Nestling and under
//! KVM, where it ends through QEMU's isa-debug-exit.
#![no_std]
#![no_main]

mod nested;
mod switch;

use core::arch::{asm, global_asm};
use core::sync::atomic::{AtomicU64, Ordering};

use arch::apic::{DEFAULT_BASE, Register};
use arch::exception::Vector;
use arch::msr::Msr;
use guests::{apic, cpu, entry, expect_fault, interrupts, memory, msr, multiboot, pic, port, println};

entry!(main);

const WARM_UP: u64 = 20;
const ROUNDS: u64 = 200;
/// An MSR that no processor has.
const UNKNOWN_MSR: Msr = Msr(0x1234);
/// A port at which nobody answers.
const ABSENT_PORT: u16 = 0x0ffe;
/// The vector of the interrupts that the guest sends to itself.
const VECTOR: u8 = 0x50;

global_asm!(
    r#"
    // A #GP handler that does nothing but step over RDMSR or WRMSR, two bytes each: what is measured is the fault's way
    // through the hypervisor, not ours.
    .global skip_two_bytes
skip_two_bytes:
    add qword ptr [rsp + 8], 2
    add rsp, 8
    iretq

    // An interrupt handler for each mode that only ends the interrupt.
    .global end_in_xapic
end_in_xapic:
    push rax
    mov eax, 0xfee000b0
    mov dword ptr [rax], 0
    pop rax
    iretq
    .global end_in_x2apic
end_in_x2apic:
    push rax
    push rcx
    push rdx
    mov ecx, 0x80b
    xor eax, eax
    xor edx, edx
    wrmsr
    pop rdx
    pop rcx
    pop rax
    iretq
    "#
);

unsafe extern "C" {
    fn skip_two_bytes();
    fn end_in_xapic();
    fn end_in_x2apic();
}

fn main() {
    if let Some(rounds) = multiboot::number("round-trips") {
        // How many exits a round trip takes only the hypervisor below can count: this many, and nothing else.
        nested::only_round_trips(rounds.into());
        return;
    }
    pic::remap();
    if multiboot::arguments().any(|word| word == "vcpu-switch") {
        switch::measure();
        return;
    }
    // What the hypervisor logged until now has left.
    wait(50_000_000);
    processor();
    ports();
    xapic();
    x2apic();
    nested::all();
    println!("bench-done");
}

/// The average ticks of a round of `body`, with what a round of nothing takes.
#[inline(always)]
fn average(mut body: impl FnMut()) -> u64 {
    be_quiet();
    for _ in 0..WARM_UP {
        body();
    }
    let start = cpu::tsc();
    for _ in 0..ROUNDS {
        body();
    }
    (cpu::tsc() - start) / ROUNDS
}

/// Waits until what was printed last has left the hypervisor too: it takes the processor for each 16 characters, once a
/// millisecond. The longest line has 40.
fn be_quiet() {
    wait(500_000);
}

/// On the emulated machine a tick is 10 ns.
fn wait(ticks: u64) {
    let start = cpu::tsc();
    while cpu::tsc() - start < ticks {}
}

#[inline(always)]
fn measure(name: &str, body: impl FnMut()) {
    // An empty asm block keeps the loop from being optimised away.
    // SAFETY: no instruction.
    let nothing = average(|| unsafe { asm!("", options(nostack)) });
    println!("bench {name} {}", average(body).saturating_sub(nothing));
}

fn processor() {
    for (name, leaf) in [
        ("l1_cpuid", 0),
        ("cpuid_features", 1),
        ("cpuid_caches", 4),
        ("cpuid_extended_features", 7),
        ("cpuid_xsave", 0xd),
        ("cpuid_hypervisor", 0x4000_0000),
        ("cpuid_brand", 0x8000_0002),
    ] {
        measure(name, || {
            cpu::cpuid(leaf, 0);
        });
    }

    // A hypercall number that nobody knows is refused by all alike.
    // SAFETY: the registers a hypervisor may answer in are named.
    let vmcall = || unsafe {
        asm!("vmcall", inout("rax") 0x7fff_ffff_u64 => _, out("rcx") _, out("rdx") _, out("rsi") _, out("rdi") _);
    };
    match expect_fault(vmcall) {
        Some(fault) if fault.vector == Vector::UD => println!("bench-skip l1_vmcall"),
        _ => measure("l1_vmcall", vmcall),
    }

    if expect_fault(|| _ = msr::read(UNKNOWN_MSR)).is_some() {
        interrupts::set_gate(Vector::GP.0, skip_two_bytes as *const () as u64, 0);
        measure("rdmsr_unknown_gp", || _ = msr::read(UNKNOWN_MSR));
        measure("wrmsr_unknown_gp", || msr::write(UNKNOWN_MSR, 0));
        interrupts::restore_gate(Vector::GP.0);
    } else {
        println!("bench-skip rdmsr_unknown_gp");
        println!("bench-skip wrmsr_unknown_gp");
    }
    measure("rdmsr_apic_base", || _ = msr::read(Msr::APIC_BASE));
    measure("rdmsr_efer", || _ = msr::read(Msr::EFER));
    measure("wrmsr_star", || msr::write(Msr::STAR, 0));
    if cpu::cpuid(1, 0).ecx & 1 << 24 != 0 {
        apic::init();
        apic::write(Register::LVT_TIMER, apic::MASKED | apic::TSC_DEADLINE | u32::from(VECTOR));
        measure("wrmsr_tsc_deadline", || msr::write(Msr::TSC_DEADLINE, u64::MAX >> 1));
        msr::write(Msr::TSC_DEADLINE, 0);
    } else {
        println!("bench-skip wrmsr_tsc_deadline");
    }
    measure("rdtsc", || _ = cpu::tsc());
    measure("cr3_write", || cpu::write_cr3(cpu::cr3()));
    measure("cr4_toggle_pge", || cpu::write_cr4(cpu::cr4() ^ 1 << 7));
    measure("cr8_write", || cpu::write_cr8(0));
    measure("cr8_read", || _ = cpu::cr8());
    // SAFETY: writes back and empties the caches, which a guest may.
    measure("wbinvd", || unsafe { asm!("wbinvd", options(nostack)) });
    measure("invlpg", || {
        // SAFETY: drops a translation that the tables still have.
        unsafe { asm!("invlpg [{}]", in(reg) 0x20_0000_u64, options(nostack)) }
    });
}

fn ports() {
    measure("port_in_absent", || _ = port::in8(ABSENT_PORT));
    measure("port_in_emulated", || _ = port::in8(0x21));
    measure("port_in_pit", || _ = port::in8(0x40));
    measure("port_in_uart_status", || _ = port::in8(guests::console::COM1 + 5));
    measure("port_out_post80", || port::out8(0x80, 0));
}

fn xapic() {
    const NAMES: [&str; 5] = ["xapic_self_ipi", "xapic_eoi", "xapic_tpr_write", "xapic_id_read", "xapic_timer_arm"];
    if apic::is_x2apic() {
        NAMES.into_iter().for_each(|name| println!("bench-skip {name}"));
        return;
    }
    let write = |register: Register, value| memory::write_register(DEFAULT_BASE + u64::from(register.0), value);
    apic::init();
    interrupts::set_gate(VECTOR, end_in_xapic as *const () as u64, 0);
    cpu::sti();
    measure(NAMES[0], || write(Register::ICR, 0x4_4000 | u32::from(VECTOR)));
    measure(NAMES[1], || write(Register::EOI, 0));
    measure(NAMES[2], || write(Register::TPR, 0));
    measure(NAMES[3], || _ = memory::read_register(DEFAULT_BASE + u64::from(Register::ID.0)));
    apic::write(Register::LVT_TIMER, apic::MASKED | u32::from(VECTOR));
    measure(NAMES[4], || write(Register::INITIAL_COUNT, u32::MAX));
    write(Register::INITIAL_COUNT, 0);
    cpu::cli();
    hlt("xapic_");
    interrupts::restore_gate(VECTOR);
}

fn x2apic() {
    const NAMES: [&str; 4] = ["x2apic_self_ipi", "x2apic_eoi", "x2apic_tpr_write", "x2apic_id_read"];
    if !apic::has_x2apic() {
        NAMES.into_iter().for_each(|name| println!("bench-skip {name}"));
        return;
    }
    apic::enable_x2apic();
    apic::init();
    interrupts::set_gate(VECTOR, end_in_x2apic as *const () as u64, 0);
    cpu::sti();
    measure(NAMES[0], || msr::write(apic::x2apic_msr(Register::SELF_IPI), VECTOR.into()));
    measure(NAMES[1], || msr::write(apic::x2apic_msr(Register::EOI), 0));
    measure(NAMES[2], || msr::write(apic::x2apic_msr(Register::TPR), 0));
    measure(NAMES[3], || _ = msr::read(apic::x2apic_msr(Register::ID)));
    cpu::cli();
    hlt("x2apic_");
    interrupts::restore_gate(VECTOR);
}

/// How long after its deadline a timer interrupt reaches a processor that waits in HLT: ticks from the deadline to the
/// instruction after HLT, with the interrupt handler between them.
fn hlt(mode: &str) {
    /// Far enough to be asleep by then.
    const AHEAD: u64 = 50_000;
    static LATE: AtomicU64 = AtomicU64::new(0);
    if cpu::cpuid(1, 0).ecx & 1 << 24 == 0 {
        println!("bench-skip {mode}hlt_wake");
        return;
    }
    apic::write(Register::LVT_TIMER, apic::TSC_DEADLINE | u32::from(VECTOR));
    LATE.store(0, Ordering::Relaxed);
    be_quiet();
    for _ in 0..ROUNDS {
        let deadline = cpu::tsc() + AHEAD;
        msr::write(Msr::TSC_DEADLINE, deadline);
        cpu::wait_for_interrupt();
        LATE.fetch_add(cpu::tsc().saturating_sub(deadline), Ordering::Relaxed);
    }
    apic::write(Register::LVT_TIMER, apic::MASKED);
    println!("bench {mode}hlt_wake {}", LATE.load(Ordering::Relaxed) / ROUNDS);
}
