//! Model-specific registers. SDM 4, table 2-2 "IA-32 Architectural MSRs".

use arch::msr::Msr;
use guests::{Fault, apic, cpu, expect_fault, msr, multiboot, print, println};

use crate::{attempt, equal, outcome};

/// An address that is not canonical with 48 or with 57 bits.
const NOT_CANONICAL: u64 = 1 << 62;

pub(crate) fn all() {
    unknown();
    apic_base();
    efer();
    pat();
    mtrrs();
    addresses();
    tsc();
}

fn read(msr: Msr) -> Option<Fault> {
    expect_fault(|| _ = msr::read(msr))
}

fn write(msr: Msr, value: u64) -> Option<Fault> {
    expect_fault(|| msr::write(msr, value))
}

/// Writes, reads back and puts back what was there.
fn keeps(what: &str, msr: Msr, value: u64) {
    let before = msr::read(msr);
    let fault = write(msr, value);
    let after = msr::read(msr);
    msr::write(msr, before);
    match fault {
        Some(fault) => println!(" {what}: {fault}"),
        None => equal(what, after, value),
    }
}

fn unknown() {
    println!("MSRs that no processor has");
    for number in [0x2, 0x1234, 0x3fff, 0x1_0000, 0xbfff_ffff, 0xc000_1234, 0xdead_beef, 0xffff_ffff] {
        print!(" {number:x}:");
        for fault in [read(Msr(number)), write(Msr(number), 0)] {
            match fault {
                Some(fault) => print!(" {fault}"),
                None => print!(" done"),
            }
        }
        println!();
    }
    println!("MSRs of the x2APIC in xAPIC mode");
    outcome("read 802", read(Msr(0x802)));
    outcome("write 80b", write(Msr(0x80b), 0));
    outcome("read 8ff", read(Msr(0x8ff)));
}

fn apic_base() {
    println!("APIC_BASE");
    let before = msr::read(Msr::APIC_BASE);
    equal("as started", before, 0xfee0_0900);
    outcome("the same", write(Msr::APIC_BASE, before));
    for bit in [0, 7, 9, 52, 63] {
        print!("  bit {bit},");
        outcome("written", write(Msr::APIC_BASE, before | 1 << bit));
    }
    outcome("x2APIC without enable", write(Msr::APIC_BASE, before & !apic::ENABLE | apic::EXTD));
    equal("unchanged", msr::read(Msr::APIC_BASE), before);
}

fn efer() {
    println!("EFER");
    let before = msr::read(Msr::EFER);
    equal("LME and LMA", before & 0x500, 0x500);
    keeps("SCE", Msr::EFER, before ^ 1);
    keeps("NXE", Msr::EFER, before ^ 1 << 11);
    outcome("LME off while paging", write(Msr::EFER, before & !(1 << 8)));
    for bit in [1, 7, 9, 16, 32, 63] {
        print!("  bit {bit},");
        outcome("written", write(Msr::EFER, before | 1 << bit));
    }
    // LMA is the processor's to set.
    let _ = write(Msr::EFER, before & !(1 << 10));
    equal("LMA stays", msr::read(Msr::EFER), before);
}

fn pat() {
    println!("PAT");
    keeps("all types", Msr::PAT, 0x0007_0605_0401_0006);
    outcome("type 2", write(Msr::PAT, 0x0007_0406_0007_0402));
    outcome("type 3", write(Msr::PAT, 0x0307_0406_0007_0406));
    outcome("type 8", write(Msr::PAT, 0x0007_0406_0008_0406));
    outcome("high bits of an entry", write(Msr::PAT, 0x8007_0406_0007_0406));
}

fn mtrrs() {
    println!("MTRRs");
    let capability = msr::read(Msr::MTRRCAP);
    println!(" variable ranges: {}", (8..=16).contains(&(capability & 0xff)));
    println!(" fixed ranges, write-combining: {:#x}", capability & 0x500);
    outcome("MTRRCAP written", write(Msr::MTRRCAP, capability));
    let default = msr::read(Msr::MTRR_DEF_TYPE);
    keeps("default type", Msr::MTRR_DEF_TYPE, 0xc00);
    outcome("default type 2", write(Msr::MTRR_DEF_TYPE, default & !7 | 2));
    outcome("default type 7", write(Msr::MTRR_DEF_TYPE, default & !7 | 7));
    for bit in [8, 9, 12, 63] {
        print!("  default type, bit {bit},");
        outcome("written", write(Msr::MTRR_DEF_TYPE, default | 1 << bit));
    }
    let ranges = (capability & 0xff) as u32;
    for range in [0, ranges - 1] {
        let base = Msr(Msr::MTRR_PHYSBASE0.0 + 2 * range);
        let mask = Msr(base.0 + 1);
        println!(" {} range", if range == 0 { "first" } else { "last" });
        keeps("base", base, 0x8000_0006);
        keeps("mask", mask, 0xf_8000_0800);
        outcome("type 3", write(base, 0x8000_0003));
        outcome("base, bit 8", write(base, 0x8000_0106));
        outcome("base, bit 63", write(base, 1 << 63));
        outcome("mask, bit 0", write(mask, 0xf_8000_0801));
        outcome("mask, bit 63", write(mask, 1 << 63));
    }
    for number in [0x250, 0x258, 0x259].into_iter().chain(0x268..=0x26f) {
        print!("  fixed {number:x}");
        keeps("keeps", Msr(number), 0x0606_0504_0100_0606);
    }
    outcome("fixed, type 2", write(Msr::MTRR_FIX64K_00000, 0x0606_0602_0606_0606));
    outcome("fixed, type 87", write(Msr::MTRR_FIX64K_00000, 0x8706_0606_0606_0606));
    outcome("251", read(Msr(0x251)));
}

