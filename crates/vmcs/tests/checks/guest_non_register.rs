//! SDM 3C 27.3.1.5 and 27.3.1.6: activity, interruptibility, pending debug exceptions, link pointer and PDPTEs.

use vmcs::controls::{PinBased, SecondaryBased};
use vmcs::fields::*;
use vmcs::{Access, EventInfo};

use crate::guest_segments::{guest_32_bit, restricted};
use crate::{CURRENT_VMCS, Machine, PAGE, Row, TOO_WIDE};

const HLT: u32 = 1;
const SHUTDOWN: u32 = 2;
const WAIT_FOR_SIPI: u32 = 3;

const STI: u32 = 1;
const MOV_SS: u32 = 2;
const SMI: u32 = 4;
const NMI: u32 = 8;
const ENCLAVE: u32 = 16;

fn activity(m: &mut Machine, state: u32, injected: u32) {
    m.vmcs.write(GUEST_ACTIVITY_STATE, state);
    m.vmcs.write(VM_ENTRY_INTERRUPTION_INFO, injected);
}

fn blocking(m: &mut Machine, by: u32, injected: EventInfo) {
    m.vmcs.write(GUEST_INTERRUPTIBILITY_INFO, by);
    m.vmcs.write(VM_ENTRY_INTERRUPTION_INFO, injected.0);
}

/// A guest with PAE paging, whose entries are in the VMCS.
fn pae(m: &mut Machine) {
    guest_32_bit(m);
    m.vmcs.write(GUEST_CR4, 0x2020);
    m.vmcs.write(GUEST_PDPTE0, 0x2001);
}

/// The same without EPT: the entries are in memory.
fn pae_without_ept(m: &mut Machine) {
    pae(m);
    restricted(m);
    m.clear(SECONDARY_VM_EXEC_CONTROL, SecondaryBased::ENABLE_EPT.bits());
    m.vmcs.write(GUEST_CR3, PAGE + 0x20);
    for entry in 0..4 {
        m.memory.set(PAGE + 0x20 + 8 * entry, 0x3019 + 0x1000 * entry);
    }
}

/// A shadow VMCS to link to.
fn shadow(m: &mut Machine, revision: u64) {
    m.vmcs.write(VMCS_LINK_POINTER, PAGE);
    m.memory.set(PAGE, revision);
}

