//! Accesses to control registers: SDM 3C 26.1.3 "Instructions That Cause VM Exits Conditionally", 26.3 "Changes to Instruction
//! Behavior in VMX Non-Root Operation".

use guests::vmx::{Current, L2, equal, follow};
use guests::{cpu, println};
use vmcs::Access;
use vmcs::controls::PrimaryBased;
use vmcs::fields::{
    CR0_GUEST_HOST_MASK, CR0_READ_SHADOW, CR3_TARGET_COUNT, CR3_TARGET_VALUE0, CR3_TARGET_VALUE2, CR4_GUEST_HOST_MASK,
    CR4_READ_SHADOW, GUEST_CR0, GUEST_CR3, GUEST_CR4,
};

use crate::code;

const MP: u64 = 1 << 1;
const EM: u64 = 1 << 2;
const TS: u64 = 1 << 3;
const AM: u64 = 1 << 18;
const TSD: u64 = 1 << 2;
const PGE: u64 = 1 << 7;

pub(crate) fn all() {
    cr0();
    cr4();
    cr3();
    cr8();
}

fn cr0() {
    println!("CR0: TS and AM are the host's, TS is 1 in the shadow");
    let l2 = &mut L2::new(|| {});
    let mut current = Current;
    current.write(CR0_GUEST_HOST_MASK, TS | AM);
    current.write(CR0_READ_SHADOW, TS);
    follow(l2, "MOV from CR0: TS, AM", || {
        equal("TS", cpu::cr0() & (TS | AM), TS);
    });
    follow(l2, "SMSW", || {
        let word: u64;
        // SAFETY: reads a register.
        unsafe { core::arch::asm!("smsw {}", out(reg) word) };
        equal("TS", word & TS, TS);
    });
    follow(l2, "MOV to CR0, MP changed", || cpu::write_cr0(cpu::cr0() ^ MP));
    equal("MP changed", current.read(GUEST_CR0) & MP, 0);
    follow(l2, "MOV to CR0, MP back", || cpu::write_cr0(cpu::cr0() ^ MP));
    follow(l2, "MOV to CR0, TS changed", code!("mov r9, cr0", "xor r9, 8", "mov cr0, r9", out("r9") _));
    follow(l2, "MOV to CR0, AM changed", code!("mov rcx, cr0", "xor rcx, 0x40000", "mov cr0, rcx", out("rcx") _));
    follow(l2, "CLTS: the shadow has TS", code!("clts"));
    follow(l2, "LMSW, TS and MP as in the shadow", code!("lmsw {:x}", in(reg) 0xb));
    follow(l2, "LMSW without TS", code!("lmsw {:x}", in(reg) 0x3));
    follow(l2, "LMSW, memory", code!("push 1", "lmsw [rsp]", "pop rax", out("rax") _));
    follow(l2, "LMSW, EM, which is the guest's", code!("lmsw {:x}", in(reg) 0xf));
    equal("EM is set", current.read(GUEST_CR0) & EM, EM);
    current.write(GUEST_CR0, current.read(GUEST_CR0) & !(EM | TS));
    current.write(CR0_READ_SHADOW, 0);
    follow(l2, "CLTS: the shadow has no TS", code!("clts"));
    follow(l2, "LMSW with TS", code!("lmsw {:x}", in(reg) 0xb));
    // With TS the host's and 1, the guest sees none but meets it.
    current.write(GUEST_CR0, current.read(GUEST_CR0) | TS);
    follow(l2, "x87 with a TS that is not shown", || {
        let fault = guests::expect_fault(code!("fninit"));
        equal("TS", cpu::cr0() & TS, 0);
        println!("  FNINIT: {}", fault.is_some_and(|fault| fault.vector.0 == 7));
    });
    current.write(GUEST_CR0, current.read(GUEST_CR0) & !TS);
    current.write(CR0_GUEST_HOST_MASK, 0);
    follow(l2, "nothing is the host's: TS, CLTS", || {
        cpu::write_cr0(cpu::cr0() | TS);
        code!("clts")();
        equal("TS", cpu::cr0() & TS, 0);
    });
    current.write(CR0_GUEST_HOST_MASK, u64::MAX);
    current.write(CR0_READ_SHADOW, 0x1234_5678_9abc_def0);
    follow(l2, "all is the host's", || equal("CR0", cpu::cr0(), 0x1234_5678_9abc_def0));
    follow(l2, "MOV to CR0 of what is shown", code!("mov rax, cr0", "mov cr0, rax", out("rax") _));
    follow(l2, "MOV to CR0 of something else", code!("mov cr0, rax", in("rax") 0x11_u64));
}

