//! `report=caps`: what the processor's VMX can do, what its CPUID says and which processors ACPI lists, as the text of a
//! board's `vmx-caps.toml`.
//!
//! The host's tests take a machine's answers from that file, so all is written as the processor gave it.

use core::fmt::{Result, Write};

use arch::Msr;
use arch::cpuid::CpuidResult;
use boot::acpi::AcpiMachine;
use hw::cpuid::cpuid;
use hw::msr;

/// IA32_FEATURE_CONTROL and the capability MSRs (SDM 3D appendix A "VMX Capability Reporting Facility").
const MSRS: [(&str, Msr); 21] = [
    ("FEATURE_CONTROL", Msr::FEATURE_CONTROL),
    ("VMX_BASIC", Msr::VMX_BASIC),
    ("VMX_PINBASED_CTLS", Msr::VMX_PINBASED_CTLS),
    ("VMX_PROCBASED_CTLS", Msr::VMX_PROCBASED_CTLS),
    ("VMX_EXIT_CTLS", Msr::VMX_EXIT_CTLS),
    ("VMX_ENTRY_CTLS", Msr::VMX_ENTRY_CTLS),
    ("VMX_MISC", Msr::VMX_MISC),
    ("VMX_CR0_FIXED0", Msr::VMX_CR0_FIXED0),
    ("VMX_CR0_FIXED1", Msr::VMX_CR0_FIXED1),
    ("VMX_CR4_FIXED0", Msr::VMX_CR4_FIXED0),
    ("VMX_CR4_FIXED1", Msr::VMX_CR4_FIXED1),
    ("VMX_VMCS_ENUM", Msr::VMX_VMCS_ENUM),
    ("VMX_PROCBASED_CTLS2", Msr::VMX_PROCBASED_CTLS2),
    ("VMX_EPT_VPID_CAP", Msr::VMX_EPT_VPID_CAP),
    ("VMX_TRUE_PINBASED_CTLS", Msr::VMX_TRUE_PINBASED_CTLS),
    ("VMX_TRUE_PROCBASED_CTLS", Msr::VMX_TRUE_PROCBASED_CTLS),
    ("VMX_TRUE_EXIT_CTLS", Msr::VMX_TRUE_EXIT_CTLS),
    ("VMX_TRUE_ENTRY_CTLS", Msr::VMX_TRUE_ENTRY_CTLS),
    ("VMX_VMFUNC", Msr::VMX_VMFUNC),
    ("VMX_PROCBASED_CTLS3", Msr::VMX_PROCBASED_CTLS3),
    ("VMX_EXIT_CTLS2", Msr::VMX_EXIT_CTLS2),
];

/// Basic leaves that Nestling looks at.
const LEAVES: [u32; 9] = [0, 1, 2, 4, 7, 0xb, 0xd, 0x15, 0x16];

/// Writes the text.
pub(crate) fn write(out: &mut impl Write, brand: &str, acpi: &AcpiMachine) -> Result {
    writeln!(out, "# Written by `cargo xtask caps`; boards/README.md says how to write it again.\n# {brand}")?;
    writeln!(
        out,
        "\n# TOML's integers end at 63 bits, so an MSR is a string. Those that do not exist are left out.\n[msr]"
    )?;
    for (name, number) in MSRS {
        if let Ok(value) = msr::try_read(number) {
            writeln!(out, "{:#05x} = \"{value:#018x}\" # IA32_{name}", number.0)?;
        }
    }
    writeln!(out, "\n# LEAF.SUBLEAF = [EAX, EBX, ECX, EDX]\n[cpuid]")?;
    let highest = cpuid(0, 0).eax;
    for leaf in LEAVES.into_iter().filter(|leaf| *leaf <= highest) {
        write_leaf(out, leaf)?;
    }
    for leaf in 0x8000_0000..=cpuid(0x8000_0000, 0).eax.min(0x8000_0008) {
        line(out, leaf, 0)?;
    }
    writeln!(out, "\n# The processors that the firmware lists.\n[acpi]")?;
    write!(out, "apic-ids = [")?;
    for (index, cpu) in acpi.cpus.iter().filter(|cpu| cpu.usable).enumerate() {
        write!(out, "{}{:#x}", if index == 0 { "" } else { ", " }, cpu.apic_id)?;
    }
    writeln!(out, "]")
}

/// A leaf with its subleaves.
fn write_leaf(out: &mut impl Write, leaf: u32) -> Result {
    match leaf {
        // EAX[4:0] is the cache's type, 0 for none; ECX[15:8] of leaf 0xb the level's.
        4 => until(out, leaf, |answer| answer.eax & 0x1f == 0),
        0xb => until(out, leaf, |answer| answer.ecx >> 8 & 0xff == 0),
        7 => (0..=cpuid(7, 0).eax.min(1)).try_for_each(|subleaf| line(out, leaf, subleaf)),
        // Two about all of the XSAVE area, then one for each part that XCR0 or IA32_XSS may enable.
        0xd => {
            let parts = cpuid(0xd, 0).eax | cpuid(0xd, 1).ecx;
            let mut subleaves = (0..32).filter(|subleaf| *subleaf < 2 || parts & 1 << subleaf != 0);
            subleaves.try_for_each(|subleaf| line(out, leaf, subleaf))
        }
        _ => line(out, leaf, 0),
    }
}

/// The subleaves up to and with the one that `is_last`.
fn until(out: &mut impl Write, leaf: u32, is_last: fn(&CpuidResult) -> bool) -> Result {
    for subleaf in 0..=0xff {
        line(out, leaf, subleaf)?;
        if is_last(&cpuid(leaf, subleaf)) {
            break;
        }
    }
    Ok(())
}

fn line(out: &mut impl Write, leaf: u32, subleaf: u32) -> Result {
    let CpuidResult { eax, ebx, ecx, edx } = cpuid(leaf, subleaf);
    writeln!(out, "{leaf:#x}.{subleaf:#x} = [{eax:#010x}, {ebx:#010x}, {ecx:#010x}, {edx:#010x}]")
}
