//! What exits whatever the controls are: SDM 3C 26.1.2 "Instructions That Cause VM Exits Unconditionally". And what faults
//! instead: SDM 3C 26.1.1 "Relative Priority of Faults and VM Exits".

use guests::vmx::{L2, follow};
use guests::{cpu, expect_fault, println};

use crate::code;

pub(crate) fn all() {
    println!("always");
    let l2 = &mut L2::new(|| {});
    follow(l2, "nothing", || {});
    follow(l2, "CPUID", code!("push rbx", "cpuid", "pop rbx", out("rax") _, out("rcx") _, out("rdx") _));
    follow(l2, "INVD", code!("invd"));
    follow(l2, "XSETBV", || {
        cpu::write_cr4(cpu::cr4() | 1 << 18);
        code!("xsetbv", in("rcx") 0, in("rax") 3, in("rdx") 0)();
    });
    follow(l2, "VMCALL with a prefix", code!(".byte 0x48", "vmcall", inout("rax") 5_u64 => _));
    vmx_instructions(l2);
    faults(l2);
}

fn vmx_instructions(l2: &mut L2) {
    follow(l2, "VMCLEAR", code!("vmclear [rcx]", in("rcx") 0_u64));
    follow(l2, "VMPTRLD", code!("vmptrld gs:[rcx + rdx * 2]", in("rcx") 0_u64, in("rdx") 0_u64));
    follow(l2, "VMPTRST", code!("vmptrst [esi + edi * 8]", in("rsi") 0_u64, in("rdi") 0_u64));
    follow(l2, "VMXON", code!("vmxon [rsp + 8]"));
    follow(l2, "VMREAD", code!("vmread r9, r10", out("r9") _, in("r10") 0_u64));
    follow(l2, "VMREAD, memory", code!("vmread [r11], r10", in("r11") 0_u64, in("r10") 0_u64));
    follow(l2, "VMWRITE", code!("vmwrite rsi, rdi", in("rsi") 0_u64, in("rdi") 0_u64));
    follow(l2, "VMWRITE, memory", code!("vmwrite rsi, [r13 + r12]", in("rsi") 0_u64, in("r12") 0_u64, in("r13") 0_u64));
    follow(l2, "VMLAUNCH", code!("vmlaunch"));
    follow(l2, "VMRESUME", code!("vmresume"));
    follow(l2, "VMXOFF", code!("vmxoff"));
    follow(l2, "INVEPT", code!("invept rdx, [rcx]", in("rcx") 0_u64, in("rdx") 2_u64));
    follow(l2, "INVVPID", code!("invvpid r15, [r14]", in("r14") 0_u64, in("r15") 2_u64));
}

/// Prints in L2 what an instruction faults with: no exit is made.
macro_rules! fault {
    ($what:literal, $($asm:tt)*) => {
        // SAFETY: the instruction faults.
        match expect_fault(|| unsafe { core::arch::asm!($($asm)*) }) {
            Some(fault) => println!(" {}: {fault} in L2", $what),
            None => println!(" {}: done", $what),
        }
    };
}

fn faults(l2: &mut L2) {
    println!("faults rather than exits");
    l2.restart(|| {
        fault!("LOCK CPUID", ".byte 0xf0", "cpuid", out("rax") _, out("rcx") _, out("rdx") _);
        fault!("VMFUNC that is not enabled", ".byte 0x0f, 0x01, 0xd4");
        fault!("MOV to CR0 of what it does not take", "mov cr0, {}", in(reg) 1_u64 << 32);
        fault!("MOV to CR4 of what it does not take", "mov cr4, {}", in(reg) 1_u64 << 63);
        fault!("MOV to CR8 of 16", "mov cr8, {}", in(reg) 16_u64);
        fault!("UD2", "ud2");
        fault!("IN that is not denied", "in al, 0x21", out("al") _);
        // Bits that are fixed in VMX operation are fixed for guests too.
        fault!("CR0.NE off", "mov {0}, cr0", "and {0}, -33", "mov cr0, {0}", out(reg) _);
        fault!("CR4.VMXE off", "mov {0}, cr4", "and {0}, -0x2001", "mov cr4, {0}", out(reg) _);
    });
    println!(" L2: {}", l2.run());
}
