//! VMCS shadowing, as an L1 gives it to its L2: SDM 3C 25.10 "VMCS Types: Ordinary and Shadow", 26.3 "Changes to Instruction
//! Behavior in VMX Non-Root Operation" (VMREAD, VMWRITE).
#![no_std]
#![no_main]

use guests::vmx::instructions::{outcome, vmclear, vmptrld, vmptrst, vmread, vmwrite};
use guests::vmx::{Current, L2, equal, follow, pages, setup, show};
use guests::{entry, exit, memory, println, vmx_flags};
use vmcs::controls::SecondaryBased;
use vmcs::fields::{
    GUEST_CR3, GUEST_ES_SELECTOR, GUEST_RIP, TSC_OFFSET, VM_INSTRUCTION_ERROR, VMCS_LINK_POINTER, VMREAD_BITMAP,
    VMWRITE_BITMAP,
};
use vmcs::{Access, Encoding};

entry!(main);

/// An encoding that names nothing.
const NO_FIELD: u64 = 0x6dfe;
/// The revision's bit that makes a VMCS a shadow.
const SHADOW: u32 = 1 << 31;

fn main() {
    setup::require();
    setup::on();
    let l2 = &mut L2::new(|| {});
    if !l2.control(|controls| controls.secondary |= SecondaryBased::VMCS_SHADOWING) {
        println!("not offered");
        exit(0);
    }
    let shadow = setup::region();
    memory::write(shadow, memory::read::<u32>(shadow) | SHADOW);
    current(l2, shadow);
    let (reads, writes) = (pages::take(), pages::take());
    let mut vmcs = Current;
    vmcs.write(VMREAD_BITMAP, reads);
    vmcs.write(VMWRITE_BITMAP, writes);
    without_link(l2);
    vmcs.write(VMCS_LINK_POINTER, shadow);
    through(l2, shadow);
    bitmaps(l2, reads, writes);
    off(l2);
    println!("done");
}

/// A shadow VMCS as the current one.
fn current(l2: &L2, shadow: u64) {
    println!("a shadow VMCS in L1");
    show("VMCLEAR", || vmclear(shadow));
    show("VMPTRLD", || vmptrld(shadow));
    equal("it is current", vmptrst().unwrap_or(0), shadow);
    show("VMWRITE", || vmwrite(GUEST_CR3.encoding(), 0x1111));
    equal("VMREAD", vmread(GUEST_CR3.encoding()).unwrap_or(0), 0x1111);
    show("VMWRITE", || vmwrite(GUEST_ES_SELECTOR.encoding(), 0x22));
    show("VMWRITE", || vmwrite(TSC_OFFSET.encoding(), 0x3333_4444_5555));
    show("VMCLEAR", || vmclear(shadow));
    l2.load();
}

fn without_link(l2: &mut L2) {
    println!("without a link");
    follow(l2, "VMREAD", || show("in L2", || vmread(GUEST_CR3.encoding())));
    follow(l2, "VMWRITE", || show("in L2", || vmwrite(GUEST_CR3.encoding(), 0)));
}

/// L2's VMREAD and VMWRITE are of the shadow.
fn through(l2: &mut L2, shadow: u64) {
    println!("through the link");
    let cr3 = Current.read(GUEST_CR3);
    follow(l2, "VMREAD", || equal("CR3", vmread(GUEST_CR3.encoding()).unwrap_or(0), 0x1111));
    follow(l2, "VMREAD of 16 bits", || equal("ES", vmread(GUEST_ES_SELECTOR.encoding()).unwrap_or(0), 0x22));
    follow(l2, "VMREAD of a high half", || {
        equal("high", vmread(Encoding(TSC_OFFSET.encoding().0 | 1)).unwrap_or(0), 0x3333);
    });
    follow(l2, "VMWRITE", || {
        show("in L2", || vmwrite(GUEST_CR3.encoding(), 0x6666));
        equal("CR3", vmread(GUEST_CR3.encoding()).unwrap_or(0), 0x6666);
    });
    follow(l2, "VMREAD and VMWRITE of memory", || {
        let mut place = 0x7777_u64;
        let encoding = u64::from(GUEST_RIP.encoding().0);
        show("in L2", || outcome(vmx_flags!("vmwrite rcx, [rdx]", in("rcx") encoding, in("rdx") &raw const place)));
        place = 0;
        show("in L2", || outcome(vmx_flags!("vmread [rdx], rcx", in("rcx") encoding, in("rdx") &raw mut place)));
        equal("RIP", place, 0x7777);
    });
    // The VM-instruction error is the current VMCS's, so L1 sees it, not L2.
    Current.write(VM_INSTRUCTION_ERROR, 0);
    follow(l2, "VMREAD of no field", || {
        failed(vmx_flags!("vmread rdx, rcx", in("rcx") NO_FIELD, out("rdx") _));
        equal("error in the shadow", vmread(VM_INSTRUCTION_ERROR.encoding()).unwrap_or(0), 0);
    });
    equal("error", Current.read(VM_INSTRUCTION_ERROR).into(), 12);
    Current.write(VM_INSTRUCTION_ERROR, 0);
    follow(l2, "VMWRITE of no field", || {
        failed(vmx_flags!("vmwrite rcx, rdx", in("rcx") NO_FIELD, in("rdx") 0_u64));
    });
    equal("error", Current.read(VM_INSTRUCTION_ERROR).into(), 12);
    equal("L2's own CR3 is as it was", Current.read(GUEST_CR3), cr3);
    show("the shadow in L1", || vmclear(shadow).and_then(|()| vmptrld(shadow)));
    equal("CR3", vmread(GUEST_CR3.encoding()).unwrap_or(0), 0x6666);
    equal("RIP", vmread(GUEST_RIP.encoding()).unwrap_or(0), 0x7777);
    show("back", || vmclear(shadow));
    l2.load();
}

/// L2's: the flags say VMfailValid.
fn failed(flags: u64) {
    equal("ZF alone", flags & 0x8d5, 1 << 6);
}

fn bitmaps(l2: &mut L2, reads: u64, writes: u64) {
    println!("bitmaps: reads of CR3, writes of ES");
    for (bitmap, field) in [(reads, GUEST_CR3.encoding()), (writes, GUEST_ES_SELECTOR.encoding())] {
        let byte = bitmap + u64::from(field.0) / 8;
        memory::write(byte, memory::read::<u8>(byte) | 1 << (field.0 % 8));
    }
    follow(l2, "VMREAD of CR3", || _ = vmread(GUEST_CR3.encoding()));
    follow(l2, "VMWRITE of CR3", || show("in L2", || vmwrite(GUEST_CR3.encoding(), 0)));
    follow(l2, "VMREAD of ES", || show("in L2", || vmread(GUEST_ES_SELECTOR.encoding())));
    follow(l2, "VMWRITE of ES", || _ = vmwrite(GUEST_ES_SELECTOR.encoding(), 0));
    // What the bitmaps have no bit for exits.
    follow(l2, "VMREAD, bit 15", || _ = vmread(Encoding(GUEST_RIP.encoding().0 | 1 << 15)));
    follow(l2, "VMWRITE, bit 31", || _ = vmwrite(Encoding(GUEST_RIP.encoding().0 | 1 << 31), 0));
    follow(l2, "other instructions", || _ = vmptrst());
}

fn off(l2: &mut L2) {
    println!("control off");
    Current.write(VMCS_LINK_POINTER, u64::MAX);
    l2.control(|controls| controls.secondary -= SecondaryBased::VMCS_SHADOWING);
    follow(l2, "VMREAD", || _ = vmread(GUEST_RIP.encoding()));
}
