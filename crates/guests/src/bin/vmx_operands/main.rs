//! The faults of VMX instructions: where their operand lies, privilege, and mode.
#![no_std]
#![no_main]

mod privilege;

use arch::msr::Msr;
use guests::vmx::instructions::{outcome, vmclear, vmptrld};
use guests::vmx::{equal, pages, setup, show};
use guests::{cpu, entry, expect_fault, memory, msr, println, vmx_flags};
use vmcs::fields::GUEST_CR3;

entry!(main);

/// A linear address that the first 4 GiB do not have, and the page after it.
const AT: u64 = 1 << 32;
const NEXT: u64 = AT + 4096;
const NOT_CANONICAL: u64 = 1 << 62;
const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;

unsafe extern "C" {
    static boot_pdpt: u8;
}

fn main() {
    setup::require();
    setup::on();
    let region = setup::region();
    let _ = vmclear(region);
    let _ = vmptrld(region);
    addresses(region);
    page_faults(region);
    privilege::all();
    println!("done");
}

/// Every instruction with a memory operand, at `address`.
fn each(address: u64) {
    let cr3 = u64::from(GUEST_CR3.encoding().0);
    show("VMCLEAR", || outcome(vmx_flags!("vmclear [rcx]", in("rcx") address)));
    show("VMPTRLD", || outcome(vmx_flags!("vmptrld [rcx]", in("rcx") address)));
    show("VMPTRST", || outcome(vmx_flags!("vmptrst [rcx]", in("rcx") address)));
    show("VMREAD", || outcome(vmx_flags!("vmread [rcx], rdx", in("rcx") address, in("rdx") cr3)));
    show("VMWRITE", || outcome(vmx_flags!("vmwrite rdx, [rcx]", in("rcx") address, in("rdx") cr3)));
    show("INVEPT", || outcome(vmx_flags!("invept rdx, [rcx]", in("rcx") address, in("rdx") 2_u64)));
    show("INVVPID", || outcome(vmx_flags!("invvpid rdx, [rcx]", in("rcx") address, in("rdx") 2_u64)));
}

fn addresses(region: u64) {
    println!("not canonical");
    each(NOT_CANONICAL);
    println!("not canonical, by way of SS");
    show("VMPTRST", || outcome(vmx_flags!("xchg rbp, rcx\n vmptrst [rbp]\n xchg rbp, rcx", in("rcx") NOT_CANONICAL)));
    show("VMCLEAR", || outcome(vmx_flags!("xchg rbp, rcx\n vmclear [rbp]\n xchg rbp, rcx", in("rcx") NOT_CANONICAL)));
    println!("the last byte is not canonical");
    show("VMCLEAR", || outcome(vmx_flags!("vmclear [rcx]", in("rcx") (1_u64 << 47) - 7)));
    show("INVEPT", || outcome(vmx_flags!("invept rdx, [rcx]", in("rcx") (1_u64 << 47) - 8, in("rdx") 2_u64)));
    // FS and GS have a base in 64-bit mode; a 32-bit address is cut to 32 bits.
    println!("address forms");
    let mut value = [0_u64; 2];
    let place = &raw mut value[1] as u64;
    msr::write(Msr::GS_BASE, place - 0x100);
    show("VMPTRST by GS", || outcome(vmx_flags!("vmptrst gs:[rcx]", in("rcx") 0x100_u64)));
    msr::write(Msr::GS_BASE, 0);
    equal("stored", value[1], region);
    value[1] = 0;
    show("VMPTRST, index and displacement", || {
        outcome(vmx_flags!("vmptrst [rcx + rdx * 4 - 0x40]", in("rcx") place, in("rdx") 0x10_u64))
    });
    equal("stored", value[1], region);
    value[1] = 0;
    show("VMPTRST, 32-bit address", || outcome(vmx_flags!("vmptrst [ecx]", in("rcx") place | 0x7777 << 32)));
    equal("stored", value[1], region);
    show("VMPTRST, relative to RIP", || {
        let loaded: u64;
        let result = outcome(vmx_flags!(
            "jmp 3f\n 2: .quad 0\n 3: vmptrst [rip + 2b]\n mov rcx, [rip + 2b]", out("rcx") loaded
        ));
        equal("stored", loaded, region);
        result
    });
}

/// Maps one page of 4 KiB at [`AT`], and none at [`NEXT`].
fn map(bits: u64) -> u64 {
    let [directory, table, page] = [pages::take(), pages::take(), pages::take()];
    memory::write(&raw const boot_pdpt as u64 + 8 * (AT >> 30), directory | 3);
    memory::write(directory, table | 3);
    memory::write(table, if bits == 0 { 0 } else { page | bits });
    cpu::write_cr3(cpu::cr3());
    table
}

fn page_faults(region: u64) {
    println!("not present");
    map(0);
    each(AT);
    let fault = expect_fault(|| _ = outcome(vmx_flags!("vmptrst [rcx]", in("rcx") AT + 8)));
    equal("CR2", fault.map_or(0, |fault| fault.cr2), AT + 8);
    println!("read-only");
    let table = map(PRESENT | WRITABLE);
    memory::write(AT, [region, 0]);
    memory::write(table, memory::read::<u64>(table) & !WRITABLE);
    cpu::write_cr3(cpu::cr3());
    show("VMPTRLD", || outcome(vmx_flags!("vmptrld [rcx]", in("rcx") AT)));
    show("VMPTRST", || outcome(vmx_flags!("vmptrst [rcx]", in("rcx") AT)));
    let cr3 = u64::from(GUEST_CR3.encoding().0);
    show("VMREAD", || outcome(vmx_flags!("vmread [rcx], rdx", in("rcx") AT, in("rdx") cr3)));
    show("VMWRITE", || outcome(vmx_flags!("vmwrite rdx, [rcx]", in("rcx") AT, in("rdx") cr3)));
    show("INVEPT", || outcome(vmx_flags!("invept rdx, [rcx]", in("rcx") AT + 8, in("rdx") 2_u64)));
    println!("across the end of what is present");
    show("VMPTRST", || outcome(vmx_flags!("vmptrst [rcx]", in("rcx") NEXT - 4)));
    let fault = expect_fault(|| _ = outcome(vmx_flags!("vmptrld [rcx]", in("rcx") NEXT - 4)));
    equal("CR2 of VMPTRLD", fault.map_or(0, |fault| fault.cr2), NEXT);
    let fault = expect_fault(|| _ = outcome(vmx_flags!("invept rdx, [rcx]", in("rcx") NEXT - 8, in("rdx") 2_u64)));
    equal("CR2 of INVEPT", fault.map_or(0, |fault| fault.cr2), NEXT);
    println!("a field that does not exist, memory that is missing");
    show("VMREAD", || outcome(vmx_flags!("vmread [rcx], rdx", in("rcx") NEXT, in("rdx") 0x6ffe_u64)));
    memory::write(&raw const boot_pdpt as u64 + 8 * (AT >> 30), 0_u64);
    cpu::write_cr3(cpu::cr3());
}
