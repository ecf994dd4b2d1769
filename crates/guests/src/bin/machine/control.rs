//! Control registers, debug registers and XCR0. SDM 3A "Control Registers"; SDM 2 "MOV—Move to/from Control Registers".

use guests::{cpu, expect_fault, println};

use crate::{attempt, equal, outcome};

pub(crate) fn all() {
    cr0();
    cr3();
    cr4();
    println!("CR8");
    cpu::write_cr8(0xf);
    equal("reads back", cpu::cr8(), 0xf);
    cpu::write_cr8(0);
    outcome("16", expect_fault(|| cpu::write_cr8(16)));
    xcr0();
    instructions();
}

/// Writes CR0 with bits changed, says how that ended and which of them changed; puts it back.
fn try_cr0(what: &str, flip: u64) {
    let before = cpu::cr0();
    let fault = expect_fault(|| cpu::write_cr0(before ^ flip));
    let after = cpu::cr0();
    cpu::write_cr0(before);
    match fault {
        Some(fault) => println!(" {what}: {fault}"),
        None => println!(" {what}: changed {:#x}", before ^ after),
    }
}

fn cr0() {
    println!("CR0");
    try_cr0("PE off", 1);
    try_cr0("PG off", 1 << 31);
    try_cr0("PE and PG off", 1 << 31 | 1);
    try_cr0("NW without CD", 1 << 29);
    try_cr0("CD", 1 << 30);
    try_cr0("CD and NW", 3 << 29);
    try_cr0("ET", 1 << 4);
    try_cr0("NE", 1 << 5);
    try_cr0("MP", 1 << 1);
    try_cr0("EM", 1 << 2);
    try_cr0("TS", 1 << 3);
    try_cr0("WP", 1 << 16);
    try_cr0("AM", 1 << 18);
    try_cr0("bit 32", 1 << 32);
    try_cr0("bit 63", 1 << 63);
    let before = cpu::cr0();
    // LMSW sets the low four bits but cannot clear PE; CLTS clears TS; SMSW shows them.
    let _ = attempt!("lmsw {:x}", in(reg) 0xe_u32);
    equal("LMSW cannot clear PE", (before ^ cpu::cr0()) & 0xf, (before & 0xf) ^ 0xf);
    let _ = attempt!("clts");
    equal("CLTS", cpu::cr0() & 8, 0);
    let mut word = 0_u64;
    let _ = attempt!("smsw {}", out(reg) word);
    equal("SMSW", word & 0xffff, cpu::cr0() & 0xffff);
    cpu::write_cr0(before | 1 << 3);
    outcome("x87 with TS", attempt!("fninit"));
    outcome("SSE with TS", attempt!("xorps xmm0, xmm0"));
    cpu::write_cr0(before & !(1 << 1) | 1 << 3);
    outcome("WAIT with TS, without MP", attempt!("fwait"));
    cpu::write_cr0(before | 1 << 1 | 1 << 3);
    outcome("WAIT with TS and MP", attempt!("fwait"));
    cpu::write_cr0(before | 1 << 2);
    outcome("x87 with EM", attempt!("fninit"));
    cpu::write_cr0(before);
}

fn cr3() {
    println!("CR3");
    let before = cpu::cr3();
    let width = cpu::cpuid(0x8000_0008, 0).eax & 0xff;
    outcome("written back", expect_fault(|| cpu::write_cr3(before)));
    outcome("PWT and PCD", expect_fault(|| cpu::write_cr3(before | 0x18)));
    equal("reads back", cpu::cr3(), before | 0x18);
    cpu::write_cr3(before);
    outcome("above the address width", expect_fault(|| cpu::write_cr3(before | 1 << width)));
    outcome("bit 63 without PCID", expect_fault(|| cpu::write_cr3(before | 1 << 63)));
    equal("unchanged", cpu::cr3(), before);
    if cpu::cpuid(1, 0).ecx & 1 << 17 != 0 {
        let pcide = 1 << 17;
        cpu::write_cr4(cpu::cr4() | pcide);
        let kept = expect_fault(|| cpu::write_cr3(before | 0x123));
        let read = cpu::cr3();
        let no_flush = expect_fault(|| cpu::write_cr3(before | 1 << 63 | 0x123));
        let hidden = cpu::cr3();
        let off = expect_fault(|| cpu::write_cr4(cpu::cr4() & !pcide));
        cpu::write_cr3(before);
        cpu::write_cr4(cpu::cr4() & !pcide);
        let right = kept.is_none() && no_flush.is_none() && read == before | 0x123 && hidden == read;
        println!(" PCID: {}", if right { "ok" } else { "not ok" });
        // PCIDE goes off whatever the PCID is; it goes on only while the PCID is 0.
        println!(" PCIDE off: {}", if off.is_none() { "ok" } else { "not ok" });
        cpu::write_cr3(before | 0x18);
        let on = expect_fault(|| cpu::write_cr4(cpu::cr4() | pcide));
        cpu::write_cr3(before);
        cpu::write_cr4(cpu::cr4() & !pcide);
        println!(" PCIDE on while CR3 has low bits: {}", if on.is_some() { "ok" } else { "not ok" });
    } else {
        println!(" PCID: ok\n PCIDE off: ok\n PCIDE on while CR3 has low bits: ok");
    }
}

