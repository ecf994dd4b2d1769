//! An L1 in 32-bit mode with PAE paging: operands of 32 bits, segments with limits, and an L2 whose page-directory pointers are others than
//! L1's. SDM 3C, "VMX Instruction Reference"; 28.5.4 "Loading Page-Directory-Pointer-Table Entries".
#![no_std]
#![no_main]
#![expect(clippy::cast_possible_truncation, reason = "addresses below 4 GiB")]

mod code;

use guests::entry::{CODE32, DATA};
use guests::vmx::instructions::{must, vmclear, vmxoff};
use guests::vmx::state::{CS, DS, ES, FS, GS, SS};
use guests::vmx::{Current, L2, equal, pages, setup};
use guests::{cpu, entry, memory, pic, println};
use vmcs::Access;
use vmcs::controls::{EntryControls, ExitControls};
use vmcs::fields::*;

use code::{
    READ_ONLY, SHORT, gdt, t_handler_6, t_handler_12, t_handler_13, t_handler_14, t_idt32, t_l2, t_pointers,
    t_prepared, t_results, t_seen, t_vmcs, t_vmxon, trip_32bit,
};

entry!(main);

/// What is attempted, in order.
const ATTEMPTS: [&str; 32] = [
    "VMXON",
    "VMCLEAR",
    "VMPTRLD",
    "VMPTRST",
    "VMWRITE ECX, EAX",
    "VMREAD EDX, ECX",
    "VMWRITE of a high half",
    "VMWRITE of a 64-bit field",
    "VMREAD of a 64-bit field",
    "VMREAD of a high half",
    "VMREAD into memory",
    "VMWRITE from memory",
    "VMREAD",
    "VMREAD of no field",
    "INVEPT",
    "INVVPID",
    "VMPTRST at a segment's end",
    "VMPTRST across a segment's end",
    "VMPTRST beyond a segment's end",
    "VMPTRST around the end of 4 GiB",
    "VMPTRLD by a read-only segment",
    "VMPTRST by a read-only segment",
    "VMREAD by a read-only segment",
    "VMPTRST by a code segment",
    "VMPTRLD by a code segment",
    "VMPTRST by no segment",
    "VMPTRLD",
    "VMWRITE",
    "VMWRITE",
    "VMLAUNCH",
    "VMRESUME",
    "VMXOFF",
];

fn main() {
    setup::require();
    pic::remap();
    let [vmxon, vmcs] = [setup::region(), setup::region()];
    memory::write(&raw const t_vmxon as u64, vmxon);
    memory::write(&raw const t_vmcs as u64, vmcs);
    interrupt_table();
    segments();
    prepare();
    let results = &raw const t_results as u64;
    (0..64).for_each(|index| memory::write(results + 4 * index, u32::MAX));
    (0..16).for_each(|index| memory::write(&raw const t_seen as u64 + 4 * index, u32::MAX));
    // SAFETY: it comes back with everything as it was but the registers that a call may change.
    unsafe { trip_32bit() };
    for (index, what) in ATTEMPTS.into_iter().enumerate() {
        println!(" {what}: {}", outcome(memory::read(results + 4 * index as u64)));
    }
    let seen = |index: u64| u64::from(memory::read::<u32>(&raw const t_seen as u64 + 4 * index));
    equal("VMPTRST stored", seen(0) | seen(1) << 32, vmcs);
    equal("VMREAD of what was written", seen(2), 0x1234_5678);
    equal("the 64-bit field", seen(3), 0x1234_5678);
    equal("its high half, cleared", seen(4), 0);
    equal("VMREAD stored", seen(5), 0x1234_5678);
    equal("and nothing behind it", seen(6), 0xffff_ffff);
    equal("VMWRITE from memory wrote", seen(8), 0x55);
    equal("L2 reads by its own pointers", seen(9), 0x2222);
    equal("L1 reads by its own pointers", seen(10), 0x1111);
    equal("exit reason", seen(11), 18);
    equal("a 32-bit guest", seen(12) & 1 << 9, 0);
    println!("done");
}

/// What the flags or the fault say.
fn outcome(word: u32) -> &'static str {
    match (word, word >> 16 & 0x7fff, word & 0xffff) {
        (u32::MAX, ..) => "not executed",
        (0, ..) => "done",
        (1, ..) => "VMfailInvalid",
        (0x40, ..) => "VMfailValid",
        (_, 6, _) => "#UD",
        (_, 12, 0) => "#SS(0x0)",
        (_, 13, 0) => "#GP(0x0)",
        (_, 14, _) => "#PF",
        _ => "something else",
    }
}

/// Gates for four exceptions.
fn interrupt_table() {
    let table = pages::take();
    for (vector, handler) in [
        (6_u64, &raw const t_handler_6 as u64),
        (12, &raw const t_handler_12 as u64),
        (13, &raw const t_handler_13 as u64),
        (14, &raw const t_handler_14 as u64),
    ] {
        let gate = handler & 0xffff | u64::from(CODE32) << 16 | 0x8e00 << 32 | (handler >> 16 & 0xffff) << 48;
        memory::write(table + 8 * vector, gate);
    }
    memory::write(&raw const t_idt32 as u64, 0xff_u16);
    memory::write(&raw const t_idt32 as u64 + 2, table as u32);
}

/// A segment of 4 KiB over a page, and one that is read-only.
fn segments() {
    let page = pages::take();
    let base = (page & 0xff_ffff) << 16 | (page >> 24 & 0xff) << 56;
    memory::write(&raw const gdt as u64 + SHORT, 0xfff | base | 0x4093 << 40);
    memory::write(&raw const gdt as u64 + READ_ONLY, 0x00cf_9100_0000_ffff_u64);
}

/// Page-directory pointers with this word at 3 GiB.
fn pointers(at: u64, word: u32) {
    let [directory, table, page] = [pages::take(), pages::take(), pages::take()];
    memory::write(directory, table | 3);
    memory::write(table, page | 3);
    memory::write(page, word);
    let low: [u64; 3] = memory::read(&raw const t_pointers as u64);
    memory::write(at, low);
    memory::write(at + 24, directory | 1);
}

/// A VMCS for the L2, written while that can be done in 64-bit mode: what VMCLEAR leaves in memory stays there.
fn prepare() {
    let own = pages::take();
    pointers(own, 0x2222);
    pointers(&raw const t_pointers as u64, 0x1111);
    setup::on();
    let mut l2 = L2::new(|| {});
    l2.control(|controls| {
        controls.exit -= ExitControls::HOST_ADDRESS_SPACE_SIZE;
        controls.entry -= EntryControls::IA32E_MODE_GUEST;
    });
    let mut current = Current;
    current.write(HOST_CS_SELECTOR, CODE32);
    current.write(HOST_CR3, &raw const t_pointers as u64);
    current.write(GUEST_CR3, own);
    current.write(GUEST_RIP, &raw const t_l2 as u64);
    CS.write(CODE32, 0, 0xffff_ffff, 0xc09b);
    for segment in [ES, SS, DS, FS, GS] {
        segment.write(DATA, 0, 0xffff_ffff, 0xc093);
    }
    memory::write(&raw const t_prepared as u64, l2.region);
    must("VMCLEAR", vmclear(l2.region));
    must("VMXOFF", vmxoff());
    cpu::write_cr4(cpu::cr4() & !setup::VMXE);
}
