//! The VMX instructions, each with what it refuses: SDM 3C, "VMX Instruction Reference".
#![no_std]
#![no_main]

use core::arch::asm;

use guests::vmx::instructions::{invept, invvpid, outcome, vmclear, vmptrld, vmptrst, vmread, vmwrite, vmxoff, vmxon};
use guests::vmx::{Current, L2, VmResult, attempt, equal, pages, setup, show};
use guests::{cpu, entry, expect_fault, memory, println, vmx_flags};
use vmcs::fields::{EPT_POINTER, GUEST_RIP, VM_INSTRUCTION_ERROR};
use vmcs::{Access, EptVpid};

entry!(main);

/// No VMCS is current.
const NONE: u64 = u64::MAX;

fn main() {
    setup::require();
    outside();
    entering();
    inside();
    pointers();
    launch_state();
    invalidations();
    leaving();
    println!("done");
}

fn vmlaunch() -> VmResult {
    outcome(vmx_flags!("vmlaunch"))
}

fn vmresume() -> VmResult {
    outcome(vmx_flags!("vmresume"))
}

fn vmcall() -> VmResult {
    outcome(vmx_flags!("vmcall"))
}

/// VMFUNC needs no flags: it is an instruction of guests only.
fn vmfunc() -> VmResult {
    // SAFETY: it faults here.
    unsafe { asm!("xor eax, eax", "xor ecx, ecx", ".byte 0x0f, 0x01, 0xd4", out("rax") _, out("rcx") _) };
    Ok(())
}

/// Every instruction but VMXON.
fn all() {
    let page = pages::take();
    show("VMXOFF", vmxoff);
    show("VMCLEAR", || vmclear(page));
    show("VMPTRLD", || vmptrld(page));
    show("VMPTRST", vmptrst);
    show("VMREAD", || vmread(GUEST_RIP.encoding()));
    show("VMWRITE", || vmwrite(GUEST_RIP.encoding(), 0));
    show("VMLAUNCH", vmlaunch);
    show("VMRESUME", vmresume);
    show("INVEPT", || invept(2, [0, 0]));
    show("INVVPID", || invvpid(2, [0, 0]));
    // VMCALL may be a hypervisor's to answer here, where there is one.
    show("VMFUNC", vmfunc);
}

fn outside() {
    println!("without CR4.VMXE");
    cpu::write_cr4(cpu::cr4() & !setup::VMXE);
    let region = setup::region();
    show("VMXON", || vmxon(region));
    all();
    setup::prepare();
    println!("with CR4.VMXE, outside VMX operation");
    all();
}

/// The first physical address that is too wide.
fn too_wide() -> u64 {
    1 << (cpu::cpuid(0x8000_0008, 0).eax & 0xff)
}

