//! SDM 3C 27.2.1.1 "VM-Execution Control Fields", 27.2.1.2 "VM-Exit Control Fields", 27.2.1.3 "VM-Entry Control Fields".

use guests::vmx::{Controls, Current, L2, pages, setup};
use guests::{memory, println};
use vmcs::controls::{EntryControls, ExitControls, PinBased, PrimaryBased, SecondaryBased};
use vmcs::fields::*;
use vmcs::{Access, Field, field};

use crate::{row, too_wide};

/// An address that is not that of a page.
const UNALIGNED: u64 = 0x10_0800;

pub(crate) fn all(l2: &mut L2) {
    reserved(l2);
    addresses(l2);
    together(l2);
    tpr(l2);
    ept(l2);
    lists(l2);
}

/// Flips bits of a word.
fn flip(current: &mut Current, field: Field<field::W32>, bits: u32) {
    let word = current.read(field);
    current.write(field, word ^ bits);
}

fn reserved(l2: &mut L2) {
    println!("reserved bits of controls");
    row(l2, "pin-based, bit 1 off", |_, c| flip(c, PIN_BASED_VM_EXEC_CONTROL, 1 << 1));
    row(l2, "pin-based, bit 31", |_, c| flip(c, PIN_BASED_VM_EXEC_CONTROL, 1 << 31));
    row(l2, "primary, bit 1 off", |_, c| flip(c, CPU_BASED_VM_EXEC_CONTROL, 1 << 1));
    row(l2, "primary, bit 0", |_, c| flip(c, CPU_BASED_VM_EXEC_CONTROL, 1 << 0));
    row(l2, "secondary, bit 29", |l2, c| {
        l2.control(|controls| controls.secondary |= SecondaryBased::ENABLE_RDTSCP);
        flip(c, SECONDARY_VM_EXEC_CONTROL, 1 << 29);
    });
    row(l2, "secondary, bit 29, without secondary controls", |_, c| c.write(SECONDARY_VM_EXEC_CONTROL, 1 << 29));
    row(l2, "exit, bit 0 off", |_, c| flip(c, VM_EXIT_CONTROLS, 1 << 0));
    row(l2, "exit, bit 3 off", |_, c| flip(c, VM_EXIT_CONTROLS, 1 << 3));
    row(l2, "entry, bit 0 off", |_, c| flip(c, VM_ENTRY_CONTROLS, 1 << 0));
    row(l2, "entry, bit 31", |_, c| flip(c, VM_ENTRY_CONTROLS, 1 << 31));
    row(l2, "deactivate dual-monitor treatment", |_, c| {
        flip(c, VM_ENTRY_CONTROLS, EntryControls::DEACTIVATE_DUAL_MONITOR_TREATMENT.bits());
    });
    row(l2, "5 CR3 targets", |_, c| c.write(CR3_TARGET_COUNT, 5));
    row(l2, "4 CR3 targets", |_, c| c.write(CR3_TARGET_COUNT, 4));
}

/// Pages that a control makes count.
fn addresses(l2: &mut L2) {
    println!("addresses of pages");
    let capabilities = setup::capabilities();
    let mut page = |what: &str, change: fn(&mut Controls), field: Field<field::W64>| {
        if !field::info(field.encoding()).is_some_and(|field| capabilities.has_field(field)) {
            println!(" {what}: skip, the machine has no such field");
            return;
        }
        row(l2, what, |l2, c| {
            l2.control(change);
            c.write(field, UNALIGNED);
        });
        row(l2, "too wide", |l2, c| {
            l2.control(change);
            c.write(field, too_wide());
        });
        row(l2, "not aligned, control off", |_, c| c.write(field, UNALIGNED));
    };
    page("I/O bitmap A, not aligned", |c| c.primary |= PrimaryBased::USE_IO_BITMAPS, IO_BITMAP_A);
    page("I/O bitmap B, not aligned", |c| c.primary |= PrimaryBased::USE_IO_BITMAPS, IO_BITMAP_B);
    page("MSR bitmap, not aligned", |c| c.primary |= PrimaryBased::USE_MSR_BITMAPS, MSR_BITMAP);
    page("virtual-APIC page, not aligned", |c| c.primary |= PrimaryBased::USE_TPR_SHADOW, VIRTUAL_APIC_PAGE_ADDR);
    page(
        "APIC-access page, not aligned",
        |c| c.secondary |= SecondaryBased::VIRTUALIZE_APIC_ACCESSES,
        APIC_ACCESS_ADDR,
    );
    page("VMREAD bitmap, not aligned", |c| c.secondary |= SecondaryBased::VMCS_SHADOWING, VMREAD_BITMAP);
    page("VMWRITE bitmap, not aligned", |c| c.secondary |= SecondaryBased::VMCS_SHADOWING, VMWRITE_BITMAP);
}

