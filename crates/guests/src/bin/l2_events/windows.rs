//! Interrupt windows, and what blocks interrupts: SDM 3C 26.2 "Other Causes of VM Exits", 25.4.2 "Guest Non-Register State".

use core::arch::asm;

use guests::println;
use guests::vmx::{Current, L2, equal, follow};
use vmcs::Access;
use vmcs::controls::PrimaryBased;
use vmcs::fields::{GUEST_INTERRUPTIBILITY_INFO, GUEST_RFLAGS, GUEST_RIP};

use crate::INTERRUPTS_ON;

pub(crate) fn all() {
    println!("interrupt window");
    let l2 = &mut L2::new(|| {});
    let mut current = Current;
    l2.control(|controls| controls.primary |= PrimaryBased::INTERRUPT_WINDOW_EXITING);
    follow(l2, "interrupts off", || {});
    l2.restart(|| {});
    current.write(GUEST_RFLAGS, INTERRUPTS_ON);
    let start = current.read(GUEST_RIP);
    println!(" interrupts on: {}", l2.run());
    equal("before the first instruction", current.read(GUEST_RIP), start);
    for (what, blocking) in [("STI", 1), ("MOV SS", 2)] {
        l2.restart(|| {});
        current.write(GUEST_RFLAGS, INTERRUPTS_ON);
        current.write(GUEST_INTERRUPTIBILITY_INFO, blocking);
        println!(" while {what} blocks: {}", l2.run());
        // The first instruction of an L2 is a call.
        equal("after the first instruction", u64::from(current.read(GUEST_RIP) != start), 1);
        equal("nothing blocks", current.read(GUEST_INTERRUPTIBILITY_INFO).into(), 0);
    }
    // STI's shadow: the exit comes after the NOP.
    follow(l2, "STI", || {
        // SAFETY: nothing interrupts.
        unsafe { asm!("sti", "nop", "nop", "cli") };
    });
    l2.control(|controls| controls.primary -= PrimaryBased::INTERRUPT_WINDOW_EXITING);

    println!("what blocks when an instruction exits");
    let mut blocked = |what: &str, code: fn()| {
        l2.restart(code);
        println!(" {what}: {}", l2.run());
        println!("  blocking {:#x}", current.read(GUEST_INTERRUPTIBILITY_INFO));
        l2.skip();
        current.write(GUEST_INTERRUPTIBILITY_INFO, 0);
        println!("  then {}", l2.run());
    };
    blocked("CPUID", || cpuid!());
    blocked("CPUID after STI", || cpuid!("sti"));
    blocked("CPUID after STI with interrupts on", || cpuid!("sti\n nop\n sti"));
    blocked("CPUID after MOV SS", || cpuid!("mov eax, ss\n mov ss, eax"));
    blocked("CPUID after STI and NOP", || cpuid!("sti\n nop"));
}

/// CPUID after other instructions.
macro_rules! cpuid {
    ($($before:literal)?) => {
        // SAFETY: nothing interrupts.
        unsafe {
            asm!(
                "push rbx",
                $($before,)?
                "cpuid",
                "cli",
                "pop rbx",
                out("rax") _, out("rcx") _, out("rdx") _,
            )
        }
    };
}
use cpuid;
