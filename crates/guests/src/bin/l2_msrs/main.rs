//! MSRs and the time-stamp counter between an L2 and its L1: bitmaps, lists, load and save controls, offset.
#![no_std]
#![no_main]

mod bitmap;
mod lists;
mod tsc;

use core::sync::atomic::{AtomicU64, Ordering};

use arch::msr::Msr;
use guests::vmx::{Current, L2, equal, pages, setup};
use guests::{cpu, entry, msr, println};
use vmcs::Access;
use vmcs::controls::{EntryControls, ExitControls, PrimaryBased};
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
    bitmap::all();
    in_vmcs();
    passed_through();
    debug_controls();
    pat();
    efer();
    lists::all();
    tsc::all();
    println!("done");
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
