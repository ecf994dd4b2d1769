//! An L2 in every mode: it starts in real-address mode and goes to 64-bit mode as a machine does; or it is entered in the midst of it.
//! SDM 3C 26.6 "Unrestricted Guests"; 27.3.1.6 "Checks on Guest Page-Directory-Pointer-Table Entries".
#![no_std]
#![no_main]
#![expect(clippy::cast_possible_truncation, reason = "parts of words that are known to be small")]

mod code;
mod low;

use arch::Gpr;
use guests::entry::{CODE32, DATA};
use guests::vmx::ept::Ept;
use guests::vmx::state::{self, CS, DS, ES, FS, GS, LDTR, SS, TR};
use guests::vmx::{Current, L2, equal, pages, setup};
use guests::{entry, memory, pic, print, println};
use vmcs::controls::{EntryControls, ExitControls, PrimaryBased, SecondaryBased};
use vmcs::fields::*;
use vmcs::{Access, ExitReason};

use code::{
    FREE, LOW, SEEN, gdt, l2_call, l2_jump, l2_low_end, l2_low_interrupt, l2_low_start, l2_paged, l2_pointers, l2_stack,
};

entry!(main);

const PE: u64 = 1;
const PG: u64 = 1 << 31;
const PAE: u64 = 1 << 5;
/// ET and NE.
const CR0: u64 = 0x30;

fn main() {
    setup::require();
    pic::remap();
    setup::on();
    all_the_way();
    low::all();
    paged_with_ept();
    paged_without_ept();
    tasks();
    println!("done");
}

/// What mode the exit found the guest in.
fn show_mode() {
    let current = Current;
    let cr0 = current.read(GUEST_CR0);
    let entry = EntryControls::from_bits_retain(current.read(VM_ENTRY_CONTROLS));
    print!(
        "  PE {}, PG {}, PAE {}, IA-32e {}",
        cr0 & PE,
        cr0 >> 31 & 1,
        current.read(GUEST_CR4) >> 5 & 1,
        u8::from(entry.contains(EntryControls::IA32E_MODE_GUEST)),
    );
    if cr0 & PE != 0 {
        print!("; CS {:x}, rights {:x}", current.read(GUEST_CS_SELECTOR), current.read(GUEST_CS_ACCESS_RIGHTS));
        print!("; SS {:x}, rights {:x}", current.read(GUEST_SS_SELECTOR), current.read(GUEST_SS_ACCESS_RIGHTS));
    }
    println!();
}

/// Runs to the end of the code, printing each exit and what mode it came from.
fn follow_modes(l2: &mut L2) {
    for _ in 0..12 {
        let report = l2.run();
        println!(" {report}");
        if report.is_done() || !report.is_instruction() {
            break;
        }
        show_mode();
        if report.reason() == Some(ExitReason::CPUID) {
            l2.regs.set(Gpr::Rbx, 0);
        }
        l2.skip();
    }
}

/// Flat 32-bit segments.
fn flat_segments() {
    CS.write(CODE32, 0, 0xffff_ffff, 0xc09b);
    for segment in [ES, SS, DS, FS, GS] {
        segment.write(DATA, 0, 0xffff_ffff, 0xc093);
    }
}

fn all_the_way() {
    println!("from real-address mode to 64-bit mode");
    let mut l2 = L2::new(|| {});
    let has = l2.control(|controls| {
        controls.secondary |= SecondaryBased::ENABLE_EPT | SecondaryBased::UNRESTRICTED_GUEST;
        controls.primary |=
            PrimaryBased::USE_MSR_BITMAPS | PrimaryBased::HLT_EXITING | PrimaryBased::UNCONDITIONAL_IO_EXITING;
        // An entry without paging leaves EFER.LME alone, so it is loaded.
        controls.entry |= EntryControls::LOAD_IA32_EFER;
        controls.exit |= ExitControls::SAVE_IA32_EFER;
        controls.entry -= EntryControls::IA32E_MODE_GUEST;
    });
    if !has {
        println!(" not offered");
        return;
    }
    let start = &raw const l2_low_start as u64;
    for offset in 0..&raw const l2_low_end as u64 - start {
        memory::write(LOW + offset, memory::read::<u8>(start + offset));
    }
    let before: u32 = memory::read(0x77 * 4);
    memory::write(0x77 * 4, ((LOW >> 4) << 16) as u32 | (&raw const l2_low_interrupt as u64 - start) as u32);
    memory::write(SEEN, [0_u32, 0, 0]);
    memory::write(&raw const l2_stack as u64, l2.stack);
    let mut current = Current;
    current.write(EPT_POINTER, Ept::identity().pointer());
    current.write(MSR_BITMAP, pages::take());
    real_mode();
    follow_modes(&mut l2);
    equal("software interrupts", memory::read::<u32>(SEEN).into(), 1);
    equal("by 32-bit paging", memory::read::<u32>(SEEN + 4).into(), 1);
    equal("by PAE paging", memory::read::<u32>(SEEN + 8).into(), 1);
    memory::write(0x77 * 4, before);
}

