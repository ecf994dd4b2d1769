//! SDM 3C 27.3.1.5 "Checks on Guest Non-Register State" and 27.3.1.6 "Checks on Guest Page-Directory-Pointer-Table
//! Entries".

use super::state::State;
use crate::fields::*;

/// Interruptibility state: blocking by STI.
const STI: u32 = 1 << 0;
/// Interruptibility state: blocking by MOV SS.
const MOV_SS: u32 = 1 << 1;
/// Interruptibility state: blocking by SMI.
const SMI: u32 = 1 << 2;
/// Interruptibility state: blocking by NMI.
const NMI: u32 = 1 << 3;
/// Interruptibility state: enclave interruption.
const ENCLAVE: u32 = 1 << 4;

/// Activity state: HLT.
const HLT: u32 = 1;

fn is_blocked(s: &State<'_>, by: u32) -> bool {
    s.read(GUEST_INTERRUPTIBILITY_INFO) & by != 0
}

pub(super) mod activity {
    use arch::Vector;

    use super::{HLT, MOV_SS, STI, is_blocked};
    use crate::checks::state::State;
    use crate::event::EventKind;
    use crate::fields::*;

    rules! { "GUEST_", "27.3.1.5", "Checks on Guest Non-Register State", GUEST, |s|
        ACTIVITY_SUPPORTED [GUEST_ACTIVITY_STATE]
            "the activity state must be 0 to 3 and one that the processor supports"
            => s.environment.capabilities.misc.supports_activity_state(s.read(GUEST_ACTIVITY_STATE));
        HLT_PRIVILEGE [GUEST_ACTIVITY_STATE, GUEST_SS_ACCESS_RIGHTS]
            "the activity state must not be HLT if SS's DPL is not 0"
            => s.read(GUEST_ACTIVITY_STATE) != HLT || s.rights(GUEST_SS_ACCESS_RIGHTS).dpl() == 0;
        ACTIVE_WHILE_BLOCKED [GUEST_ACTIVITY_STATE, GUEST_INTERRUPTIBILITY_INFO]
            "the activity state must be active while STI or MOV SS blocks"
            => s.read(GUEST_ACTIVITY_STATE) == 0 || !is_blocked(s, STI | MOV_SS);
        ACTIVITY_TAKES_EVENT [GUEST_ACTIVITY_STATE, VM_ENTRY_INTERRUPTION_INFO]
            "the injected event must be one that the activity state does not block"
            => takes_event(s);
    }

    /// HLT takes interrupts, NMIs, #DB, #MC and a pending monitor trap flag; shutdown NMIs and #MC; wait-for-SIPI nothing.
    fn takes_event(s: &State<'_>) -> bool {
        let (kind, vector) = (s.event.kind(), s.event.vector());
        let is_machine_check = kind == EventKind::HardwareException && vector == Vector::MC;
        !s.event.is_valid()
            || match s.read(GUEST_ACTIVITY_STATE) {
                HLT => match kind {
                    EventKind::ExternalInterrupt | EventKind::Nmi => true,
                    EventKind::HardwareException => is_machine_check || vector == Vector::DB,
                    EventKind::Other => vector.0 == 0,
                    _ => false,
                },
                2 => kind == EventKind::Nmi || is_machine_check,
                3 => false,
                _ => true,
            }
    }
}

pub(super) mod interruptibility {
    use arch::control::Rflags;

    use super::{ENCLAVE, MOV_SS, NMI, SMI, STI, is_blocked};
    use crate::controls::PinBased;
    use crate::event::EventKind;
    use crate::fields::*;

