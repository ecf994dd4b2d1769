//! What the processor's VMX can do and what its CPUID says, as the text of a board's `vmx-caps.toml`.
//!
//! The host's tests take a machine's answers from that file, so all is printed as the processor gave it. On a machine
//! without VMX there is nothing to print: the run ends with status 1.
#![no_std]
#![no_main]

use core::arch::x86_64::CpuidResult;

use arch::msr::Msr;
use guests::{cpu, entry, exit, msr, print, println};

entry!(main);

fn main() {
    if cpu::cpuid(1, 0).ecx & 1 << 5 == 0 {
        println!("# CPUID shows no VMX");
        exit(1);
    }
    println!("# Printed by the guest caps on the bare machine; boards/README.md says how to print it again.");
    print!("# ");
    for leaf in 0x8000_0002..=0x8000_0004 {
        let part = cpu::cpuid(leaf, 0);
        for byte in [part.eax, part.ebx, part.ecx, part.edx].into_iter().flat_map(u32::to_le_bytes) {
            if byte != 0 {
                print!("{}", char::from(byte));
            }
        }
    }
    println!("\n\n# TOML's integers end at 63 bits, so an MSR is a string.\n[msr]");
    msrs();
    println!("\n# LEAF.SUBLEAF = [EAX, EBX, ECX, EDX]\n[cpuid]");
    leaves();
    exit(0)
}

/// IA32_FEATURE_CONTROL and the capability MSRs that exist given the others: SDM 3D appendix A "VMX Capability Reporting
/// Facility" says in each section when they do.
fn msrs() {
    let allowed_1 = |number, bit: u32| msr::read(number) >> 32 & 1 << bit != 0;
    let has_true_controls = msr::read(Msr::VMX_BASIC) & 1 << 55 != 0;
    let (primary, exit) = if has_true_controls {
        (Msr::VMX_TRUE_PROCBASED_CTLS, Msr::VMX_TRUE_EXIT_CTLS)
    } else {
        (Msr::VMX_PROCBASED_CTLS, Msr::VMX_EXIT_CTLS)
    };
    let secondary = |bit| allowed_1(primary, 31) && allowed_1(Msr::VMX_PROCBASED_CTLS2, bit);
    for (name, number, exists) in [
        ("FEATURE_CONTROL", Msr::FEATURE_CONTROL, true),
        ("VMX_BASIC", Msr::VMX_BASIC, true),
        ("VMX_PINBASED_CTLS", Msr::VMX_PINBASED_CTLS, true),
        ("VMX_PROCBASED_CTLS", Msr::VMX_PROCBASED_CTLS, true),
        ("VMX_EXIT_CTLS", Msr::VMX_EXIT_CTLS, true),
        ("VMX_ENTRY_CTLS", Msr::VMX_ENTRY_CTLS, true),
        ("VMX_MISC", Msr::VMX_MISC, true),
        ("VMX_CR0_FIXED0", Msr::VMX_CR0_FIXED0, true),
        ("VMX_CR0_FIXED1", Msr::VMX_CR0_FIXED1, true),
        ("VMX_CR4_FIXED0", Msr::VMX_CR4_FIXED0, true),
        ("VMX_CR4_FIXED1", Msr::VMX_CR4_FIXED1, true),
        ("VMX_VMCS_ENUM", Msr::VMX_VMCS_ENUM, true),
        ("VMX_PROCBASED_CTLS2", Msr::VMX_PROCBASED_CTLS2, allowed_1(primary, 31)),
        // With "enable EPT" or "enable VPID".
        ("VMX_EPT_VPID_CAP", Msr::VMX_EPT_VPID_CAP, secondary(1) || secondary(5)),
        ("VMX_TRUE_PINBASED_CTLS", Msr::VMX_TRUE_PINBASED_CTLS, has_true_controls),
        ("VMX_TRUE_PROCBASED_CTLS", Msr::VMX_TRUE_PROCBASED_CTLS, has_true_controls),
        ("VMX_TRUE_EXIT_CTLS", Msr::VMX_TRUE_EXIT_CTLS, has_true_controls),
        ("VMX_TRUE_ENTRY_CTLS", Msr::VMX_TRUE_ENTRY_CTLS, has_true_controls),
        // With "enable VM functions", "activate tertiary controls", and "activate secondary controls" of the exit.
        ("VMX_VMFUNC", Msr::VMX_VMFUNC, secondary(13)),
        ("VMX_PROCBASED_CTLS3", Msr::VMX_PROCBASED_CTLS3, allowed_1(primary, 17)),
        ("VMX_EXIT_CTLS2", Msr::VMX_EXIT_CTLS2, allowed_1(exit, 31)),
    ] {
        if exists {
            println!("{:#05x} = \"{:#018x}\" # IA32_{name}", number.0, msr::read(number));
        }
    }
}

/// The leaves that exist of those that Nestling looks at.
fn leaves() {
    let highest = cpu::cpuid(0, 0).eax;
    for leaf in [0, 1, 2, 4, 7, 0xb, 0xd, 0x15, 0x16].into_iter().filter(|&leaf| leaf <= highest) {
        match leaf {
            // EAX[4:0] is the cache's type, 0 for none; ECX[15:8] of leaf 0xb the level's.
            4 => print_until(leaf, |answer| answer.eax & 0x1f == 0),
            0xb => print_until(leaf, |answer| answer.ecx >> 8 & 0xff == 0),
            7 => (0..=cpu::cpuid(7, 0).eax.min(1)).for_each(|subleaf| print_leaf(leaf, subleaf)),
            0xd => state_components(),
            _ => print_leaf(leaf, 0),
        }
    }
    for leaf in 0x8000_0000..=cpu::cpuid(0x8000_0000, 0).eax.min(0x8000_0008) {
        print_leaf(leaf, 0);
    }
}

/// Leaf 0xd: two subleaves about all of the XSAVE area, then one for each part that XCR0 or IA32_XSS may enable.
fn state_components() {
    let parts = cpu::cpuid(0xd, 0).eax | cpu::cpuid(0xd, 1).ecx;
    for subleaf in (0..32).filter(|subleaf| *subleaf < 2 || parts & 1 << subleaf != 0) {
        print_leaf(0xd, subleaf);
    }
}

/// The subleaves of `leaf` up to and with the one that `is_last`.
fn print_until(leaf: u32, is_last: fn(&CpuidResult) -> bool) {
    for subleaf in 0.. {
        print_leaf(leaf, subleaf);
        if is_last(&cpu::cpuid(leaf, subleaf)) {
            break;
        }
    }
}

fn print_leaf(leaf: u32, subleaf: u32) {
    let answer = cpu::cpuid(leaf, subleaf);
    println!(
        "{leaf:#x}.{subleaf:#x} = [{:#010x}, {:#010x}, {:#010x}, {:#010x}]",
        answer.eax, answer.ebx, answer.ecx, answer.edx
    );
}
