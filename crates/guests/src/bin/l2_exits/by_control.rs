//! What exits when a control says so: SDM 3C 26.1.3 "Instructions That Cause VM Exits Conditionally".

use guests::vmx::{Controls, L2, equal, follow};
use guests::{cpu, expect_fault, print, println};
use vmcs::controls::{PrimaryBased, SecondaryBased};

use crate::code;

/// Runs `code` without a control and with it.
fn with(l2: &mut L2, what: &str, change: fn(&mut Controls), code: fn()) {
    print!(" off,");
    follow(l2, what, code);
    on(l2, what, change, code);
}

/// Runs `code` with a control.
fn on(l2: &mut L2, what: &str, change: fn(&mut Controls), code: fn()) {
    let before = l2.controls;
    if l2.control(change) {
        print!(" on,");
        follow(l2, what, code);
        l2.control(|controls| *controls = before);
    } else {
        println!(" on, {what}: not offered");
    }
}

pub(crate) fn all() {
    println!("by control");
    let l2 = &mut L2::new(|| {});
    on(l2, "HLT", |c| c.primary |= PrimaryBased::HLT_EXITING, code!("hlt"));
    with(l2, "INVLPG", |c| c.primary |= PrimaryBased::INVLPG_EXITING, code!("invlpg [{}]", in(reg) 0x20_0000_u64));
    with(l2, "RDTSC", |c| c.primary |= PrimaryBased::RDTSC_EXITING, code!("rdtsc", out("rax") _, out("rdx") _));
    with(l2, "PAUSE", |c| c.primary |= PrimaryBased::PAUSE_EXITING, code!("pause"));
    on(
        l2,
        "RDPMC",
        |c| c.primary |= PrimaryBased::RDPMC_EXITING,
        code!("rdpmc", in("rcx") 0, out("rax") _, out("rdx") _),
    );
    let monitor = code!("monitor", in("rax") 0x9000_u64, in("rcx") 0, in("rdx") 0);
    // Without the controls they are only executed where CPUID shows them, which a hypervisor may not.
    on(l2, "MONITOR", |c| c.primary |= PrimaryBased::MONITOR_EXITING, monitor);
    on(l2, "MWAIT", |c| c.primary |= PrimaryBased::MWAIT_EXITING, code!("mwait", in("rax") 0, in("rcx") 0));
    with(l2, "MOV from DR", |c| c.primary |= PrimaryBased::MOV_DR_EXITING, code!("mov rsi, dr7", out("rsi") _));
    with(l2, "MOV to DR", |c| c.primary |= PrimaryBased::MOV_DR_EXITING, code!("mov dr3, r9", in("r9") 0_u64));
    let rdtscp = code!("rdtscp", out("rax") _, out("rcx") _, out("rdx") _);
    on(l2, "RDTSCP", |c| c.secondary |= SecondaryBased::ENABLE_RDTSCP, rdtscp);
    let change = |c: &mut Controls| {
        c.secondary |= SecondaryBased::ENABLE_RDTSCP;
        c.primary |= PrimaryBased::RDTSC_EXITING;
    };
    on(l2, "RDTSCP with RDTSC exiting", change, rdtscp);
    with(l2, "WBINVD", |c| c.secondary |= SecondaryBased::WBINVD_EXITING, code!("wbinvd"));
    random(l2);
    invpcid(l2);
    descriptor_tables(l2);
    vmfunc(l2);
}

fn random(l2: &mut L2) {
    if cpu::cpuid(1, 0).ecx & 1 << 30 != 0 {
        let change = |c: &mut Controls| c.secondary |= SecondaryBased::RDRAND_EXITING;
        with(l2, "RDRAND EDX", change, code!("rdrand edx", out("rdx") _));
        on(l2, "RDRAND R12", change, code!("rdrand r12", out("r12") _));
    }
    if cpu::cpuid(7, 0).ebx & 1 << 18 != 0 {
        let change = |c: &mut Controls| c.secondary |= SecondaryBased::RDSEED_EXITING;
        with(l2, "RDSEED RAX", change, code!("rdseed rax", out("rax") _));
    }
}

fn invpcid(l2: &mut L2) {
    let code = code!("push 0", "push 0", "invpcid rdx, [rsp]", "add rsp, 16", in("rdx") 2_u64);
    on(l2, "INVPCID", |c| c.secondary |= SecondaryBased::ENABLE_INVPCID, code);
    let change = |c: &mut Controls| {
        c.secondary |= SecondaryBased::ENABLE_INVPCID;
        c.primary |= PrimaryBased::INVLPG_EXITING;
    };
    on(l2, "INVPCID with INVLPG exiting", change, code);
}

fn descriptor_tables(l2: &mut L2) {
    let change = |c: &mut Controls| c.secondary |= SecondaryBased::DESCRIPTOR_TABLE_EXITING;
    with(l2, "SGDT", change, code!("sub rsp, 16", "sgdt [rsp]", "add rsp, 16"));
    with(
        l2,
        "SIDT and LIDT",
        change,
        code!("sub rsp, 16", "sidt [rsp]", "mov rcx, rsp", "lidt [rcx]", "add rsp, 16", out("rcx") _),
    );
    on(l2, "LGDT", change, code!("lgdt [r8 + rdx * 4 + 0x10]", in("r8") 0_u64, in("rdx") 0_u64));
    with(l2, "SLDT", change, code!("sldt ecx", out("rcx") _));
    with(l2, "STR", change, code!("str r10w", out("r10") _));
    with(l2, "STR, memory", change, code!("push 0", "str [rsp]", "pop rax", out("rax") _));
    with(l2, "LLDT", change, code!("lldt {:x}", in(reg) 0));
    on(l2, "LTR", change, code!("ltr bp"));
}

/// VMFUNC exits unless it does what it is asked for: SDM 3C 26.5.6.2 "General Operation of the VMFUNC Instruction".
fn vmfunc(l2: &mut L2) {
    let change = |c: &mut Controls| c.secondary |= SecondaryBased::ENABLE_VM_FUNCTIONS;
    on(l2, "VMFUNC 0, not enabled", change, code!(".byte 0x0f, 0x01, 0xd4", in("rax") 0, in("rcx") 0));
    on(l2, "VMFUNC 63", change, code!(".byte 0x0f, 0x01, 0xd4", in("rax") 63, in("rcx") 0));
    on(l2, "VMFUNC 64", change, || {
        let fault = expect_fault(code!(".byte 0x0f, 0x01, 0xd4", in("rax") 64, in("rcx") 0));
        equal("vector", fault.map_or(0, |fault| fault.vector.0.into()), 6);
    });
}
