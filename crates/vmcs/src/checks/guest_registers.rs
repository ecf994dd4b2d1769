//! SDM 3C 27.3.1.1 "Checks on Guest Control Registers, Debug Registers, and MSRs".

use arch::control::{Cr0, Cr4, Efer};

use super::state::{State, is_pat, is_s_cet};
use crate::controls::EntryControls as Entry;
use crate::fields::*;

rules! { "GUEST_", "27.3.1.1", "Checks on Guest Control Registers, Debug Registers, and MSRs", GUEST, |s|
    CR0_FIXED [GUEST_CR0]
        "the guest's CR0 must have only bits that VMX operation supports, and those that it fixes to 1 (PE and PG are free with \"unrestricted guest\", NW and CD always)"
        => s.environment.capabilities.cr0.permits_ignoring(s.read(GUEST_CR0), unchecked_cr0(s).bits());
    PG_NEEDS_PE [GUEST_CR0]
        "the guest's CR0.PG needs CR0.PE"
        => !s.guest_cr0().contains(Cr0::PG) || s.guest_cr0().contains(Cr0::PE);
    CR4_FIXED [GUEST_CR4]
        "the guest's CR4 must have only bits that VMX operation supports, and those that it fixes to 1"
        => s.environment.capabilities.cr4.permits(s.read(GUEST_CR4));
    CET_NEEDS_WP [GUEST_CR4, GUEST_CR0]
        "the guest's CR4.CET needs CR0.WP"
        => !s.guest_cr4().contains(Cr4::CET) || s.guest_cr0().contains(Cr0::WP);
    DEBUGCTL_RESERVED [GUEST_IA32_DEBUGCTL]
        "with \"load debug controls\", reserved bits of the guest's IA32_DEBUGCTL must be 0"
        => !s.entry.has(Entry::LOAD_DEBUG_CONTROLS)
            || s.read(GUEST_IA32_DEBUGCTL) & s.environment.reserved.debugctl == 0;
    IA32E_NEEDS_PAGING [GUEST_CR0, GUEST_CR4]
        "\"IA-32e mode guest\" needs the guest's CR0.PG and CR4.PAE"
        => !s.is_ia32e_guest() || s.guest_cr0().contains(Cr0::PG) && s.guest_cr4().contains(Cr4::PAE);
    PCIDE_NEEDS_IA32E [GUEST_CR4]
        "the guest's CR4.PCIDE must be 0 without \"IA-32e mode guest\""
        => s.is_ia32e_guest() || !s.guest_cr4().contains(Cr4::PCIDE);
    CR3_WIDTH [GUEST_CR3]
        "the guest's CR3 must have no bits beyond the physical-address width"
        => s.is_physical(s.read(GUEST_CR3));
    DR7_32_BIT [GUEST_DR7]
        "with \"load debug controls\", bits 63:32 of the guest's DR7 must be 0"
        => !s.entry.has(Entry::LOAD_DEBUG_CONTROLS) || s.read(GUEST_DR7) >> 32 == 0;
    SYSENTER_ESP_CANONICAL [GUEST_SYSENTER_ESP]
        "the guest's IA32_SYSENTER_ESP must be canonical"
        => s.is_canonical_field(GUEST_SYSENTER_ESP);
    SYSENTER_EIP_CANONICAL [GUEST_SYSENTER_EIP]
        "the guest's IA32_SYSENTER_EIP must be canonical"
        => s.is_canonical_field(GUEST_SYSENTER_EIP);
    CET_CANONICAL [GUEST_S_CET, GUEST_INTR_SSP_TABLE]
        "with \"load CET state\", the guest's IA32_S_CET and IA32_INTERRUPT_SSP_TABLE_ADDR must be canonical"
        => !s.entry.has(Entry::LOAD_CET_STATE)
            || s.is_canonical_field(GUEST_S_CET) && s.is_canonical_field(GUEST_INTR_SSP_TABLE);
    PERF_GLOBAL_CTRL_RESERVED [GUEST_IA32_PERF_GLOBAL_CTRL]
        "with \"load IA32_PERF_GLOBAL_CTRL\", reserved bits of the guest's IA32_PERF_GLOBAL_CTRL must be 0"
        => !s.entry.has(Entry::LOAD_IA32_PERF_GLOBAL_CTRL)
            || s.read(GUEST_IA32_PERF_GLOBAL_CTRL) & s.environment.reserved.perf_global_ctrl == 0;
    PAT_TYPES [GUEST_IA32_PAT]
        "with \"load IA32_PAT\", each byte of the guest's IA32_PAT must be 0, 1, 4, 5, 6 or 7"
        => !s.entry.has(Entry::LOAD_IA32_PAT) || is_pat(s.read(GUEST_IA32_PAT));
    EFER_RESERVED [GUEST_IA32_EFER]
        "with \"load IA32_EFER\", reserved bits of the guest's IA32_EFER must be 0"
        => efer(s).is_none_or(|efer| efer.bits() & s.environment.reserved.efer == 0);
    EFER_LMA [GUEST_IA32_EFER]
        "with \"load IA32_EFER\", the guest's IA32_EFER.LMA must equal \"IA-32e mode guest\""
        => efer(s).is_none_or(|efer| efer.contains(Efer::LMA) == s.is_ia32e_guest());
    EFER_LME [GUEST_IA32_EFER, GUEST_CR0]
        "with \"load IA32_EFER\" and CR0.PG, the guest's IA32_EFER.LMA must equal IA32_EFER.LME"
        => !s.guest_cr0().contains(Cr0::PG)
            || efer(s).is_none_or(|efer| efer.contains(Efer::LMA) == efer.contains(Efer::LME));
    BNDCFGS_RESERVED [GUEST_BNDCFGS]
        "with \"load IA32_BNDCFGS\", bits 11:2 of the guest's IA32_BNDCFGS must be 0"
        => !s.entry.has(Entry::LOAD_IA32_BNDCFGS) || s.read(GUEST_BNDCFGS) & 0xffc == 0;
    BNDCFGS_CANONICAL [GUEST_BNDCFGS]
        "with \"load IA32_BNDCFGS\", the address in bits 63:12 of the guest's IA32_BNDCFGS must be canonical"
        => !s.entry.has(Entry::LOAD_IA32_BNDCFGS) || s.is_canonical(s.read(GUEST_BNDCFGS) & !0xfff);
    RTIT_CTL_RESERVED [GUEST_IA32_RTIT_CTL]
        "with \"load IA32_RTIT_CTL\", reserved bits of the guest's IA32_RTIT_CTL must be 0"
        => !s.entry.has(Entry::LOAD_IA32_RTIT_CTL)
            || s.read(GUEST_IA32_RTIT_CTL) & s.environment.reserved.rtit_ctl == 0;
    S_CET_RESERVED [GUEST_S_CET]
        "with \"load CET state\", reserved bits of the guest's IA32_S_CET must be 0, and its bits 10 and 11 not both 1"
        => !s.entry.has(Entry::LOAD_CET_STATE) || is_s_cet(s.read(GUEST_S_CET));
    LBR_CTL_RESERVED [GUEST_IA32_LBR_CTL]
        "with \"load guest IA32_LBR_CTL\", reserved bits of the guest's IA32_LBR_CTL must be 0"
        => !s.entry.has(Entry::LOAD_GUEST_IA32_LBR_CTL)
            || s.read(GUEST_IA32_LBR_CTL) & s.environment.reserved.lbr_ctl == 0;
    PKRS_RESERVED [GUEST_IA32_PKRS]
        "with \"load PKRS\", bits 63:32 of the guest's IA32_PKRS must be 0"
        => !s.entry.has(Entry::LOAD_PKRS) || s.read(GUEST_IA32_PKRS) >> 32 == 0;
    UINV_RESERVED [GUEST_UINV]
        "with \"load UINV\", bits 15:8 of the guest's UINV must be 0"
        => !s.entry.has(Entry::LOAD_UINV) || s.read(GUEST_UINV) >> 8 == 0;
}

/// The guest's IA32_EFER, if the entry loads it.
fn efer(s: &State<'_>) -> Option<Efer> {
    s.entry.has(Entry::LOAD_IA32_EFER).then(|| Efer::from_bits_retain(s.read(GUEST_IA32_EFER)))
}

/// Bits of CR0 that are not checked: NW and CD, which entry does not load, and with unrestricted guest PE and PG.
fn unchecked_cr0(s: &State<'_>) -> Cr0 {
    let never = Cr0::NW | Cr0::CD;
    if s.is_unrestricted() { never | Cr0::PE | Cr0::PG } else { never }
}