/// Registers that hold addresses or selectors.
fn addresses() {
    println!("SYSENTER and SYSCALL");
    keeps("SYSENTER_CS", Msr::SYSENTER_CS, 0x18);
    keeps("SYSENTER_ESP", Msr::SYSENTER_ESP, 0xffff_8000_1234_5678);
    keeps("SYSENTER_EIP", Msr::SYSENTER_EIP, 0x7fff_1234_5678);
    outcome("SYSENTER_ESP, not canonical", write(Msr::SYSENTER_ESP, NOT_CANONICAL));
    outcome("SYSENTER_EIP, not canonical", write(Msr::SYSENTER_EIP, NOT_CANONICAL));
    keeps("STAR", Msr::STAR, 0x1234_5678_9abc_def0);
    keeps("LSTAR", Msr::LSTAR, 0xffff_8000_0000_0000);
    keeps("CSTAR", Msr::CSTAR, 0x7fff_ffff_ffff);
    keeps("FMASK", Msr::FMASK, 0x4_7700);
    outcome("LSTAR, not canonical", write(Msr::LSTAR, NOT_CANONICAL));
    outcome("CSTAR, not canonical", write(Msr::CSTAR, NOT_CANONICAL));

    println!("FS and GS");
    keeps("FS_BASE", Msr::FS_BASE, 0xffff_9000_0000_1000);
    keeps("GS_BASE", Msr::GS_BASE, 0x7fff_0000_1000);
    keeps("KERNEL_GS_BASE", Msr::KERNEL_GS_BASE, 0x1_2345_6789);
    for msr in [Msr::FS_BASE, Msr::GS_BASE, Msr::KERNEL_GS_BASE] {
        outcome("not canonical", write(msr, NOT_CANONICAL));
    }
    static THERE: u64 = 0x0123_4567_89ab_cdef;
    msr::write(Msr::FS_BASE, &raw const THERE as u64 - 8);
    let mut value = 0_u64;
    let _ = attempt!("mov {}, fs:[8]", out(reg) value);
    equal("read through FS", value, THERE);
    msr::write(Msr::FS_BASE, 0);
    msr::write(Msr::GS_BASE, 0x1000);
    msr::write(Msr::KERNEL_GS_BASE, 0x2000);
    let _ = attempt!("swapgs");
    equal("SWAPGS", msr::read(Msr::GS_BASE) << 16 | msr::read(Msr::KERNEL_GS_BASE), 0x2000_1000);
    let _ = attempt!("mov {0:x}, ds", "mov gs, {0:x}", out(reg) _);
    equal("loading GS sets its base", msr::read(Msr::GS_BASE), 0);
    let _ = attempt!("xor eax, eax", "mov gs, ax", out("rax") _);
    msr::write(Msr::GS_BASE, 0);
    msr::write(Msr::KERNEL_GS_BASE, 0);
}

/// Ticks of the TSC: more than the few instructions between two readings take, under a hypervisor too.
const NEAR: u64 = 1_000_000;

fn tsc() {
    let has_adjust = cpu::cpuid(7, 0).ebx & 1 << 1 != 0 && !multiboot::is_without("tsc_adjust");
    let adjust = has_adjust.then(|| msr::read(Msr::TSC_ADJUST));
    println!("TSC");
    let before = cpu::tsc();
    println!(" goes forward: {}", cpu::tsc() > before);
    println!(" the MSR is the counter: {}", msr::read(Msr::TSC).wrapping_sub(cpu::tsc()).wrapping_neg() < NEAR);
    let ahead = before + (1 << 40);
    msr::write(Msr::TSC, ahead);
    println!(" written: {}", cpu::tsc().wrapping_sub(ahead) < NEAR);
    match adjust {
        Some(adjust) => tsc_adjust(before, adjust),
        None => msr::write(Msr::TSC, cpu::tsc() - (1 << 40)),
    }
    keeps("TSC_AUX", Msr::TSC_AUX, 0x1234_5678);
    msr::write(Msr::TSC_AUX, 0x77);
    let mut auxiliary = 0_u64;
    let fault = attempt!("rdtscp", out("rcx") auxiliary, out("rax") _, out("rdx") _);
    // A machine without RDTSCP may have the MSR still.
    println!(" RDTSCP shows TSC_AUX: {}", fault.is_some() || auxiliary == 0x77);
    msr::write(Msr::TSC_AUX, 0);
}

/// The register that moves with the TSC, was `adjust`, and has the TSC 2^40 ahead of `before` now.
fn tsc_adjust(before: u64, adjust: u64) {
    let moved = msr::read(Msr::TSC_ADJUST).wrapping_sub(adjust);
    println!(" TSC_ADJUST follows: {}", moved.abs_diff(1 << 40) < NEAR);
    msr::write(Msr::TSC_ADJUST, adjust);
    println!(" TSC follows TSC_ADJUST: {}", cpu::tsc().wrapping_sub(before) < NEAR);
    equal("TSC_ADJUST reads back", msr::read(Msr::TSC_ADJUST), adjust);
    msr::write(Msr::TSC_ADJUST, adjust.wrapping_sub(1000));
    equal("TSC_ADJUST, backwards", msr::read(Msr::TSC_ADJUST), adjust.wrapping_sub(1000));
    msr::write(Msr::TSC_ADJUST, adjust);
}
