//! Single-stepping, also over instructions that a hypervisor emulates: each has to be followed by its own debug
//! exception, with RIP behind it. SDM 3B "Single-Step Exception Condition".

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};

use guests::{cpu, interrupts, println};

use crate::equal;

/// Debug exceptions taken, and the lengths of the instructions before them: the first in the highest digit.
static STEPS: AtomicU64 = AtomicU64::new(0);
static LENGTHS: AtomicU64 = AtomicU64::new(0);
static LAST: AtomicU64 = AtomicU64::new(0);
static DR6: AtomicU64 = AtomicU64::new(0);

macro_rules! step {
    ($what:literal, $lengths:literal, $($instruction:literal),+) => {
        start();
        // SAFETY: the handler of the debug exception is set; the instructions change RAX, RCX and RDX only.
        unsafe {
            asm!(
                "push rbx",
                "pushfq",
                "or qword ptr [rsp], 0x100",
                "popfq",
                $($instruction),+,
                "pushfq",
                "and qword ptr [rsp], ~0x100",
                "popfq",
                "pop rbx",
                out("rax") _, out("rcx") _, out("rdx") _,
            );
        }
        // The last three steps are over what ends them.
        let lengths = LENGTHS.load(Ordering::SeqCst) >> 12;
        println!("  {}: {} steps", $what, STEPS.load(Ordering::SeqCst));
        equal("lengths", lengths, $lengths);
    };
}

fn start() {
    for value in [&STEPS, &LENGTHS, &LAST] {
        value.store(0, Ordering::SeqCst);
    }
}

pub(crate) fn all() {
    println!("single steps");
    interrupts::handle(1, |frame| {
        let last = LAST.swap(frame.rip, Ordering::SeqCst);
        let length = if last == 0 { 0 } else { frame.rip.wrapping_sub(last) & 0xf };
        STEPS.fetch_add(1, Ordering::SeqCst);
        LENGTHS.store(LENGTHS.load(Ordering::SeqCst) << 4 | length, Ordering::SeqCst);
        DR6.store(cpu::dr6(), Ordering::SeqCst);
    });
    cpu::write_dr6(0xffff_0ff0);
    step!("NOP, NOP", 0x01, "nop", "nop");
    equal("DR6", DR6.load(Ordering::SeqCst) & 0x4000, 0x4000);
    step!("CPUID", 0x022, "xor eax, eax", "xor ecx, ecx", "cpuid");
    step!("RDTSC", 0x02, "nop", "rdtsc");
    step!("IN, OUT", 0x022, "nop", "in al, 0x21", "out 0x21, al");
    step!("RDMSR, WRMSR", 0x022, "mov ecx, 0x1b", "rdmsr", "wrmsr");
    step!("MOV CR8", 0x044, "nop", "mov rax, cr8", "mov cr8, rax");
    step!("MOV CR3", 0x033, "nop", "mov rax, cr3", "mov cr3, rax");
    step!("MOV CR0", 0x033, "nop", "mov rax, cr0", "mov cr0, rax");
    step!("APIC access", 0x022, "mov eax, 0xfee00080", "mov ecx, [rax]", "mov [rax], ecx");
    step!("IOAPIC access", 0x02, "mov eax, 0xfec00010", "mov ecx, [rax]");
    step!(
        "REP INSB, a step for each",
        0x555_0021,
        "push rdi",
        "lea rdi, [rsp - 64]",
        "mov edx, 0x21",
        "mov ecx, 3",
        "rep insb",
        "pop rdi"
    );
    // MOV SS holds the exception back until the instruction after it.
    step!("MOV SS, NOP", 0x31, "mov eax, ss", "mov ss, eax", "nop", "nop");
    cpu::write_dr6(0xffff_0ff0);
    interrupts::forget(1);
}
