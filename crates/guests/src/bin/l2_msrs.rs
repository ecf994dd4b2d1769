//! MSRs and the time-stamp counter between an L2 and its L1: bitmaps, lists, load and save controls, offset.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering};

use arch::msr::Msr;
use guests::vmx::{Current, L2, equal, follow, instructions, pages, setup};
use guests::{cpu, entry, expect_fault, memory, msr, println};
use vmcs::Access;
use vmcs::controls::{EntryControls, ExitControls, PrimaryBased, SecondaryBased};
use vmcs::fields::*;

entry!(main);

/// An MSR that no processor has, in the range of the bitmaps, and some beside it.
const UNKNOWN: Msr = Msr(0x1234);
const PAT_RESET: u64 = 0x0007_0406_0007_0406;
const PAT_OTHER: u64 = 0x0006_0406_0006_0406;

/// What L2 saw.
static SEEN: [AtomicU64; 4] = [const { AtomicU64::new(0) }; 4];

fn seen(index: usize) -> u64 {
    SEEN[index].load(Ordering::Relaxed)
}

fn see(index: usize, value: u64) {
    SEEN[index].store(value, Ordering::Relaxed);
}

fn main() {
    setup::require();
    setup::on();
    bitmap();
    in_vmcs();
    passed_through();
    debug_controls();
    pat();
    efer();
    lists();
    failing_lists();
    tsc();
    println!("done");
}

fn read(number: u32) {
    let _ = expect_fault(|| _ = msr::read(Msr(number)));
}

/// A fault in L2, as a number for a check.
fn fault(action: impl FnMut()) -> u64 {
    expect_fault(action).map_or(0, |fault| fault.vector.0.into())
}

fn bitmap() {
    println!("without bitmaps");
    let l2 = &mut L2::new(|| {});
    follow(l2, "RDMSR", || read(Msr::SYSENTER_CS.0));
    follow(l2, "WRMSR", || msr::write(Msr::SYSENTER_CS, 0));
    follow(l2, "RDMSR of what is not there", || read(UNKNOWN.0));
    println!("with bitmaps that are 0");
    let page = pages::take();
    l2.control(|controls| controls.primary |= PrimaryBased::USE_MSR_BITMAPS);
    Current.write(MSR_BITMAP, page);
    follow(l2, "RDMSR and WRMSR", || msr::write(Msr::SYSENTER_CS, msr::read(Msr::SYSENTER_CS)));
    follow(l2, "RDMSR of c0000082", || read(Msr::LSTAR.0));
    follow(l2, "RDMSR of what is not there", || equal("#GP", fault(|| _ = msr::read(UNKNOWN)), 13));
    follow(l2, "WRMSR of what is not there", || equal("#GP", fault(|| msr::write(UNKNOWN, 0)), 13));
    follow(l2, "WRMSR of a value that is refused", || equal("#GP", fault(|| msr::write(Msr::PAT, 2)), 13));
    follow(l2, "RDMSR of 1fff", || equal("#GP", fault(|| _ = msr::read(Msr(0x1fff))), 13));
    follow(l2, "RDMSR of 2000", || read(0x2000));
    follow(l2, "RDMSR of bfffffff", || read(0xbfff_ffff));
    follow(l2, "RDMSR of c0002000", || read(0xc000_2000));
    println!("with bits for reading 174 and c0000082, for writing 175 and c0000083");
    for (part, number) in [(0, 0x174_u64), (0x400, 0x82), (0x800, 0x175), (0xc00, 0x83)] {
        let byte = page + part + number / 8;
        memory::write(byte, memory::read::<u8>(byte) | 1 << (number % 8));
    }
    follow(l2, "RDMSR of 174", || read(0x174));
    follow(l2, "WRMSR of 174", || msr::write(Msr(0x174), 0));
    follow(l2, "RDMSR of 175", || read(0x175));
    follow(l2, "WRMSR of 175", || msr::write(Msr(0x175), 0));
    follow(l2, "RDMSR of c0000082", || read(0xc000_0082));
    follow(l2, "WRMSR of c0000082", || msr::write(Msr::LSTAR, 0));
    follow(l2, "RDMSR of c0000083", || read(0xc000_0083));
    follow(l2, "WRMSR of c0000083", || msr::write(Msr::CSTAR, 0));
}

/// An L2 whose RDMSR and WRMSR do not exit.
fn free(code: fn()) -> L2 {
    let mut l2 = L2::new(code);
    l2.control(|controls| controls.primary |= PrimaryBased::USE_MSR_BITMAPS);
    Current.write(MSR_BITMAP, pages::take());
    l2
}

