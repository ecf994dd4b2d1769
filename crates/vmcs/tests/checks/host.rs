//! SDM 3C 27.2.2 to 27.2.4: host state.

use vmcs::Access;
use vmcs::controls::{EntryControls, ExitControls};
use vmcs::fields::*;

use crate::{Machine, NOT_CANONICAL, Row, TOO_WIDE};

/// A 32-bit host, outside IA-32e mode, with a 32-bit guest.
fn host_32_bit(m: &mut Machine) {
    m.in_ia32e_mode = false;
    m.clear(VM_EXIT_CONTROLS, ExitControls::HOST_ADDRESS_SPACE_SIZE.bits());
    m.vmcs.write(HOST_IA32_EFER, 0);
    m.vmcs.write(HOST_RIP, 0x1000);
    m.clear(VM_ENTRY_CONTROLS, EntryControls::IA32E_MODE_GUEST.bits());
    m.vmcs.write(GUEST_IA32_EFER, 0);
    m.vmcs.write(GUEST_CR4, 0x2000);
    m.vmcs.write(GUEST_CS_ACCESS_RIGHTS, 0xc09b);
}

fn cet(m: &mut Machine) {
    m.set(VM_EXIT_CONTROLS, ExitControls::LOAD_CET_STATE.bits());
}

pub(crate) const ROWS: &[Row] = &[
    ("", host_32_bit),
    ("HOST_CR0_FIXED", |m| m.vmcs.write(HOST_CR0, 0x8001_0013)),
    ("HOST_CR0_FIXED", |m| m.vmcs.write(HOST_CR0, 0x1_8001_0033)),
    ("HOST_CR4_FIXED", |m| m.vmcs.write(HOST_CR4, 0x20)),
    ("HOST_CET_NEEDS_WP", |m| {
        m.vmcs.write(HOST_CR4, 0x80_2020);
        m.vmcs.write(HOST_CR0, 0x8000_0033);
    }),
    ("HOST_CR3_WIDTH", |m| m.vmcs.write(HOST_CR3, TOO_WIDE)),
    ("HOST_SYSENTER_ESP_CANONICAL", |m| m.vmcs.write(HOST_IA32_SYSENTER_ESP, NOT_CANONICAL)),
    ("HOST_SYSENTER_EIP_CANONICAL", |m| m.vmcs.write(HOST_IA32_SYSENTER_EIP, 1 << 47)),
    ("HOST_CET_CANONICAL", |m| {
        cet(m);
        m.vmcs.write(HOST_INTR_SSP_TABLE, NOT_CANONICAL);
    }),
    ("HOST_CET_CANONICAL", |m| {
        cet(m);
        m.vmcs.write(HOST_S_CET, NOT_CANONICAL);
    }),
    ("HOST_PERF_GLOBAL_CTRL_RESERVED", |m| {
        m.set(VM_EXIT_CONTROLS, ExitControls::LOAD_IA32_PERF_GLOBAL_CTRL.bits());
        m.vmcs.write(HOST_IA32_PERF_GLOBAL_CTRL, 1 << 63);
    }),
    ("HOST_PAT_TYPES", |m| m.vmcs.write(HOST_IA32_PAT, 0x0007_0406_0007_0402)),
    ("HOST_PAT_TYPES", |m| m.vmcs.write(HOST_IA32_PAT, 0x0807_0406_0007_0406)),
    ("HOST_EFER_RESERVED", |m| m.vmcs.write(HOST_IA32_EFER, 0x502)),
    ("HOST_EFER_MODE", |m| m.vmcs.write(HOST_IA32_EFER, 0x400)),
    ("HOST_EFER_MODE", |m| m.vmcs.write(HOST_IA32_EFER, 0x100)),
    ("HOST_S_CET_RESERVED", |m| {
        cet(m);
        m.vmcs.write(HOST_S_CET, 1 << 6);
    }),
    ("HOST_S_CET_RESERVED", |m| {
        cet(m);
        m.vmcs.write(HOST_S_CET, 0xc00);
    }),
    ("HOST_SSP_ALIGNMENT", |m| {
        cet(m);
        m.vmcs.write(HOST_SSP, 2);
    }),
    ("HOST_PKRS_RESERVED", |m| {
        m.set(VM_EXIT_CONTROLS, ExitControls::LOAD_PKRS.bits());
        m.vmcs.write(HOST_IA32_PKRS, 1 << 32);
    }),
    ("HOST_SELECTOR_RPL_TI", |m| m.vmcs.write(HOST_ES_SELECTOR, 3)),
    ("HOST_SELECTOR_RPL_TI", |m| m.vmcs.write(HOST_TR_SELECTOR, 0x1c)),
    ("HOST_CS_TR_NOT_NULL", |m| m.vmcs.write(HOST_CS_SELECTOR, 0)),
    ("HOST_CS_TR_NOT_NULL", |m| m.vmcs.write(HOST_TR_SELECTOR, 0)),
    ("", |m| m.vmcs.write(HOST_SS_SELECTOR, 0)),
    ("HOST_SS_NOT_NULL", |m| {
        host_32_bit(m);
        m.vmcs.write(HOST_SS_SELECTOR, 0);
    }),
    ("HOST_BASES_CANONICAL", |m| m.vmcs.write(HOST_FS_BASE, NOT_CANONICAL)),
    ("HOST_BASES_CANONICAL", |m| m.vmcs.write(HOST_IDTR_BASE, NOT_CANONICAL)),
    ("HOST_OUTSIDE_IA32E_MODE", |m| m.in_ia32e_mode = false),
    ("HOST_INSIDE_IA32E_MODE", |m| {
        host_32_bit(m);
        m.in_ia32e_mode = true;
    }),
    ("HOST_OUTSIDE_IA32E_MODE HOST_GUEST_NEEDS_64_BIT_HOST", |m| {
        let (controls, efer, cr4) = (VM_ENTRY_CONTROLS, 0x500, 0x2020);
        host_32_bit(m);
        m.set(controls, EntryControls::IA32E_MODE_GUEST.bits());
        m.vmcs.write(GUEST_IA32_EFER, efer);
        m.vmcs.write(GUEST_CR4, cr4);
    }),
    ("HOST_PCIDE_NEEDS_64_BIT_HOST", |m| {
        host_32_bit(m);
        m.vmcs.write(HOST_CR4, 0x2_2000);
    }),
    ("HOST_RIP_32_BIT", |m| {
        host_32_bit(m);
        m.vmcs.write(HOST_RIP, 1 << 32);
    }),
    ("HOST_CET_32_BIT", |m| {
        host_32_bit(m);
        cet(m);
        m.vmcs.write(HOST_SSP, 1 << 32);
    }),
    ("HOST_PAE_NEEDED", |m| m.vmcs.write(HOST_CR4, 0x2000)),
    ("HOST_RIP_CANONICAL", |m| m.vmcs.write(HOST_RIP, 1 << 47)),
    ("HOST_SSP_CANONICAL", |m| {
        cet(m);
        m.vmcs.write(HOST_SSP, NOT_CANONICAL);
    }),
];

/// With 57-bit linear addresses the same address is canonical.
#[test]
fn canonical_depends_on_the_linear_address_width() {
    let mut machine = Machine::new();
    machine.vmcs.write(HOST_RIP, 1 << 47);
    let mut environment = machine.environment();
    environment.linear_address_bits = 57;
    assert!(vmcs::checks::first_broken(&machine.vmcs, &environment).is_none());
}