fn entering() {
    println!("VMXON");
    let region = setup::region();
    let revision: u32 = memory::read(region);
    show("not aligned", || vmxon(region + 8));
    show("beyond the physical-address width", || vmxon(too_wide()));
    show("bit 63", || vmxon(region | 1 << 63));
    memory::write(region, revision ^ 1);
    show("another revision", || vmxon(region));
    memory::write(region, revision | 1 << 31);
    show("the revision with bit 31", || vmxon(region));
    memory::write(region, revision);
    let cr0 = cpu::cr0();
    cpu::write_cr0(cr0 & !(1 << 5));
    show("without CR0.NE", || vmxon(region));
    cpu::write_cr0(cr0);
    show("right", || vmxon(region));
    equal("it made no VMCS current", vmptrst().unwrap_or(0), NONE);
    show("again", || vmxon(region));
    show("again, not aligned", || vmxon(region + 8));

    println!("control registers in VMX operation");
    show("CR0.NE off", || {
        cpu::write_cr0(cpu::cr0() & !(1 << 5));
        Ok(())
    });
    show("CR0.PG off", || {
        cpu::write_cr0(cpu::cr0() & !(1 << 31));
        Ok(())
    });
    show("CR4.VMXE off", || {
        cpu::write_cr4(cpu::cr4() & !setup::VMXE);
        Ok(())
    });
    show("CR0.WP off and on", || {
        cpu::write_cr0(cpu::cr0() & !(1 << 16));
        cpu::write_cr0(cpu::cr0() | 1 << 16);
        Ok(())
    });

    println!("VMCLEAR");
    let vmcs = setup::region();
    show("not aligned", || vmclear(vmcs + 8));
    show("too wide", || vmclear(too_wide()));
    show("the VMXON region", || vmclear(region));
    show("right", || vmclear(vmcs));
    show("again", || vmclear(vmcs));
    show("right, though it says another revision", || {
        let page = pages::take();
        memory::write(page, 0x1234_u32);
        vmclear(page)
    });

    println!("VMPTRLD");
    show("not aligned", || vmptrld(vmcs + 8));
    show("too wide", || vmptrld(too_wide()));
    show("the VMXON region", || vmptrld(region));
    let wrong = pages::take();
    memory::write(wrong, revision ^ 1);
    show("another revision", || vmptrld(wrong));
    equal("still no VMCS is current", vmptrst().unwrap_or(0), NONE);
    show("right", || vmptrld(vmcs));
    println!("and with a current VMCS");
    show("VMXON again", || vmxon(region));
    show("VMCLEAR not aligned", || vmclear(vmcs + 8));
    show("VMCLEAR too wide", || vmclear(too_wide()));
    show("VMCLEAR of the VMXON region", || vmclear(region));
    show("VMPTRLD not aligned", || vmptrld(vmcs + 8));
    show("VMPTRLD too wide", || vmptrld(too_wide()));
    show("VMPTRLD of the VMXON region", || vmptrld(region));
    show("VMPTRLD of another revision", || vmptrld(wrong));
    equal("the VMCS is current still", vmptrst().unwrap_or(0), vmcs);
    equal("the last error stays", Current.read(VM_INSTRUCTION_ERROR).into(), 11);
    let _ = vmclear(vmcs);
}

/// Inside VMX operation without a current VMCS.
fn inside() {
    println!("without a current VMCS");
    show("VMREAD", || vmread(GUEST_RIP.encoding()));
    show("VMREAD of no field", || vmread(vmcs::Encoding(0x6ffe)));
    show("VMWRITE", || vmwrite(GUEST_RIP.encoding(), 0));
    show("VMLAUNCH", vmlaunch);
    show("VMRESUME", vmresume);
    show("VMCLEAR, not aligned", || vmclear(8));
    show("VMPTRLD, not aligned", || vmptrld(8));
    show("INVEPT of type 9", || invept(9, [0, 0]));
    show("INVVPID of type 9", || invvpid(9, [0, 0]));
    show("VMCALL", vmcall);
    show("VMFUNC", vmfunc);
}

fn pointers() {
    println!("which VMCS is current");
    let [first, second] = [setup::region(), setup::region()];
    let current = || vmptrst().unwrap_or(0);
    let _ = vmclear(first);
    let _ = vmclear(second);
    let _ = vmptrld(first);
    equal("the first", current(), first);
    let _ = vmwrite(GUEST_RIP.encoding(), 1);
    let _ = vmptrld(second);
    equal("the second", current(), second);
    let _ = vmwrite(GUEST_RIP.encoding(), 2);
    let _ = vmptrld(first);
    equal("the first has kept its RIP", Current.read(GUEST_RIP), 1);
    let _ = vmclear(second);
    equal("VMCLEAR of another changes nothing", current(), first);
    let _ = vmptrld(second);
    equal("VMCLEAR kept the field", Current.read(GUEST_RIP), 2);
    let _ = vmclear(second);
    equal("VMCLEAR of the current one: none", current(), NONE);
    let _ = vmptrld(first);
    let _ = vmclear(first);
}