fn cr4() {
    println!("CR4");
    let before = cpu::cr4();
    outcome("PAE off", expect_fault(|| cpu::write_cr4(before & !(1 << 5))));
    outcome("PSE", expect_fault(|| cpu::write_cr4(before ^ 1 << 4)));
    outcome("TSD", expect_fault(|| cpu::write_cr4(before ^ 1 << 2)));
    outcome("PCE", expect_fault(|| cpu::write_cr4(before ^ 1 << 8)));
    outcome("OSFXSR", expect_fault(|| cpu::write_cr4(before ^ 1 << 9)));
    outcome("LA57 in 64-bit mode", expect_fault(|| cpu::write_cr4(before ^ 1 << 12)));
    outcome("bit 15", expect_fault(|| cpu::write_cr4(before ^ 1 << 15)));
    outcome("bit 19", expect_fault(|| cpu::write_cr4(before ^ 1 << 19)));
    outcome("bit 26", expect_fault(|| cpu::write_cr4(before ^ 1 << 26)));
    outcome("bit 32", expect_fault(|| cpu::write_cr4(before ^ 1 << 32)));
    outcome("bit 63", expect_fault(|| cpu::write_cr4(before ^ 1 << 63)));
    cpu::write_cr4(before & !(1 << 9));
    outcome("SSE without OSFXSR", attempt!("xorps xmm0, xmm0"));
    cpu::write_cr4(before);
}

fn xcr0() {
    println!("XCR0");
    let before = cpu::cr4();
    cpu::write_cr4(before & !(1 << 18));
    outcome("XSETBV without OSXSAVE", set_xcr(0, 3));
    outcome("XGETBV without OSXSAVE", attempt!("xgetbv", in("rcx") 0, out("rax") _, out("rdx") _));
    cpu::write_cr4(before | 1 << 18);
    outcome("0", set_xcr(0, 0));
    outcome("1", set_xcr(0, 1));
    outcome("2", set_xcr(0, 2));
    outcome("3", set_xcr(0, 3));
    outcome("5, AVX without SSE", set_xcr(0, 5));
    outcome("bit 63", set_xcr(0, 1 << 63 | 3));
    outcome("bit 40", set_xcr(0, 1 << 40 | 3));
    outcome("bit 8", set_xcr(0, 1 << 8 | 3));
    outcome("bits 3 without 4", set_xcr(0, 1 << 3 | 3));
    outcome("bits 5 without 6 and 7", set_xcr(0, 1 << 5 | 7));
    outcome("register 1", set_xcr(1, 3));
    outcome("register ffffffff", set_xcr(0xffff_ffff, 3));
    let mut low = 0_u64;
    let _ = attempt!("xgetbv", in("rcx") 0, out("rax") low, out("rdx") _);
    equal("reads back", low, 3);
    outcome("XGETBV of 2", attempt!("xgetbv", in("rcx") 2, out("rax") _, out("rdx") _));
    outcome("AVX while off", attempt!("vaddps ymm0, ymm0, ymm0"));
    cpu::write_cr4(before);
}

fn set_xcr(register: u32, value: u64) -> Option<guests::Fault> {
    attempt!("xsetbv", in("rcx") register, in("rax") value & 0xffff_ffff, in("rdx") value >> 32)
}

/// Instructions of ring 0 and some that need a mode we are not in.
fn instructions() {
    println!("instructions");
    outcome("INVLPG", attempt!("invlpg [{}]", in(reg) 0x20_0000_u64));
    outcome("INVLPG of a non-canonical address", attempt!("invlpg [{}]", in(reg) 1_u64 << 62));
    outcome("WBINVD", attempt!("wbinvd"));
    outcome("PAUSE", attempt!("pause"));
    outcome("RDPMC of a counter that is not there", attempt!("rdpmc", in("rcx") 0x1234, out("rax") _, out("rdx") _));
    outcome("VMXON without VMXE", attempt!("vmxon [{}]", in(reg) &0_u64));
    outcome("VMREAD", attempt!("vmread {0}, {0}", inout(reg) 0_u64 => _));
    outcome("VMLAUNCH", attempt!("vmlaunch"));
    outcome("VMXOFF", attempt!("vmxoff"));
    outcome("INVEPT", attempt!("invept {}, [{}]", in(reg) 2_u64, in(reg) &[0_u64; 2]));
    outcome("INVVPID", attempt!("invvpid {}, [{}]", in(reg) 2_u64, in(reg) &[0_u64; 2]));
    outcome("RSM", attempt!("rsm"));
    outcome("GETSEC", attempt!("push rbx", "xor ebx, ebx", "getsec", "pop rbx", inout("rax") 0_u64 => _, out("rcx") _));
    outcome("SYSRET to ring 3 without SCE", attempt!("sysretq", in("rcx") 0, in("r11") 0));
    outcome("UD0", attempt!(".byte 0x0f, 0xff, 0xc0"));
    outcome("UD1", attempt!(".byte 0x0f, 0xb9, 0xc0"));
    outcome("UD2", attempt!("ud2"));
    outcome("LOCK NOP", attempt!(".byte 0xf0, 0x90"));
    outcome("MOV to CR1", attempt!(".byte 0x0f, 0x22, 0xc8"));
    outcome("MOV from CR5", attempt!(".byte 0x0f, 0x20, 0xe8", out("rax") _));
    outcome(
        "an instruction of 16 bytes",
        attempt!(
            ".byte 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x90"
        ),
    );
}