/// Controls that need another one.
fn together(l2: &mut L2) {
    println!("controls that need each other");
    let mut with = |what: &str, change: fn(&mut Controls)| {
        row(l2, what, |l2, _| _ = l2.control(change));
    };
    with("virtual NMIs without NMI exiting", |c| c.pin |= PinBased::VIRTUAL_NMIS);
    with("virtual NMIs with NMI exiting", |c| c.pin |= PinBased::VIRTUAL_NMIS | PinBased::NMI_EXITING);
    with("NMI-window exiting without virtual NMIs", |c| {
        c.pin |= PinBased::NMI_EXITING;
        c.primary |= PrimaryBased::NMI_WINDOW_EXITING;
    });
    with("x2APIC mode without TPR shadow", |c| c.secondary |= SecondaryBased::VIRTUALIZE_X2APIC_MODE);
    with("APIC-register virtualization without TPR shadow", |c| {
        c.secondary |= SecondaryBased::APIC_REGISTER_VIRTUALIZATION;
    });
    with("virtual-interrupt delivery without TPR shadow", |c| {
        c.pin |= PinBased::EXTERNAL_INTERRUPT_EXITING;
        c.secondary |= SecondaryBased::VIRTUAL_INTERRUPT_DELIVERY;
    });
    with("unrestricted guest without EPT", |c| c.secondary |= SecondaryBased::UNRESTRICTED_GUEST);
    with("VPID 0", |c| c.secondary |= SecondaryBased::ENABLE_VPID);
    with("saving of the preemption timer without it", |c| c.exit |= ExitControls::SAVE_PREEMPTION_TIMER_VALUE);
    with("saving of the preemption timer with it", |c| {
        c.exit |= ExitControls::SAVE_PREEMPTION_TIMER_VALUE;
        c.pin |= PinBased::ACTIVATE_PREEMPTION_TIMER;
    });
    if !has_vm_functions() {
        return;
    }
    row(l2, "a VM function that is not offered", |l2, c| {
        l2.control(|controls| controls.secondary |= SecondaryBased::ENABLE_VM_FUNCTIONS);
        c.write(VM_FUNCTION_CONTROL, 1 << 1);
    });
    row(l2, "EPTP switching without EPT", |l2, c| {
        l2.control(|controls| controls.secondary |= SecondaryBased::ENABLE_VM_FUNCTIONS);
        c.write(VM_FUNCTION_CONTROL, 1);
    });
}

fn has_vm_functions() -> bool {
    setup::capabilities().secondary.supports(SecondaryBased::ENABLE_VM_FUNCTIONS)
}