/// The state of a processor in real-address mode, at [`LOW`].
fn real_mode() {
    let mut current = Current;
    current.write(GUEST_CR0, CR0);
    current.write(GUEST_CR4, setup::VMXE);
    current.write(GUEST_CR3, 0);
    current.write(GUEST_RIP, 0);
    current.write(GUEST_RSP, 0x6f00);
    current.write(GUEST_IDTR_BASE, 0);
    current.write(GUEST_IDTR_LIMIT, 0x3ff);
    CS.write((LOW >> 4) as u16, LOW, 0xffff, 0x9b);
    for segment in [ES, SS, DS, FS, GS] {
        segment.write(0, 0, 0xffff, 0x93);
    }
    LDTR.write(0, 0, 0, state::UNUSABLE);
    TR.write(0, 0, 0xffff, 0x8b);
}

/// A guest that is entered in 32-bit code with PAE paging.
fn paged(l2: &mut L2, code: u64) {
    l2.control(|controls| controls.entry -= EntryControls::IA32E_MODE_GUEST);
    let mut current = Current;
    current.write(GUEST_CR0, CR0 | PE | PG);
    current.write(GUEST_CR4, setup::VMXE | PAE);
    current.write(GUEST_CR3, &raw const l2_pointers as u64);
    current.write(GUEST_RIP, code);
    flat_segments();
    memory::write(SEEN, [1_u32, 0, 0]);
}

const PDPTES: [vmcs::Field<vmcs::field::W64>; 4] = [GUEST_PDPTE0, GUEST_PDPTE1, GUEST_PDPTE2, GUEST_PDPTE3];

/// The entries that the guest's CR3 points to.
fn entries() -> [u64; 4] {
    memory::read(&raw const l2_pointers as u64)
}

fn paged_with_ept() {
    println!("PAE paging with EPT: the entries are in the VMCS");
    let mut l2 = L2::new(|| {});
    if !l2.control(|controls| controls.secondary |= SecondaryBased::ENABLE_EPT) {
        println!(" not offered");
        return;
    }
    let mut current = Current;
    current.write(EPT_POINTER, Ept::identity().pointer());
    paged(&mut l2, &raw const l2_paged as u64);
    // The memory's last entry is wrong until L2 loads CR3: nobody reads it before.
    let right = entries();
    for (field, entry) in PDPTES.into_iter().zip(right) {
        current.write(field, entry);
    }
    memory::write(&raw const l2_pointers as u64 + 24, 0_u64);
    println!(" {}", l2.run());
    show_mode();
    equal("read at 3 GiB", memory::read::<u32>(SEEN + 8).into(), 1);
    for (index, (field, entry)) in PDPTES.into_iter().zip(right).enumerate() {
        equal(["entry 0", "entry 1", "entry 2", "entry 3"][index], current.read(field), entry);
    }
    l2.skip();
    memory::write(SEEN + 8, 0_u32);
    memory::write(&raw const l2_pointers as u64 + 24, right[3]);
    println!(" after MOV to CR3: {}", l2.run());
    equal("read at 3 GiB", memory::read::<u32>(SEEN + 8).into(), 1);
    for (what, value) in [("bit 1", 2), ("bit 5", 1 << 5), ("bit 63", 1 << 63), ("too wide", 1 << 51)] {
        current.write(GUEST_PDPTE2, right[2] | value);
        current.write(GUEST_RIP, &raw const l2_paged as u64);
        println!(" an entry with {what}: {}", l2.run());
    }
    current.write(GUEST_PDPTE2, 0xffe);
    println!(" an entry that is not present: {}", l2.run());
}

fn paged_without_ept() {
    println!("PAE paging without EPT: the entries are in memory");
    let mut l2 = L2::new(|| {});
    let mut current = Current;
    paged(&mut l2, &raw const l2_paged as u64);
    println!(" {}", l2.run());
    show_mode();
    equal("read at 3 GiB", memory::read::<u32>(SEEN + 8).into(), 1);
    l2.skip();
    println!(" after MOV to CR3: {}", l2.run());
    let place = &raw const l2_pointers as u64 + 16;
    let right: u64 = memory::read(place);
    for (what, value) in [("bit 1", 2), ("bit 63", 1 << 63)] {
        memory::write(place, right | value);
        current.write(GUEST_RIP, &raw const l2_paged as u64);
        println!(" an entry with {what}: {}", l2.run());
    }
    memory::write(place, right);
}

/// Task switches exit always: SDM 3C 26.4.2 "Treatment of Task Switches".
fn tasks() {
    println!("task switches");
    let mut l2 = L2::new(|| {});
    // An available 32-bit TSS.
    let descriptor = &raw const gdt as u64 + FREE;
    let task = pages::take();
    memory::write(descriptor, 103 | (task & 0xff_ffff) << 16 | 0x89 << 40 | (task >> 24 & 0xff) << 56);
    for (what, code) in [("JMP", &raw const l2_jump as u64), ("CALL", &raw const l2_call as u64)] {
        paged(&mut l2, code);
        TR.write(0x40, 0, 103, 0x8b);
        println!(" {what}: {}", l2.run());
        equal("RIP is at the instruction", Current.read(GUEST_RIP), code);
    }
    memory::write(descriptor, 0_u64);
}
