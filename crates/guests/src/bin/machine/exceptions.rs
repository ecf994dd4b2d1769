//! Exceptions in ring 0 and what they leave: vector, error code and whether RIP is before or behind the instruction.

use guests::entry::{CODE64, DATA};
use guests::{Fault, cpu, memory, println};

use crate::{attempt, equal, outcome};

/// The first descriptor of the GDT that a guest may use.
const FREE: u16 = 0x50;

unsafe extern "C" {
    static gdt: u8;
}

pub(crate) fn all() {
    println!("exceptions");
    let dividend = 1_u64;
    outcome("division by zero", attempt!("div {}", in(reg) 0_u64, inout("rax") dividend => _, inout("rdx") 0_u64 => _));
    outcome(
        "quotient too large",
        attempt!("div {}", in(reg) 1_u64, inout("rax") dividend => _, inout("rdx") 1_u64 => _),
    );
    // INT3 and INT1 are traps: RIP is behind the instruction, which is one byte.
    length("INT3", attempt!("lea r15, [rip]", "int3", out("r15") _), 1);
    length("INT1", attempt!("lea r15, [rip]", ".byte 0xf1", out("r15") _), 1);
    length("INT 3, two bytes", attempt!("lea r15, [rip]", ".byte 0xcd, 3", out("r15") _), 2);
    outcome("not canonical, data", attempt!("mov {}, [{}]", out(reg) _, in(reg) 1_u64 << 62));
    outcome(
        "not canonical, stack",
        attempt!("mov rcx, rsp", "mov rsp, {}", "push rax", in(reg) 1_u64 << 62, out("rcx") _),
    );
    outcome("not canonical, jump", attempt!("jmp {}", in(reg) 1_u64 << 62));
    cpu::write_cr4(cpu::cr4() | 1 << 9);
    outcome("MOVAPS, not aligned", attempt!("movaps xmm0, [{}]", in(reg) 0x20_0008_u64));
    cpu::write_cr4(cpu::cr4() & !(1 << 9));
    selectors();
    debug_registers();
}

/// Where RIP was behind the end of the LEA that began the block; R15 held that.
fn length(what: &str, fault: Option<Fault>, wanted: u64) {
    outcome(what, fault);
    let Some(fault) = fault else { return };
    // The block begins with the seven bytes of LEA; its last byte says where it is.
    let opcode: u8 = memory::read(fault.rip - wanted);
    equal("RIP behind it", u64::from(matches!(opcode, 0xcc | 0xf1 | 0xcd)), 1);
}

fn selectors() {
    println!("selectors");
    let descriptor = &raw const gdt as u64 + u64::from(FREE);
    // Out of reset the LDT is not null but 64 KiB at 0; what the loader leaves is its own affair.
    outcome("LLDT of null", attempt!("lldt {:x}", in(reg) 0_u32));
    outcome("DS, beyond the GDT", attempt!("mov ds, {:x}", in(reg) 0xfff8_u32));
    outcome("DS, null", attempt!("mov ds, {:x}", in(reg) 0_u32));
    outcome("DS, from the LDT that is not there", attempt!("mov ds, {:x}", in(reg) 0x14_u32));
    outcome("SS, a code segment", attempt!("mov ss, {:x}", in(reg) u32::from(CODE64)));
    outcome("SS, ring 3", attempt!("mov ss, {:x}", in(reg) 0x33_u32));
    // Data, writable, not present.
    memory::write(descriptor, 0x00cf_1300_0000_ffff_u64);
    outcome("ES, not present", attempt!("mov es, {:x}", in(reg) u32::from(FREE)));
    outcome("SS, not present", attempt!("mov ss, {:x}", in(reg) u32::from(FREE)));
    // Code that can be executed only.
    memory::write(descriptor, 0x00cf_9900_0000_ffff_u64);
    outcome("ES, execute only", attempt!("mov es, {:x}", in(reg) u32::from(FREE)));
    outcome("far return to a data segment", attempt!("push {}", "push 0", "retfq", in(reg) u64::from(DATA)));
    outcome("far return beyond the GDT", attempt!("push {}", "push 0", "retfq", in(reg) 0xff8_u64));
    outcome("LTR of a data segment", attempt!("ltr {:x}", in(reg) u32::from(DATA)));
    outcome("LTR of the busy one", attempt!("ltr {:x}", in(reg) u32::from(guests::entry::TSS)));
    outcome("LLDT of a code segment", attempt!("lldt {:x}", in(reg) u32::from(CODE64)));
    outcome("INT of a gate beyond the IDT", beyond_idt());
    memory::write(descriptor, 0_u64);
    let _ = attempt!("mov ds, {0:x}", "mov es, {0:x}", "mov ss, {0:x}", in(reg) u32::from(DATA));
}