fn tpr(l2: &mut L2) {
    println!("TPR shadow");
    let page = pages::take();
    let mut tpr = |what: &str, vtpr: u8, threshold: u32, change: fn(&mut Controls)| {
        row(l2, what, |l2, c| {
            memory::write(page + 0x80, vtpr);
            l2.control(|controls| controls.primary |= PrimaryBased::USE_TPR_SHADOW);
            l2.control(change);
            c.write(VIRTUAL_APIC_PAGE_ADDR, page);
            c.write(APIC_ACCESS_ADDR, page);
            c.write(TPR_THRESHOLD, threshold);
        });
    };
    let none: fn(&mut Controls) = |_| {};
    tpr("threshold 16", 0xff, 16, none);
    tpr("threshold 3, VTPR 2F", 0x2f, 3, none);
    tpr("threshold 3, VTPR 30", 0x30, 3, none);
    tpr("x2APIC mode", 0, 0, |c| c.secondary |= SecondaryBased::VIRTUALIZE_X2APIC_MODE);
    tpr("x2APIC mode and APIC-access page", 0, 0, |c| {
        c.secondary |= SecondaryBased::VIRTUALIZE_X2APIC_MODE | SecondaryBased::VIRTUALIZE_APIC_ACCESSES;
    });
    tpr("virtual-interrupt delivery without external-interrupt exiting", 0, 0, |c| {
        c.secondary |= SecondaryBased::VIRTUAL_INTERRUPT_DELIVERY;
    });
}

fn ept(l2: &mut L2) {
    println!("EPT");
    let tables = guests::vmx::ept::Ept::identity().pointer();
    let mut pointer = |what: &str, eptp: u64| {
        row(l2, what, |l2, c| {
            l2.control(|controls| controls.secondary |= SecondaryBased::ENABLE_EPT);
            c.write(EPT_POINTER, eptp);
        });
    };
    pointer("right", tables);
    pointer("memory type 1", tables & !7 | 1);
    pointer("memory type 7", tables | 7);
    pointer("3 levels", tables & !(7 << 3) | 2 << 3);
    pointer("8 levels", tables | 7 << 3);
    pointer("bit 8", tables | 1 << 8);
    pointer("bit 11", tables | 1 << 11);
    pointer("too wide", tables | too_wide());
    pointer("bit 63", tables | 1 << 63);
    let all = SecondaryBased::ENABLE_EPT | SecondaryBased::ENABLE_VM_FUNCTIONS;
    let lists = [("EPTP list, not aligned", UNALIGNED), ("EPTP list, too wide", too_wide())];
    for (what, list) in lists.into_iter().filter(|_| has_vm_functions()) {
        row(l2, what, |l2, c| {
            l2.control(|controls| controls.secondary |= all);
            c.write(EPT_POINTER, tables);
            c.write(VM_FUNCTION_CONTROL, 1);
            c.write(EPTP_LIST_ADDRESS, list);
        });
    }
    if l2.control(|controls| controls.secondary |= SecondaryBased::ENABLE_PML) {
        row(l2, "PML without EPT", |l2, _| _ = l2.control(|controls| controls.secondary |= SecondaryBased::ENABLE_PML));
        for (what, address) in [("PML address, not aligned", UNALIGNED), ("PML address, too wide", too_wide())] {
            row(l2, what, |l2, c| {
                l2.control(|controls| controls.secondary |= SecondaryBased::ENABLE_EPT | SecondaryBased::ENABLE_PML);
                c.write(EPT_POINTER, tables);
                c.write(PML_ADDRESS, address);
            });
        }
    }
}

/// The MSR lists.
fn lists(l2: &mut L2) {
    println!("MSR lists");
    for (name, count, address) in [
        ("exit store", VM_EXIT_MSR_STORE_COUNT, VM_EXIT_MSR_STORE_ADDR),
        ("exit load", VM_EXIT_MSR_LOAD_COUNT, VM_EXIT_MSR_LOAD_ADDR),
        ("entry load", VM_ENTRY_MSR_LOAD_COUNT, VM_ENTRY_MSR_LOAD_ADDR),
    ] {
        println!("{name}");
        for (what, entries, at) in [
            ("not aligned", 1, 0x10_0008),
            ("too wide", 1, too_wide()),
            ("the end too wide", 2, too_wide() - 16),
            ("not aligned, empty", 0, 0x10_0008),
        ] {
            row(l2, what, |_, c| {
                c.write(count, entries);
                c.write(address, at);
            });
        }
    }
}
