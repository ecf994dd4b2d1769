//! SDM 3C 27.3.1.1 "Checks on Guest Control Registers, Debug Registers, and MSRs", 27.3.1.4 "Checks on Guest RIP, RFLAGS, and SSP",
//! 27.3.1.5 "Checks on Guest Non-Register State".

use guests::vmx::{Controls, L2, pages, setup};
use guests::{memory, println};
use vmcs::Access;
use vmcs::controls::{EntryControls, SecondaryBased};
use vmcs::fields::*;

use crate::{NOT_CANONICAL, row, too_wide};

/// RFLAGS.
const RESERVED_1: u64 = 1 << 1;
const INTERRUPTS: u64 = 1 << 9;
/// Interruptibility.
const STI: u32 = 1 << 0;
const MOV_SS: u32 = 1 << 1;
const SMI: u32 = 1 << 2;

pub(crate) fn all(l2: &mut L2) {
    registers(l2);
    msrs(l2);
    flags(l2);
    activity(l2);
    interruptibility(l2);
    debug_exceptions(l2);
    link_pointer(l2);
}

fn registers(l2: &mut L2) {
    println!("guest control registers");
    for (what, bits) in [("PE", 1 << 0), ("NE", 1 << 5), ("PG", 1_u64 << 31), ("bit 32", 1 << 32)] {
        row(l2, what, |_, c| c.write(GUEST_CR0, c.read(GUEST_CR0) ^ bits));
    }
    for (what, bits) in [("PAE", 1 << 5), ("VMXE", 1 << 13), ("bit 15", 1 << 15), ("bit 63", 1 << 63)] {
        row(l2, what, |_, c| c.write(GUEST_CR4, c.read(GUEST_CR4) ^ bits));
    }
    row(l2, "CR3 too wide", |_, c| c.write(GUEST_CR3, too_wide()));
    row(l2, "DR7, bit 32", |l2, c| {
        l2.control(|controls| controls.entry |= EntryControls::LOAD_DEBUG_CONTROLS);
        c.write(GUEST_DR7, 0x400 | 1 << 32);
    });
    row(l2, "DR7, bit 32, not loaded", |_, c| c.write(GUEST_DR7, 0x400 | 1 << 32));
}

fn msrs(l2: &mut L2) {
    println!("guest MSRs");
    row(l2, "SYSENTER_ESP", |_, c| c.write(GUEST_SYSENTER_ESP, NOT_CANONICAL));
    row(l2, "SYSENTER_EIP", |_, c| c.write(GUEST_SYSENTER_EIP, NOT_CANONICAL));
    let efer: fn(&mut Controls) = |controls| controls.entry |= EntryControls::LOAD_IA32_EFER;
    for (what, value) in [
        ("EFER without LMA", 0x100),
        ("EFER without LME", 0x400),
        ("EFER of neither", 0),
        ("EFER, bit 1", 0x502),
        ("EFER, right", 0x500),
    ] {
        row(l2, what, |l2, c| {
            l2.control(efer);
            c.write(GUEST_IA32_EFER, value);
        });
    }
    for (what, value) in [("PAT, type 2", 2), ("PAT, type 3", 3 << 56), ("PAT, right", 0x0007_0406_0007_0406)] {
        row(l2, what, |l2, c| {
            l2.control(|controls| controls.entry |= EntryControls::LOAD_IA32_PAT);
            c.write(GUEST_IA32_PAT, value);
        });
    }
}

fn flags(l2: &mut L2) {
    println!("RFLAGS");
    for (what, flags) in [
        ("bit 1 off", 0),
        ("bit 3", RESERVED_1 | 1 << 3),
        ("bit 15", RESERVED_1 | 1 << 15),
        ("bit 22", RESERVED_1 | 1 << 22),
        ("bit 63", RESERVED_1 | 1 << 63),
        ("virtual-8086 mode", RESERVED_1 | 1 << 17),
    ] {
        row(l2, what, |_, c| c.write(GUEST_RFLAGS, flags));
    }
    row(l2, "an external interrupt, IF off", |_, c| c.write(VM_ENTRY_INTERRUPTION_INFO, 0x8000_0020));
}

