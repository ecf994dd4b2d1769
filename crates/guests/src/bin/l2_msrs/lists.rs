//! Lists of MSRs that entries and exits load and store: SDM 3C 27.4 "Loading MSRs", 28.4 "Saving MSRs", 28.6 "Loading MSRs".

use arch::msr::Msr;
use guests::vmx::{Current, equal, instructions, pages};
use guests::{cpu, memory, msr, println};
use vmcs::Access;
use vmcs::fields::{
    GUEST_CR0, GUEST_CR3, GUEST_CR4, GUEST_SYSENTER_CS, VM_ENTRY_MSR_LOAD_ADDR, VM_ENTRY_MSR_LOAD_COUNT,
    VM_EXIT_MSR_LOAD_ADDR, VM_EXIT_MSR_LOAD_COUNT, VM_EXIT_MSR_STORE_ADDR, VM_EXIT_MSR_STORE_COUNT,
};

use crate::{UNKNOWN, free, see, seen};

/// A list of MSRs: index, value.
fn list(entries: &[(u32, u64)]) -> u64 {
    let page = pages::take();
    for (index, &(number, value)) in entries.iter().enumerate() {
        memory::write(page + 16 * index as u64, [u64::from(number), value]);
    }
    page
}

pub(crate) fn all() {
    println!("lists");
    let mut l2 = free(|| {
        see(0, msr::read(Msr::KERNEL_GS_BASE));
        see(1, msr::read(Msr::STAR));
        msr::write(Msr::KERNEL_GS_BASE, 0x3333);
        msr::write(Msr::STAR, 0x4444 << 32);
    });
    let mut current = Current;
    let enter = list(&[(Msr::KERNEL_GS_BASE.0, 0x1111), (Msr::STAR.0, 0x2222 << 32)]);
    let store = list(&[(Msr::STAR.0, 0), (Msr::KERNEL_GS_BASE.0, 0)]);
    let load = list(&[(Msr::KERNEL_GS_BASE.0, 0x5555), (Msr::STAR.0, 0x6666 << 32)]);
    current.write(VM_ENTRY_MSR_LOAD_ADDR, enter);
    current.write(VM_ENTRY_MSR_LOAD_COUNT, 2);
    current.write(VM_EXIT_MSR_STORE_ADDR, store);
    current.write(VM_EXIT_MSR_STORE_COUNT, 2);
    current.write(VM_EXIT_MSR_LOAD_ADDR, load);
    current.write(VM_EXIT_MSR_LOAD_COUNT, 2);
    println!(" {}", l2.run());
    equal("L2's KERNEL_GS_BASE", seen(0), 0x1111);
    equal("L2's STAR", seen(1), 0x2222 << 32);
    equal("stored STAR", memory::read(store + 8), 0x4444 << 32);
    equal("stored KERNEL_GS_BASE", memory::read(store + 24), 0x3333);
    equal("L1's KERNEL_GS_BASE", msr::read(Msr::KERNEL_GS_BASE), 0x5555);
    equal("L1's STAR", msr::read(Msr::STAR), 0x6666 << 32);
    msr::write(Msr::KERNEL_GS_BASE, 0);
    msr::write(Msr::STAR, 0);
    failing_lists();
}

/// What makes the entry fail. MSRs before it in the list were loaded.
fn failing_lists() {
    println!("lists that fail");
    for (what, entry) in [
        ("FS base", [u64::from(Msr::FS_BASE.0), 0]),
        ("GS base", [u64::from(Msr::GS_BASE.0), 0]),
        ("an x2APIC register", [0x808, 0]),
        ("what is not there", [UNKNOWN.0.into(), 0]),
        ("a value that is refused", [Msr::PAT.0.into(), 2]),
        ("bit 32 of the index", [1 << 32 | u64::from(Msr::STAR.0), 0]),
        ("STAR", [Msr::STAR.0.into(), 0]),
    ] {
        let mut l2 = free(|| {});
        let page = list(&[(Msr::KERNEL_GS_BASE.0, 0x1111), (0, 0), (Msr::LSTAR.0, 0x7777)]);
        memory::write(page + 16, entry);
        let store = list(&[(Msr::KERNEL_GS_BASE.0, 0x2222)]);
        let load = list(&[(Msr::CSTAR.0, 0x3333)]);
        msr::write(Msr::KERNEL_GS_BASE, 0);
        msr::write(Msr::LSTAR, 0);
        msr::write(Msr::CSTAR, 0);
        let mut current = Current;
        current.write(VM_ENTRY_MSR_LOAD_ADDR, page);
        current.write(VM_ENTRY_MSR_LOAD_COUNT, 3);
        current.write(VM_EXIT_MSR_STORE_ADDR, store);
        current.write(VM_EXIT_MSR_STORE_COUNT, 1);
        current.write(VM_EXIT_MSR_LOAD_ADDR, load);
        current.write(VM_EXIT_MSR_LOAD_COUNT, 1);
        // L2's state was loaded before its MSRs; L1 must not be left with any of it.
        let [cr0, cr3, cr4] = [cpu::cr0(), cpu::cr3(), cpu::cr4()];
        current.write(GUEST_CR0, cr0 | 1 << 18);
        current.write(GUEST_CR3, cr3 | 0x18);
        current.write(GUEST_CR4, cr4 | 1 << 2);
        current.write(GUEST_SYSENTER_CS, 0x77);
        println!(" {what}: {}", l2.run());
        equal("L1's CR0", cpu::cr0(), cr0);
        equal("L1's CR3", cpu::cr3(), cr3);
        equal("L1's CR4", cpu::cr4(), cr4);
        equal("L1's SYSENTER_CS", msr::read(Msr::SYSENTER_CS), 0);
        println!(
            "  KERNEL_GS_BASE {:x}, LSTAR {:x}, CSTAR {:x}, stored {:x}",
            msr::read(Msr::KERNEL_GS_BASE),
            msr::read(Msr::LSTAR),
            msr::read(Msr::CSTAR),
            memory::read::<u64>(store + 8)
        );
        let _ = instructions::vmclear(l2.region);
    }
}