    rules! { "GUEST_", "27.3.1.5", "Checks on Guest Non-Register State", GUEST, |s|
        INTERRUPTIBILITY_RESERVED [GUEST_INTERRUPTIBILITY_INFO]
            "bits 31:5 of the interruptibility state must be 0"
            => s.read(GUEST_INTERRUPTIBILITY_INFO) >> 5 == 0;
        STI_AND_MOV_SS [GUEST_INTERRUPTIBILITY_INFO]
            "STI and MOV SS must not both block"
            => !is_blocked(s, STI) || !is_blocked(s, MOV_SS);
        STI_NEEDS_IF [GUEST_INTERRUPTIBILITY_INFO, GUEST_RFLAGS]
            "STI must not block if RFLAGS.IF is 0"
            => !is_blocked(s, STI) || s.guest_rflags().contains(Rflags::IF);
        INTERRUPT_WHILE_BLOCKED [GUEST_INTERRUPTIBILITY_INFO, VM_ENTRY_INTERRUPTION_INFO]
            "neither STI nor MOV SS must block if an external interrupt is injected"
            => !s.injects(EventKind::ExternalInterrupt) || !is_blocked(s, STI | MOV_SS);
        NMI_WHILE_MOV_SS [GUEST_INTERRUPTIBILITY_INFO, VM_ENTRY_INTERRUPTION_INFO]
            "MOV SS must not block if an NMI is injected"
            => !s.injects(EventKind::Nmi) || !is_blocked(s, MOV_SS);
        SMI_OUTSIDE_SMM [GUEST_INTERRUPTIBILITY_INFO]
            "SMIs must not be blocked outside SMM"
            => !is_blocked(s, SMI);
        NMI_WHILE_STI [GUEST_INTERRUPTIBILITY_INFO, VM_ENTRY_INTERRUPTION_INFO] @NMI
            "STI must not block if an NMI is injected, on processors that ask for it"
            => !s.environment.refuses_nmi_after_sti || !s.injects(EventKind::Nmi) || !is_blocked(s, STI);
        NMI_WHILE_NMI [GUEST_INTERRUPTIBILITY_INFO, VM_ENTRY_INTERRUPTION_INFO]
            "with \"virtual NMIs\", NMIs must not be blocked if an NMI is injected"
            => !s.pin.has(PinBased::VIRTUAL_NMIS) || !s.injects(EventKind::Nmi) || !is_blocked(s, NMI);
        ENCLAVE_INTERRUPTION [GUEST_INTERRUPTIBILITY_INFO]
            "an enclave interruption needs a processor with SGX, and MOV SS must not block"
            => !is_blocked(s, ENCLAVE) || s.environment.has_sgx && !is_blocked(s, MOV_SS);
    }
}

pub(super) mod pending_debug {
    use arch::control::Rflags;

    use super::{HLT, MOV_SS, STI, is_blocked};
    use crate::checks::state::State;
    use crate::fields::*;

    /// Bus-lock detection.
    const BLD: u64 = 1 << 11;
    /// Single step.
    const BS: u64 = 1 << 14;
    /// Debug exception inside a transactional region.
    const RTM: u64 = 1 << 16;
    /// B3 to B0, "enabled breakpoint", BS and RTM.
    const DEFINED: u64 = 0xf | 1 << 12 | BS | RTM;
    /// IA32_DEBUGCTL.BTF: single-step on branches.
    const BTF: u64 = 1 << 1;

    rules! { "GUEST_", "27.3.1.5", "Checks on Guest Non-Register State", GUEST, |s|
        PENDING_DEBUG_RESERVED [GUEST_PENDING_DBG_EXCEPTIONS]
            "reserved bits of the pending debug exceptions must be 0: 10:4, 13, 15, 63:17, and 11 without bus-lock detection"
            => pending(s) & !(DEFINED | if s.environment.has_bus_lock_debug { BLD } else { 0 }) == 0;
        PENDING_STEP_SET [GUEST_PENDING_DBG_EXCEPTIONS, GUEST_RFLAGS, GUEST_IA32_DEBUGCTL]
            "BS of the pending debug exceptions must be 1 while STI or MOV SS blocks or in HLT, if RFLAGS.TF is 1 and IA32_DEBUGCTL.BTF is 0"
            => !holds_traps(s) || !is_stepping(s) || pending(s) & BS != 0;
        PENDING_STEP_CLEAR [GUEST_PENDING_DBG_EXCEPTIONS, GUEST_RFLAGS, GUEST_IA32_DEBUGCTL]
            "BS of the pending debug exceptions must be 0 while STI or MOV SS blocks or in HLT, if RFLAGS.TF is 0 or IA32_DEBUGCTL.BTF is 1"
            => !holds_traps(s) || is_stepping(s) || pending(s) & BS == 0;
        PENDING_RTM_ALONE [GUEST_PENDING_DBG_EXCEPTIONS]
            "with RTM set, the pending debug exceptions must have bit 12 set and no other"
            => pending(s) & RTM == 0 || pending(s) == RTM | 1 << 12;
        PENDING_RTM_SUPPORTED [GUEST_PENDING_DBG_EXCEPTIONS]
            "RTM of the pending debug exceptions needs a processor with RTM"
            => pending(s) & RTM == 0 || s.environment.has_rtm;
        PENDING_RTM_WHILE_MOV_SS [GUEST_PENDING_DBG_EXCEPTIONS, GUEST_INTERRUPTIBILITY_INFO]
            "MOV SS must not block with RTM of the pending debug exceptions set"
            => pending(s) & RTM == 0 || !is_blocked(s, MOV_SS);
    }