fn launch_state() {
    println!("launch state");
    let mut l2 = L2::new(|| {});
    show("VMRESUME of a clear VMCS", vmresume);
    show("VMLAUNCH while MOV SS blocks", || {
        outcome(vmx_flags!("mov ss, ecx\n vmlaunch", in("ecx") u32::from(entry::DATA)))
    });
    println!(" VMLAUNCH: {}", l2.run());
    show("VMLAUNCH of a launched VMCS", vmlaunch);
    show("VMRESUME while MOV SS blocks", || {
        outcome(vmx_flags!("mov ss, ecx\n vmresume", in("ecx") u32::from(entry::DATA)))
    });
    l2.restart(|| {});
    println!(" VMRESUME: {}", l2.run());
    let other = setup::region();
    let _ = vmclear(other);
    let _ = vmptrld(other);
    show("VMRESUME of another VMCS, which is clear", vmresume);
    l2.load();
    l2.restart(|| {});
    println!(" VMRESUME of the first, loaded again: {}", l2.run());
    let _ = vmclear(l2.region);
    let _ = vmptrld(l2.region);
    show("VMRESUME after VMCLEAR", vmresume);
    l2.launched = false;
    l2.restart(|| {});
    println!(" VMLAUNCH after VMCLEAR: {}", l2.run());
    let _ = vmclear(l2.region);
}

fn invalidations() {
    let offered = setup::capabilities().ept_vpid;
    let vmcs = setup::region();
    let _ = vmclear(vmcs);
    let _ = vmptrld(vmcs);
    let eptp = pages::take() | 3 << 3 | 6;
    println!("INVEPT");
    for (what, kind, descriptor) in [
        ("type 0", 0, [0, 0]),
        ("type 1", 1, [eptp, 0]),
        ("type 2", 2, [0, 0]),
        ("type 3", 3, [0, 0]),
        ("type 1, memory type 5", 1, [eptp ^ 3, 0]),
        ("type 1, 3 levels", 1, [eptp ^ 1 << 3, 0]),
        ("type 1, bit 8", 1, [eptp | 1 << 8, 0]),
        ("type 1, too wide", 1, [eptp | too_wide(), 0]),
        ("type 2, the same EPTP", 2, [eptp | too_wide(), 0]),
    ] {
        show(what, || invept(kind, descriptor));
    }
    equal(
        "types 1 and 2 are offered",
        u64::from(offered.contains(EptVpid::INVEPT_SINGLE_CONTEXT | EptVpid::INVEPT_ALL_CONTEXT)),
        1,
    );
    println!("INVVPID");
    for (what, kind, descriptor) in [
        ("type 0", 0, [1, 0x20_0000]),
        ("type 0, VPID 0", 0, [0, 0x20_0000]),
        ("type 0, not canonical", 0, [1, 1 << 62]),
        ("type 1", 1, [1, 0]),
        ("type 1, VPID 0", 1, [0, 0]),
        ("type 1, not canonical", 1, [1, 1 << 62]),
        ("type 2", 2, [0, 0]),
        ("type 3", 3, [1, 0]),
        ("type 3, VPID 0", 3, [0, 0]),
        ("type 4", 4, [1, 0]),
        ("type 1, bit 16 of the VPID", 1, [1 | 1 << 16, 0]),
        ("type 1, bit 63", 1, [1 | 1 << 63, 0]),
        ("type 2, bit 63", 2, [1 << 63, 0]),
        ("type 1, VPID ffff", 1, [0xffff, 0]),
    ] {
        show(what, || invvpid(kind, descriptor));
    }
    show("the EPT pointer is a field", || vmread(EPT_POINTER.encoding()));
    let _ = vmclear(vmcs);
}

fn leaving() {
    println!("VMXOFF");
    let vmcs = setup::region();
    let _ = vmclear(vmcs);
    let _ = vmptrld(vmcs);
    show("right", vmxoff);
    show("again", vmxoff);
    show("VMPTRST", vmptrst);
    let off = expect_fault(|| cpu::write_cr4(cpu::cr4() & !setup::VMXE));
    println!(" CR4.VMXE off: {}", if off.is_none() { "done" } else { "faulted" });
    let region = setup::region();
    show("VMXON", || vmxon(region));
    setup::prepare();
    println!(" VMXON again: {}", attempt(|| vmxon(region)));
    equal("no VMCS is current", vmptrst().unwrap_or(0), NONE);
    show("VMXOFF", vmxoff);
}