pub(crate) const ROWS: &[Row] = &[
    ("GUEST_ACTIVITY_SUPPORTED", |m| activity(m, 4, 0)),
    ("GUEST_ACTIVITY_SUPPORTED", |m| {
        m.capabilities.misc.0 &= !(1 << 8);
        activity(m, WAIT_FOR_SIPI, 0);
    }),
    ("", |m| activity(m, WAIT_FOR_SIPI, 0)),
    ("GUEST_CS_DPL_OF_NON_CONFORMING GUEST_HLT_PRIVILEGE", |m| {
        m.set(GUEST_SS_ACCESS_RIGHTS, 3 << 5);
        activity(m, HLT, 0);
    }),
    ("GUEST_ACTIVE_WHILE_BLOCKED", |m| {
        blocking(m, STI, EventInfo::NONE);
        activity(m, HLT, 0);
    }),
    ("", |m| activity(m, HLT, 0x8000_0030)),
    ("", |m| activity(m, HLT, 0x8000_0202)),
    ("", |m| activity(m, HLT, 0x8000_0301)),
    ("", |m| activity(m, HLT, 0x8000_0312)),
    ("", |m| activity(m, HLT, 0x8000_0700)),
    ("GUEST_ACTIVITY_TAKES_EVENT", |m| activity(m, HLT, 0x8000_0306)),
    ("GUEST_ACTIVITY_TAKES_EVENT", |m| {
        activity(m, HLT, 0x8000_0480);
        m.vmcs.write(VM_ENTRY_INSTRUCTION_LEN, 2);
    }),
    ("", |m| activity(m, SHUTDOWN, 0x8000_0202)),
    ("", |m| activity(m, SHUTDOWN, 0x8000_0312)),
    ("GUEST_ACTIVITY_TAKES_EVENT", |m| activity(m, SHUTDOWN, 0x8000_0030)),
    ("GUEST_ACTIVITY_TAKES_EVENT", |m| activity(m, WAIT_FOR_SIPI, 0x8000_0202)),
    ("GUEST_INTERRUPTIBILITY_RESERVED", |m| blocking(m, 1 << 5, EventInfo::NONE)),
    ("GUEST_STI_AND_MOV_SS", |m| blocking(m, STI | MOV_SS, EventInfo::NONE)),
    ("GUEST_STI_NEEDS_IF", |m| {
        blocking(m, STI, EventInfo::NONE);
        m.vmcs.write(GUEST_RFLAGS, 2);
    }),
    ("GUEST_INTERRUPT_WHILE_BLOCKED", |m| blocking(m, STI, EventInfo::external(0x30))),
    ("GUEST_INTERRUPT_WHILE_BLOCKED", |m| blocking(m, MOV_SS, EventInfo::external(0x30))),
    ("GUEST_NMI_WHILE_MOV_SS", |m| blocking(m, MOV_SS, EventInfo::nmi())),
    ("GUEST_SMI_OUTSIDE_SMM", |m| blocking(m, SMI, EventInfo::NONE)),
    ("GUEST_NMI_WHILE_STI", |m| blocking(m, STI, EventInfo::nmi())),
    ("", |m| {
        m.refuses_nmi_after_sti = false;
        blocking(m, STI, EventInfo::nmi());
    }),
    ("GUEST_NMI_WHILE_NMI", |m| blocking(m, NMI, EventInfo::nmi())),
    ("", |m| {
        m.clear(PIN_BASED_VM_EXEC_CONTROL, PinBased::VIRTUAL_NMIS.bits());
        blocking(m, NMI, EventInfo::nmi());
    }),
    ("", |m| blocking(m, ENCLAVE, EventInfo::NONE)),
    ("GUEST_ENCLAVE_INTERRUPTION", |m| blocking(m, ENCLAVE | MOV_SS, EventInfo::NONE)),
    ("GUEST_ENCLAVE_INTERRUPTION", |m| {
        m.has_sgx = false;
        blocking(m, ENCLAVE, EventInfo::NONE);
    }),
    ("GUEST_PENDING_DEBUG_RESERVED", |m| m.vmcs.write(GUEST_PENDING_DBG_EXCEPTIONS, 1 << 4)),
    ("GUEST_PENDING_DEBUG_RESERVED", |m| m.vmcs.write(GUEST_PENDING_DBG_EXCEPTIONS, 1 << 63)),
    ("", |m| m.vmcs.write(GUEST_PENDING_DBG_EXCEPTIONS, 0x580f)),
    ("GUEST_PENDING_DEBUG_RESERVED", |m| {
        m.has_bus_lock_debug = false;
        m.vmcs.write(GUEST_PENDING_DBG_EXCEPTIONS, 1 << 11);
    }),
    ("GUEST_PENDING_STEP_SET", |m| {
        blocking(m, STI, EventInfo::NONE);
        m.vmcs.write(GUEST_RFLAGS, 0x302);
    }),
    ("", |m| {
        blocking(m, STI, EventInfo::NONE);
        m.vmcs.write(GUEST_RFLAGS, 0x302);
        m.vmcs.write(GUEST_PENDING_DBG_EXCEPTIONS, 1 << 14);
    }),
    ("GUEST_PENDING_STEP_CLEAR", |m| {
        activity(m, HLT, 0);
        m.vmcs.write(GUEST_PENDING_DBG_EXCEPTIONS, 1 << 14);
    }),
    ("GUEST_PENDING_STEP_CLEAR", |m| {
        blocking(m, MOV_SS, EventInfo::NONE);
        m.vmcs.write(GUEST_RFLAGS, 0x302);
        m.vmcs.write(GUEST_IA32_DEBUGCTL, 2);
        m.vmcs.write(GUEST_PENDING_DBG_EXCEPTIONS, 1 << 14);
    }),
    ("", |m| m.vmcs.write(GUEST_PENDING_DBG_EXCEPTIONS, 0x1_1000)),
    ("GUEST_PENDING_RTM_ALONE", |m| m.vmcs.write(GUEST_PENDING_DBG_EXCEPTIONS, 0x1_0000)),
    ("GUEST_PENDING_RTM_ALONE", |m| m.vmcs.write(GUEST_PENDING_DBG_EXCEPTIONS, 0x1_1001)),
    ("GUEST_PENDING_RTM_SUPPORTED", |m| {
        m.has_rtm = false;
        m.vmcs.write(GUEST_PENDING_DBG_EXCEPTIONS, 0x1_1000);
    }),
    ("GUEST_PENDING_RTM_WHILE_MOV_SS", |m| {
        blocking(m, MOV_SS, EventInfo::NONE);
        m.vmcs.write(GUEST_PENDING_DBG_EXCEPTIONS, 0x1_1000);
    }),
    ("LINK_POINTER_ALIGNMENT", |m| m.vmcs.write(VMCS_LINK_POINTER, PAGE + 8)),
    ("LINK_POINTER_WIDTH", |m| m.vmcs.write(VMCS_LINK_POINTER, TOO_WIDE)),
    ("", |m| shadow(m, 0x4e53)),
    ("LINK_POINTER_REVISION", |m| shadow(m, 0x4e54)),
    ("LINK_POINTER_REVISION", |m| shadow(m, 0x8000_4e53)),
    ("LINK_POINTER_REVISION", |m| m.vmcs.write(VMCS_LINK_POINTER, PAGE)),
    ("LINK_POINTER_REVISION", |m| {
        m.set(SECONDARY_VM_EXEC_CONTROL, SecondaryBased::VMCS_SHADOWING.bits());
        shadow(m, 0x4e53);
    }),
    ("", |m| {
        m.set(SECONDARY_VM_EXEC_CONTROL, SecondaryBased::VMCS_SHADOWING.bits());
        shadow(m, 0x8000_4e53);
    }),
    ("LINK_POINTER_NOT_CURRENT", |m| {
        m.vmcs.write(VMCS_LINK_POINTER, CURRENT_VMCS);
        m.memory.set(CURRENT_VMCS, 0x4e53);
    }),
    ("", pae),
    ("GUEST_PDPTES_RESERVED", |m| {
        pae(m);
        m.vmcs.write(GUEST_PDPTE3, 0x2003);
    }),
    ("GUEST_PDPTES_RESERVED", |m| {
        pae(m);
        m.vmcs.write(GUEST_PDPTE1, TOO_WIDE | 1);
    }),
    ("", |m| {
        // Entries that are not present are not looked at, nor is any without PAE paging.
        pae(m);
        m.vmcs.write(GUEST_PDPTE3, !1);
    }),
    ("", |m| m.vmcs.write(GUEST_PDPTE0, u64::MAX)),
    ("", pae_without_ept),
    ("GUEST_PDPTES_RESERVED", |m| {
        pae_without_ept(m);
        m.memory.set(PAGE + 0x38, 0x2021);
    }),
    ("GUEST_PDPTES_RESERVED", |m| {
        // CR3 points to where there is no memory: all ones are read.
        pae_without_ept(m);
        m.vmcs.write(GUEST_CR3, 0x9_0000);
    }),
];