/// Registers that every entry loads and every exit saves.
fn in_vmcs() {
    println!("in the VMCS always");
    let mut l2 = free(|| {
        see(0, msr::read(Msr::SYSENTER_CS));
        see(1, msr::read(Msr::FS_BASE));
        see(2, msr::read(Msr::GS_BASE));
        msr::write(Msr::SYSENTER_ESP, 0x1111);
        msr::write(Msr::SYSENTER_EIP, 0x2222);
        msr::write(Msr::FS_BASE, 0x3333);
        msr::write(Msr::GS_BASE, 0x4444);
    });
    let mut current = Current;
    current.write(GUEST_SYSENTER_CS, 0x55);
    current.write(GUEST_FS_BASE, 0x6666);
    current.write(GUEST_GS_BASE, 0x7777);
    current.write(HOST_IA32_SYSENTER_CS, 0x88);
    current.write(HOST_IA32_SYSENTER_ESP, 0x9999);
    current.write(HOST_FS_BASE, 0xaaaa);
    println!(" {}", l2.run());
    equal("L2's SYSENTER_CS", seen(0), 0x55);
    equal("L2's FS base", seen(1), 0x6666);
    equal("L2's GS base", seen(2), 0x7777);
    equal("saved SYSENTER_ESP", current.read(GUEST_SYSENTER_ESP), 0x1111);
    equal("saved SYSENTER_EIP", current.read(GUEST_SYSENTER_EIP), 0x2222);
    equal("saved FS base", current.read(GUEST_FS_BASE), 0x3333);
    equal("saved GS base", current.read(GUEST_GS_BASE), 0x4444);
    equal("L1's SYSENTER_CS", msr::read(Msr::SYSENTER_CS), 0x88);
    equal("L1's SYSENTER_ESP", msr::read(Msr::SYSENTER_ESP), 0x9999);
    equal("L1's FS base", msr::read(Msr::FS_BASE), 0xaaaa);
    msr::write(Msr::FS_BASE, 0);
}

/// Registers that nobody saves: L1 and L2 have them in common.
fn passed_through() {
    println!("in common");
    let mut l2 = free(|| {
        see(0, msr::read(Msr::KERNEL_GS_BASE));
        msr::write(Msr::KERNEL_GS_BASE, 0x1111);
        msr::write(Msr::STAR, 0x2222 << 32);
        cpu::write_cr2(0x3333);
    });
    msr::write(Msr::KERNEL_GS_BASE, 0x4444);
    println!(" {}", l2.run());
    equal("L2's KERNEL_GS_BASE", seen(0), 0x4444);
    equal("L1's KERNEL_GS_BASE", msr::read(Msr::KERNEL_GS_BASE), 0x1111);
    equal("L1's STAR", msr::read(Msr::STAR), 0x2222 << 32);
    equal("L1's CR2", cpu::cr2(), 0x3333);
    msr::write(Msr::KERNEL_GS_BASE, 0);
    msr::write(Msr::STAR, 0);
}

fn debug_controls() {
    println!("debug controls");
    let code = || {
        see(0, cpu::dr7());
        cpu::write_dr7(0x455);
    };
    let mut l2 = free(code);
    let mut current = Current;
    cpu::write_dr7(0x402);
    current.write(GUEST_DR7, 0x408);
    println!(" neither loaded nor saved: {}", l2.run());
    equal("L2's DR7 is L1's", seen(0), 0x402);
    equal("the field is as it was", current.read(GUEST_DR7), 0x408);
    equal("L1's DR7", cpu::dr7(), 0x400);
    l2.control(|controls| {
        controls.entry |= EntryControls::LOAD_DEBUG_CONTROLS;
        controls.exit |= ExitControls::SAVE_DEBUG_CONTROLS;
    });
    cpu::write_dr7(0x402);
    l2.restart(code);
    println!(" loaded and saved: {}", l2.run());
    equal("L2's DR7", seen(0), 0x408);
    equal("saved", current.read(GUEST_DR7), 0x455);
    equal("L1's DR7", cpu::dr7(), 0x400);
}

fn pat() {
    println!("PAT");
    let before = msr::read(Msr::PAT);
    msr::write(Msr::PAT, PAT_RESET);
    let code = || {
        see(0, msr::read(Msr::PAT));
        msr::write(Msr::PAT, 0x0606_0606_0606_0606);
    };
    let mut l2 = free(code);
    let mut current = Current;
    println!(" no control: {}", l2.run());
    equal("L2's is L1's", seen(0), PAT_RESET);
    equal("L1's is L2's", msr::read(Msr::PAT), 0x0606_0606_0606_0606);
    l2.control(|controls| {
        controls.entry |= EntryControls::LOAD_IA32_PAT;
        controls.exit |= ExitControls::SAVE_IA32_PAT | ExitControls::LOAD_IA32_PAT;
    });
    current.write(GUEST_IA32_PAT, PAT_OTHER);
    current.write(HOST_IA32_PAT, PAT_RESET);
    l2.restart(code);
    println!(" loaded, saved, loaded: {}", l2.run());
    equal("L2's", seen(0), PAT_OTHER);
    equal("saved", current.read(GUEST_IA32_PAT), 0x0606_0606_0606_0606);
    equal("L1's", msr::read(Msr::PAT), PAT_RESET);
    msr::write(Msr::PAT, before);
}

