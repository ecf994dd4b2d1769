//! Instructions that reach a device's memory: on the APIC's page each is what it is on memory. The register they work on
//! is the TPR, which takes 8 bits.

use guests::memory::{read_register, write_register};
use guests::println;

use crate::{attempt, equal};

const TPR: u64 = 0xfee0_0080;
const VERSION: u64 = 0xfee0_0030;

/// Sets the TPR, runs the instructions with RDI on it and EAX as given, and compares TPR and EAX afterwards.
macro_rules! form {
    ($($instruction:literal)+, $tpr:literal, $eax:literal => $tpr_after:literal, $eax_after:literal) => {
        write_register(TPR, $tpr);
        let mut eax = u64::from($eax as u32);
        let fault = attempt!($($instruction),+, inout("rax") eax, inout("rdi") TPR => _, out("rcx") _);
        let tpr = read_register(TPR);
        write_register(TPR, 0);
        match fault {
            Some(fault) => println!(" {}: {fault}", concat!($($instruction, "; "),+)),
            None => equal(concat!($($instruction, "; "),+), u64::from(tpr) << 32 | eax, ($tpr_after << 32) | $eax_after),
        }
    };
}

pub(crate) fn all() {
    println!("device memory");
    form!("mov eax, [rdi]", 0x20, 0xffff_ffff => 0x20, 0x20);
    form!("mov [rdi], eax", 0, 0x30 => 0x30, 0x30);
    form!("mov dword ptr [rdi], 0x40", 0, 0 => 0x40, 0);
    form!("mov r8d, eax" "mov [rdi + 0], r8d" "mov ecx, [rdi]" "mov eax, ecx", 0, 0x50 => 0x50, 0x50);
    form!("sub rdi, 0x10" "mov ecx, 4" "mov eax, [rdi + rcx * 4]", 0x20, 0 => 0x20, 0x20);
    form!("mov eax, dword ptr ds:[0xfee00080]", 0x60, 0 => 0x60, 0x60);
    form!("and [rdi], eax", 0x70, 0x30 => 0x30, 0x30);
    form!("or [rdi], eax", 0x40, 0x30 => 0x70, 0x30);
    form!("xor dword ptr [rdi], 0x30", 0x50, 0 => 0x60, 0);
    form!("add dword ptr [rdi], 0x10", 0x50, 0 => 0x60, 0);
    form!("sub [rdi], eax", 0x50, 0x10 => 0x40, 0x10);
    form!("and eax, [rdi]", 0x50, 0x1f0 => 0x50, 0x50);
    form!("or eax, [rdi]", 0x50, 0x20 => 0x50, 0x70);
    form!("add eax, [rdi]", 0x50, 0x1 => 0x50, 0x51);
    form!("xchg [rdi], eax", 0x20, 0x80 => 0x80, 0x20);
    form!("cmp dword ptr [rdi], 0x20" "sete al", 0x20, 0 => 0x20, 1);
    form!("test dword ptr [rdi], 0x40" "setz al", 0x20, 0 => 0x20, 1);
    form!("stosd", 0, 0x90 => 0x90, 0x90);
    form!("push rsi" "mov rsi, rdi" "lodsd" "pop rsi", 0x20, 0 => 0x20, 0x20);
    form!("movzx eax, byte ptr [rdi]", 0x20, 0xffff_ffff => 0x20, 0x20);
    equal("version", u64::from(read_register(VERSION) & 0xf0), 0x10);
    equal("its highest LVT entry", u64::from((5..=6).contains(&(read_register(VERSION) >> 16 & 0xff))), 1);
    // IOAPIC: what is selected reads back, and so does the id.
    write_register(0xfec0_0000, 1);
    equal("IOAPIC, selected", read_register(0xfec0_0000).into(), 1);
    equal("IOAPIC, version", (read_register(0xfec0_0010) & 0xf0).into(), 0x10);
}
