//! SDM 3C 27.2.2 "Checks on Host Control Registers, MSRs, and SSP", 27.2.3 "Checks on Host Segment and Descriptor-Table Registers", 27.2.4
//! "Checks Related to Address-Space Size".

use guests::println;
use guests::vmx::{Controls, L2};
use vmcs::Access;
use vmcs::controls::{EntryControls, ExitControls};
use vmcs::fields::*;

use crate::{NOT_CANONICAL, row, too_wide};

pub(crate) fn all(l2: &mut L2) {
    println!("host control registers");
    for (what, bits) in [("PE", 1 << 0), ("NE", 1 << 5), ("PG", 1 << 31), ("bit 32", 1 << 32)] {
        row(l2, what, |_, c| c.write(HOST_CR0, c.read(HOST_CR0) ^ bits));
    }
    for (what, bits) in [("PAE", 1 << 5), ("VMXE", 1 << 13), ("bit 15", 1 << 15), ("bit 63", 1 << 63)] {
        row(l2, what, |_, c| c.write(HOST_CR4, c.read(HOST_CR4) ^ bits));
    }
    row(l2, "CR3 too wide", |_, c| c.write(HOST_CR3, too_wide()));
    println!("host MSRs");
    for (what, field) in [
        ("SYSENTER_ESP", HOST_IA32_SYSENTER_ESP),
        ("SYSENTER_EIP", HOST_IA32_SYSENTER_EIP),
        ("FS base", HOST_FS_BASE),
        ("GS base", HOST_GS_BASE),
        ("TR base", HOST_TR_BASE),
        ("GDTR base", HOST_GDTR_BASE),
        ("IDTR base", HOST_IDTR_BASE),
        ("RIP", HOST_RIP),
    ] {
        row(l2, what, |_, c| c.write(field, NOT_CANONICAL));
    }
    let efer: fn(&mut Controls) = |controls| controls.exit |= ExitControls::LOAD_IA32_EFER;
    for (what, value) in [
        ("EFER without LMA", 0x100),
        ("EFER without LME", 0x400),
        ("EFER of neither", 0),
        ("EFER, bit 1", 0x502),
        ("EFER, bit 32", 0x500 | 1 << 32),
    ] {
        row(l2, what, |l2, c| {
            l2.control(efer);
            c.write(HOST_IA32_EFER, value);
        });
    }
    row(l2, "EFER, not loaded", |_, c| c.write(HOST_IA32_EFER, 2));
    for (what, value) in [("PAT, type 2", 2), ("PAT, type 3", 3 << 56), ("PAT, type 8", 8 << 8)] {
        row(l2, what, |l2, c| {
            l2.control(|controls| controls.exit |= ExitControls::LOAD_IA32_PAT);
            c.write(HOST_IA32_PAT, value);
        });
    }
    println!("host selectors");
    for (what, field) in [
        ("ES", HOST_ES_SELECTOR),
        ("CS", HOST_CS_SELECTOR),
        ("SS", HOST_SS_SELECTOR),
        ("DS", HOST_DS_SELECTOR),
        ("FS", HOST_FS_SELECTOR),
        ("GS", HOST_GS_SELECTOR),
        ("TR", HOST_TR_SELECTOR),
    ] {
        println!("{what}");
        row(l2, "RPL 3", |_, c| c.write(field, c.read(field) | 3));
        row(l2, "in the LDT", |_, c| c.write(field, c.read(field) | 4));
    }
    row(l2, "CS 0", |_, c| c.write(HOST_CS_SELECTOR, 0));
    row(l2, "TR 0", |_, c| c.write(HOST_TR_SELECTOR, 0));
    println!("address-space size");
    row(l2, "a 32-bit host", |l2, _| _ = l2.control(|controls| controls.exit -= ExitControls::HOST_ADDRESS_SPACE_SIZE));
    row(l2, "a 32-bit host and guest", |l2, _| {
        l2.control(|controls| {
            controls.exit -= ExitControls::HOST_ADDRESS_SPACE_SIZE;
            controls.entry -= EntryControls::IA32E_MODE_GUEST;
        });
    });
}