fn cr4() {
    println!("CR4: PGE is the host's, 1 in the shadow");
    let l2 = &mut L2::new(|| {});
    let mut current = Current;
    current.write(CR4_GUEST_HOST_MASK, PGE | 1 << 13);
    current.write(CR4_READ_SHADOW, PGE);
    follow(l2, "MOV from CR4", || equal("PGE and VMXE", cpu::cr4() & (PGE | 1 << 13), PGE));
    equal("PGE is off", current.read(GUEST_CR4) & PGE, 0);
    follow(l2, "TSD", || cpu::write_cr4(cpu::cr4() | TSD));
    equal("TSD is on", current.read(GUEST_CR4) & TSD, TSD);
    follow(l2, "TSD off", || cpu::write_cr4(cpu::cr4() & !TSD));
    follow(l2, "PGE off", code!("mov rdx, cr4", "and rdx, -129", "mov cr4, rdx", out("rdx") _));
    follow(l2, "VMXE on", code!("mov r15, cr4", "or r15, 0x2000", "mov cr4, r15", out("r15") _));
}

fn cr3() {
    println!("CR3");
    let l2 = &mut L2::new(|| {});
    let mut current = Current;
    follow(l2, "written back", || cpu::write_cr3(cpu::cr3()));
    l2.control(|controls| controls.primary |= PrimaryBased::CR3_LOAD_EXITING);
    follow(l2, "load exiting", code!("mov r8, cr3", "mov cr3, r8", out("r8") _));
    current.write(CR3_TARGET_COUNT, 1);
    current.write(CR3_TARGET_VALUE0, cpu::cr3());
    current.write(CR3_TARGET_VALUE2, cpu::cr3() | 0x18);
    follow(l2, "a target value", code!("mov r8, cr3", "mov cr3, r8", out("r8") _));
    let other = code!("mov r8, cr3", "or r8, 0x18", "mov cr3, r8", out("r8") _);
    follow(l2, "a value beyond the count", other);
    current.write(CR3_TARGET_COUNT, 3);
    follow(l2, "the third target value", other);
    equal("PWT and PCD", current.read(GUEST_CR3) & 0x18, 0x18);
    current.write(GUEST_CR3, cpu::cr3());
    l2.control(|controls| {
        controls.primary -= PrimaryBased::CR3_LOAD_EXITING;
        controls.primary |= PrimaryBased::CR3_STORE_EXITING;
    });
    follow(l2, "store exiting", code!("mov rsi, cr3", out("rsi") _));
}

fn cr8() {
    println!("CR8");
    let l2 = &mut L2::new(|| {});
    follow(l2, "neither", || cpu::write_cr8(cpu::cr8()));
    l2.control(|controls| controls.primary |= PrimaryBased::CR8_LOAD_EXITING);
    follow(l2, "load exiting", code!("mov rax, cr8", "mov cr8, r11", out("rax") _, in("r11") 0_u64));
    l2.control(|controls| controls.primary |= PrimaryBased::CR8_STORE_EXITING);
    follow(l2, "and store exiting", code!("mov r12, cr8", "mov cr8, rdi", out("r12") _, in("rdi") 0_u64));
    // An exit comes before the fault of a value that CR8 does not take.
    follow(l2, "load of 16", || _ = guests::expect_fault(code!("mov cr8, rcx", in("rcx") 16_u64)));
}