/// With an IDT of 32 gates, vector 0x80 has none.
fn beyond_idt() -> Option<Fault> {
    let mut pointer = [0_u8; 10];
    let _ = attempt!("sidt [{}]", in(reg) &mut pointer);
    let mut short = pointer;
    short[..2].copy_from_slice(&511_u16.to_le_bytes());
    let _ = attempt!("lidt [{}]", in(reg) &short);
    let fault = attempt!("int 0x80");
    let _ = attempt!("lidt [{}]", in(reg) &pointer);
    fault
}

/// Breakpoints and the registers themselves. SDM 3B "Debug Registers".
fn debug_registers() {
    println!("debug registers");
    static WATCHED: u64 = 0;
    let watched = &raw const WATCHED as u64;
    cpu::write_dr6(0xffff_0ff0);
    cpu::write_dr7(0x400);
    equal("DR7, as reset", cpu::dr7(), 0x400);
    outcome("DR7, bit 32", guests::expect_fault(|| cpu::write_dr7(0x400 | 1 << 32)));
    outcome("DR6, bit 32", guests::expect_fault(|| cpu::write_dr6(1 << 32)));
    cpu::write_dr7(0);
    equal("DR7, bit 10 is one", cpu::dr7(), 0x400);
    cpu::write_dr0(0x1234_5678);
    equal("DR0 reads back", cpu::dr0(), 0x1234_5678);
    // DR4 is another name for DR6 while CR4.DE is off.
    outcome("DR4 without DE", attempt!(".byte 0x0f, 0x21, 0xe0", out("rax") _));
    cpu::write_cr4(cpu::cr4() | 1 << 3);
    outcome("DR4 with DE", attempt!(".byte 0x0f, 0x21, 0xe0", out("rax") _));
    cpu::write_cr4(cpu::cr4() & !(1 << 3));

    cpu::write_dr0(watched);
    let breakpoint = |what: &str, dr7: u64, action: &dyn Fn() -> Option<Fault>| {
        cpu::write_dr6(0xffff_0ff0);
        cpu::write_dr7(dr7);
        let fault = action();
        cpu::write_dr7(0x400);
        outcome(what, fault);
        equal("DR6", cpu::dr6() & 0xf, fault.map_or(0, |_| 1));
    };
    // Length 8, for writes, and for reads and writes.
    breakpoint("write watched, read", 0x9_0402, &|| attempt!("mov {}, [{}]", out(reg) _, in(reg) watched));
    breakpoint("write watched, written", 0x9_0402, &|| attempt!("mov qword ptr [{}], 0", in(reg) watched));
    breakpoint("access watched, read", 0xb_0402, &|| attempt!("mov {}, [{}]", out(reg) _, in(reg) watched));
    breakpoint("its neighbour", 0xb_0402, &|| attempt!("mov {}, [{}]", out(reg) _, in(reg) watched + 8));
    breakpoint("off", 0xb_0400, &|| attempt!("mov {}, [{}]", out(reg) _, in(reg) watched));
    cpu::write_dr0(target as *const () as u64);
    breakpoint("execution", 0x402, &|| guests::expect_fault(target));
    cpu::write_dr6(0xffff_0ff0);
    cpu::write_dr7(0x2400);
    outcome("GD: MOV from DR7", guests::expect_fault(|| _ = cpu::dr7()));
    equal("DR6", cpu::dr6() & 0x2000, 0x2000);
    equal("the exception cleared GD", cpu::dr7(), 0x400);
    cpu::write_dr6(0xffff_0ff0);
}

#[inline(never)]
fn target() {
    // SAFETY: does nothing.
    unsafe { core::arch::asm!("nop") }
}