fn activity(l2: &mut L2) {
    println!("activity state");
    row(l2, "4", |_, c| c.write(GUEST_ACTIVITY_STATE, 4));
    row(l2, "HLT while STI blocks", |_, c| {
        c.write(GUEST_ACTIVITY_STATE, 1);
        c.write(GUEST_RFLAGS, RESERVED_1 | INTERRUPTS);
        c.write(GUEST_INTERRUPTIBILITY_INFO, STI);
    });
    row(l2, "HLT while MOV SS blocks", |_, c| {
        c.write(GUEST_ACTIVITY_STATE, 1);
        c.write(GUEST_INTERRUPTIBILITY_INFO, MOV_SS);
    });
    row(l2, "shutdown, #UD injected", |_, c| {
        c.write(GUEST_ACTIVITY_STATE, 2);
        c.write(VM_ENTRY_INTERRUPTION_INFO, 0x8000_0306);
    });
    row(l2, "wait for SIPI, an NMI injected", |_, c| {
        c.write(GUEST_ACTIVITY_STATE, 3);
        c.write(VM_ENTRY_INTERRUPTION_INFO, 0x8000_0202);
    });
}

fn interruptibility(l2: &mut L2) {
    println!("interruptibility");
    let mut blocking = |what: &str, bits: u32, flags: u64, info: u32| {
        row(l2, what, |_, c| {
            c.write(GUEST_INTERRUPTIBILITY_INFO, bits);
            c.write(GUEST_RFLAGS, RESERVED_1 | flags);
            c.write(VM_ENTRY_INTERRUPTION_INFO, info);
        });
    };
    blocking("bit 5", 1 << 5, 0, 0);
    blocking("bit 31", 1 << 31, 0, 0);
    blocking("STI and MOV SS", STI | MOV_SS, INTERRUPTS, 0);
    blocking("STI with IF off", STI, 0, 0);
    blocking("SMI", SMI, 0, 0);
    blocking("an interrupt while STI blocks", STI, INTERRUPTS, 0x8000_0020);
    blocking("an interrupt while MOV SS blocks", MOV_SS, INTERRUPTS, 0x8000_0020);
    blocking("an NMI while MOV SS blocks", MOV_SS, 0, 0x8000_0202);
    blocking("STI with IF", STI, INTERRUPTS, 0);
    blocking("MOV SS", MOV_SS, 0, 0);
}

fn debug_exceptions(l2: &mut L2) {
    println!("pending debug exceptions");
    for (what, bits) in [("bit 4", 1 << 4), ("bit 13", 1 << 13), ("bit 15", 1 << 15)] {
        row(l2, what, |_, c| c.write(GUEST_PENDING_DBG_EXCEPTIONS, bits));
    }
}

fn link_pointer(l2: &mut L2) {
    println!("VMCS link pointer");
    row(l2, "not aligned", |_, c| c.write(VMCS_LINK_POINTER, 0x10_0800));
    row(l2, "too wide", |_, c| c.write(VMCS_LINK_POINTER, too_wide()));
    let wrong = pages::take();
    memory::write(wrong, 0x7fff_1234_u32);
    row(l2, "another revision", |_, c| c.write(VMCS_LINK_POINTER, wrong));
    let region = setup::region();
    row(l2, "an ordinary VMCS without VMCS shadowing", |_, c| c.write(VMCS_LINK_POINTER, region));
    let shadowing: fn(&mut Controls) = |c| c.secondary |= SecondaryBased::VMCS_SHADOWING;
    row(l2, "an ordinary VMCS with VMCS shadowing", |l2, c| {
        l2.control(shadowing);
        c.write(VMCS_LINK_POINTER, region);
    });
    memory::write(region, memory::read::<u32>(region) | 1 << 31);
    row(l2, "a shadow VMCS without VMCS shadowing", |_, c| c.write(VMCS_LINK_POINTER, region));
    row(l2, "a shadow VMCS with VMCS shadowing", |l2, c| {
        l2.control(shadowing);
        c.write(VMCS_LINK_POINTER, region);
    });
    row(l2, "the current VMCS", |l2, c| c.write(VMCS_LINK_POINTER, l2.region));
}