fn efer() {
    /// System calls; no execute.
    const SCE: u64 = 1;
    const NXE: u64 = 1 << 11;
    const LONG: u64 = 0x500;
    println!("EFER");
    let code = || {
        see(0, msr::read(Msr::EFER));
        msr::write(Msr::EFER, LONG | SCE);
    };
    let mut l2 = free(code);
    let mut current = Current;
    msr::write(Msr::EFER, LONG | NXE);
    println!(" no control: {}", l2.run());
    equal("L2's is L1's", seen(0), LONG | NXE);
    equal("L1's is L2's", msr::read(Msr::EFER), LONG | SCE);
    l2.control(|controls| {
        controls.entry |= EntryControls::LOAD_IA32_EFER;
        controls.exit |= ExitControls::SAVE_IA32_EFER | ExitControls::LOAD_IA32_EFER;
    });
    current.write(GUEST_IA32_EFER, LONG | NXE | SCE);
    current.write(HOST_IA32_EFER, LONG);
    l2.restart(code);
    println!(" loaded, saved, loaded: {}", l2.run());
    equal("L2's", seen(0), LONG | NXE | SCE);
    equal("saved", current.read(GUEST_IA32_EFER), LONG | SCE);
    equal("L1's", msr::read(Msr::EFER), LONG);
}

/// A list of MSRs: index, value.
fn list(entries: &[(u32, u64)]) -> u64 {
    let page = pages::take();
    for (index, &(number, value)) in entries.iter().enumerate() {
        memory::write(page + 16 * index as u64, [u64::from(number), value]);
    }
    page
}

fn lists() {
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
}

/// SDM 3C 27.4 "Loading MSRs": what makes the entry fail. MSRs before it in the list were loaded.
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
        println!(" {what}: {}", l2.run());
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

/// Whether L2's time is L1's `before` to now, after `change`.
fn between(what: &str, time: u64, before: u64, change: impl Fn(u64) -> u64) {
    let is_between = time.wrapping_sub(change(before)) <= change(cpu::tsc()).wrapping_sub(change(before));
    println!(" {what}: {}", if is_between { "ok" } else { "not ok" });
}

fn tsc() {
    const OFFSET: u64 = 0xffff_ff00_0000_1234;
    println!("time-stamp counter");
    let code = || {
        see(0, cpu::tsc());
        see(1, msr::read(Msr::TSC));
        let (low, high): (u64, u64);
        // SAFETY: reads a counter.
        unsafe { core::arch::asm!("rdtscp", out("rax") low, out("rdx") high, out("rcx") _) };
        see(2, high << 32 | low);
    };
    let mut l2 = free(code);
    l2.control(|controls| controls.secondary |= SecondaryBased::ENABLE_RDTSCP);
    Current.write(TSC_OFFSET, OFFSET);
    let kinds = ["RDTSC", "RDMSR", "RDTSCP"];
    let before = cpu::tsc();
    println!(" without offset: {}", l2.run());
    for (index, kind) in kinds.into_iter().enumerate() {
        between(kind, seen(index), before, |time| time);
    }
    l2.control(|controls| controls.primary |= PrimaryBased::USE_TSC_OFFSETTING);
    l2.restart(code);
    let before = cpu::tsc();
    println!(" with offset: {}", l2.run());
    for (index, kind) in kinds.into_iter().enumerate() {
        between(kind, seen(index), before, |time| time.wrapping_add(OFFSET));
    }
    if !l2.control(|controls| controls.secondary |= SecondaryBased::USE_TSC_SCALING) {
        println!(" scaling: not offered");
        return;
    }
    // Half as fast: 48 binary places.
    Current.write(TSC_MULTIPLIER, 1 << 47);
    l2.restart(code);
    let before = cpu::tsc();
    println!(" with scaling by a half, and offset: {}", l2.run());
    for (index, kind) in kinds.into_iter().enumerate() {
        between(kind, seen(index), before, |time| (time / 2).wrapping_add(OFFSET));
    }
    l2.control(|controls| controls.primary -= PrimaryBased::USE_TSC_OFFSETTING);
    l2.restart(code);
    let before = cpu::tsc();
    println!(" scaling without offsetting: {}", l2.run());
    for (index, kind) in kinds.into_iter().enumerate() {
        between(kind, seen(index), before, |time| time);
    }
}