    fn pending(s: &State<'_>) -> u64 {
        s.read(GUEST_PENDING_DBG_EXCEPTIONS)
    }

    /// Whether the guest is in a state in which a single-step trap would be pending.
    fn holds_traps(s: &State<'_>) -> bool {
        is_blocked(s, STI | MOV_SS) || s.read(GUEST_ACTIVITY_STATE) == HLT
    }

    fn is_stepping(s: &State<'_>) -> bool {
        s.guest_rflags().contains(Rflags::TF) && s.read(GUEST_IA32_DEBUGCTL) & BTF == 0
    }
}

pub(super) mod link_pointer {
    use crate::checks::state::State;
    use crate::controls::SecondaryBased;
    use crate::fields::*;

    rules! { "", "27.3.1.5", "Checks on Guest Non-Register State", LINK_POINTER, |s|
        LINK_POINTER_ALIGNMENT [VMCS_LINK_POINTER]
            "bits 11:0 of the VMCS link pointer must be 0, unless it is all ones"
            => is_none(s) || s.read(VMCS_LINK_POINTER) & 0xfff == 0;
        LINK_POINTER_WIDTH [VMCS_LINK_POINTER]
            "the VMCS link pointer must be within the physical-address width, unless it is all ones"
            => is_none(s) || s.is_structure_address(s.read(VMCS_LINK_POINTER));
        LINK_POINTER_REVISION [VMCS_LINK_POINTER]
            "the VMCS that the link pointer names must have the processor's VMCS revision identifier, and bit 31 after it must equal \"VMCS shadowing\""
            => !is_readable(s) || {
                let shadow = s.secondary.has(SecondaryBased::VMCS_SHADOWING);
                let expected = u64::from(s.environment.capabilities.basic.revision()) | u64::from(shadow) << 31;
                s.environment.memory.read_u64(s.read(VMCS_LINK_POINTER)) & 0xffff_ffff == expected
            };
        LINK_POINTER_NOT_CURRENT [VMCS_LINK_POINTER]
            "the VMCS link pointer must not be the current-VMCS pointer"
            => is_none(s) || s.read(VMCS_LINK_POINTER) != s.environment.current_vmcs;
    }

    fn is_none(s: &State<'_>) -> bool {
        s.read(VMCS_LINK_POINTER) == u64::MAX
    }

    /// Whether there is something to read at the link pointer.
    fn is_readable(s: &State<'_>) -> bool {
        !is_none(s) && s.is_page(VMCS_LINK_POINTER)
    }
}

pub(super) mod pdptes {
    use arch::control::{Cr0, Cr4};

    use crate::checks::state::State;
    use crate::controls::SecondaryBased;
    use crate::fields::*;

    rules! { "GUEST_", "27.3.1.6", "Checks on Guest Page-Directory-Pointer-Table Entries", PDPTE, |s|
        PDPTES_RESERVED [GUEST_PDPTE0, GUEST_PDPTE1, GUEST_PDPTE2, GUEST_PDPTE3, GUEST_CR3]
            "with PAE paging, reserved bits of the present page-directory-pointer entries must be 0: 2:1, 8:5 and those beyond the physical-address width"
            => !uses_pae_paging(s) || pdptes(s).iter().all(|&entry| is_valid(s, entry));
    }

    fn uses_pae_paging(s: &State<'_>) -> bool {
        s.guest_cr0().contains(Cr0::PG) && s.guest_cr4().contains(Cr4::PAE) && !s.is_ia32e_guest()
    }

    /// With EPT they are in the VMCS, without where CR3 points.
    fn pdptes(s: &State<'_>) -> [u64; 4] {
        if s.secondary.has(SecondaryBased::ENABLE_EPT) {
            [s.read(GUEST_PDPTE0), s.read(GUEST_PDPTE1), s.read(GUEST_PDPTE2), s.read(GUEST_PDPTE3)]
        } else {
            let table = s.read(GUEST_CR3) & 0xffff_ffe0;
            [0, 8, 16, 24].map(|offset| s.environment.memory.read_u64(table + offset))
        }
    }

    /// SDM 3A 4.4.1 "PDPTE Registers".
    fn is_valid(s: &State<'_>, entry: u64) -> bool {
        entry & 1 == 0 || entry & 0x1e6 == 0 && s.is_physical(entry)
    }
}
