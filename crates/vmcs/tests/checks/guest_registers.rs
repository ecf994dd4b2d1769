//! SDM 3C 27.3.1.1 and 27.3.1.4: the guest's control registers, MSRs, RIP, RFLAGS and SSP.

use vmcs::Access;
use vmcs::controls::{EntryControls, SecondaryBased};
use vmcs::fields::*;

use crate::guest_segments::{guest_32_bit, restricted};
use crate::{Machine, NOT_CANONICAL, Row, TOO_WIDE};

fn entry(m: &mut Machine, controls: EntryControls) {
    m.set(VM_ENTRY_CONTROLS, controls.bits());
}

pub(crate) const ROWS: &[Row] = &[
    ("", restricted),
    ("", guest_32_bit),
    ("GUEST_CR0_FIXED", |m| m.vmcs.write(GUEST_CR0, 0x8001_0013)),
    ("", |m| m.vmcs.write(GUEST_CR0, 0xe001_0033)),
    ("", |m| {
        // Real mode, without paging, is what unrestricted guest is for.
        guest_32_bit(m);
        m.vmcs.write(GUEST_CR0, 0x20);
    }),
    ("GUEST_CR0_FIXED", |m| {
        guest_32_bit(m);
        restricted(m);
        m.vmcs.write(GUEST_CR0, 0x21);
    }),
    ("GUEST_PG_NEEDS_PE", |m| {
        guest_32_bit(m);
        m.vmcs.write(GUEST_CR0, 0x8000_0020);
    }),
    ("GUEST_CR4_FIXED", |m| m.vmcs.write(GUEST_CR4, 0x20)),
    ("GUEST_CR4_FIXED", |m| m.vmcs.write(GUEST_CR4, 0x8000_2020)),
    ("GUEST_CET_NEEDS_WP", |m| {
        m.vmcs.write(GUEST_CR4, 0x80_2020);
        m.vmcs.write(GUEST_CR0, 0x8000_0033);
    }),
    ("GUEST_DEBUGCTL_RESERVED", |m| m.vmcs.write(GUEST_IA32_DEBUGCTL, 1 << 3)),
    ("", |m| {
        m.clear(VM_ENTRY_CONTROLS, EntryControls::LOAD_DEBUG_CONTROLS.bits());
        m.vmcs.write(GUEST_IA32_DEBUGCTL, 1 << 3);
        m.vmcs.write(GUEST_DR7, 1 << 32);
    }),
    ("GUEST_IA32E_NEEDS_PAGING", |m| m.vmcs.write(GUEST_CR4, 0x2000)),
    ("GUEST_IA32E_NEEDS_PAGING", |m| m.vmcs.write(GUEST_CR0, 0x1_0033)),
    ("GUEST_PCIDE_NEEDS_IA32E", |m| {
        guest_32_bit(m);
        m.vmcs.write(GUEST_CR4, 0x2_2000);
    }),
    ("GUEST_CR3_WIDTH", |m| m.vmcs.write(GUEST_CR3, TOO_WIDE)),
    ("GUEST_DR7_32_BIT", |m| m.vmcs.write(GUEST_DR7, 1 << 32)),
    ("GUEST_SYSENTER_ESP_CANONICAL", |m| m.vmcs.write(GUEST_SYSENTER_ESP, NOT_CANONICAL)),
    ("GUEST_SYSENTER_EIP_CANONICAL", |m| m.vmcs.write(GUEST_SYSENTER_EIP, NOT_CANONICAL)),
    ("GUEST_CET_CANONICAL", |m| {
        entry(m, EntryControls::LOAD_CET_STATE);
        m.vmcs.write(GUEST_INTR_SSP_TABLE, NOT_CANONICAL);
    }),
    ("GUEST_PERF_GLOBAL_CTRL_RESERVED", |m| {
        entry(m, EntryControls::LOAD_IA32_PERF_GLOBAL_CTRL);
        m.vmcs.write(GUEST_IA32_PERF_GLOBAL_CTRL, 1 << 63);
    }),
    ("GUEST_PAT_TYPES", |m| m.vmcs.write(GUEST_IA32_PAT, 0x0003_0406_0007_0406)),
    ("GUEST_EFER_RESERVED", |m| m.vmcs.write(GUEST_IA32_EFER, 0x502)),
    ("GUEST_EFER_LMA GUEST_EFER_LME", |m| m.vmcs.write(GUEST_IA32_EFER, 0x100)),
    ("GUEST_EFER_LMA", |m| m.vmcs.write(GUEST_IA32_EFER, 0)),
    ("GUEST_EFER_LME", |m| m.vmcs.write(GUEST_IA32_EFER, 0x400)),
    ("", |m| {
        // LME without LMA is a guest on its way into IA-32e mode: paging is still off.
        guest_32_bit(m);
        m.vmcs.write(GUEST_CR0, 0x21);
        m.vmcs.write(GUEST_IA32_EFER, 0x100);
    }),
    ("GUEST_BNDCFGS_RESERVED", |m| {
        entry(m, EntryControls::LOAD_IA32_BNDCFGS);
        m.vmcs.write(GUEST_BNDCFGS, 4);
    }),
    ("GUEST_BNDCFGS_CANONICAL", |m| {
        entry(m, EntryControls::LOAD_IA32_BNDCFGS);
        m.vmcs.write(GUEST_BNDCFGS, NOT_CANONICAL);
    }),
    ("GUEST_RTIT_CTL_RESERVED", |m| {
        entry(m, EntryControls::LOAD_IA32_RTIT_CTL);
        m.vmcs.write(GUEST_IA32_RTIT_CTL, 1 << 63);
    }),
    ("GUEST_S_CET_RESERVED", |m| {
        entry(m, EntryControls::LOAD_CET_STATE);
        m.vmcs.write(GUEST_S_CET, 0xc00);
    }),
    ("GUEST_LBR_CTL_RESERVED", |m| {
        entry(m, EntryControls::LOAD_GUEST_IA32_LBR_CTL);
        m.vmcs.write(GUEST_IA32_LBR_CTL, 1 << 5);
    }),
    ("GUEST_PKRS_RESERVED", |m| {
        entry(m, EntryControls::LOAD_PKRS);
        m.vmcs.write(GUEST_IA32_PKRS, 1 << 32);
    }),
    ("GUEST_UINV_RESERVED", |m| {
        entry(m, EntryControls::LOAD_UINV);
        m.vmcs.write(GUEST_UINV, 0x100);
    }),
    ("GUEST_RIP_32_BIT", |m| {
        guest_32_bit(m);
        m.vmcs.write(GUEST_RIP, 1 << 32);
    }),
    ("GUEST_RIP_32_BIT", |m| {
        // Compatibility mode: IA-32e mode with a code segment that is not 64-bit.
        m.vmcs.write(GUEST_CS_ACCESS_RIGHTS, 0xc09b);
        m.vmcs.write(GUEST_RIP, 1 << 32);
    }),
    ("", |m| m.vmcs.write(GUEST_RIP, 1 << 47)),
    ("GUEST_RIP_WIDTH", |m| m.vmcs.write(GUEST_RIP, 1 << 48)),
    ("GUEST_RFLAGS_RESERVED", |m| m.vmcs.write(GUEST_RFLAGS, 0x200)),
    ("GUEST_RFLAGS_RESERVED", |m| m.vmcs.write(GUEST_RFLAGS, 0x8202)),
    ("GUEST_RFLAGS_RESERVED", |m| m.vmcs.write(GUEST_RFLAGS, 0x40_0202)),
    ("", |m| m.vmcs.write(GUEST_RFLAGS, 0x3d_7ed7)),
    ("GUEST_RFLAGS_IF", |m| {
        m.vmcs.write(GUEST_RFLAGS, 2);
        m.vmcs.write(VM_ENTRY_INTERRUPTION_INFO, 0x8000_0030);
    }),
    ("GUEST_SSP_ALIGNMENT", |m| {
        entry(m, EntryControls::LOAD_CET_STATE);
        m.vmcs.write(GUEST_SSP, 1);
    }),
    ("GUEST_SSP_WIDTH", |m| {
        entry(m, EntryControls::LOAD_CET_STATE);
        m.vmcs.write(GUEST_SSP, 1 << 48);
    }),
    ("GUEST_RFLAGS_VM", |m| {
        // Virtual-8086 mode needs protected mode; everything else is as virtual-8086 mode wants it.
        crate::guest_segments::virtual_8086(m);
        m.vmcs.write(GUEST_CR0, 0x20);
    }),
];

/// "load IA32_EFER" off: the field is not looked at, whatever it holds.
#[test]
fn efer_counts_only_if_loaded() {
    let mut machine = Machine::new();
    machine.clear(VM_ENTRY_CONTROLS, EntryControls::LOAD_IA32_EFER.bits());
    machine.vmcs.write(GUEST_IA32_EFER, u64::MAX);
    assert_eq!(machine.broken(), [""; 0]);
}

/// A real-mode guest of L1 that does not use unrestricted guest: what every L1 of 2008 got wrong first.
#[test]
fn real_mode_needs_unrestricted_guest() {
    let mut machine = Machine::new();
    guest_32_bit(&mut machine);
    machine.vmcs.write(GUEST_CR0, 0x20);
    machine.clear(SECONDARY_VM_EXEC_CONTROL, SecondaryBased::UNRESTRICTED_GUEST.bits());
    machine.vmcs.write(GUEST_SS_SELECTOR, 0x10);
    assert_eq!(machine.broken(), ["GUEST_CR0_FIXED"]);
}
