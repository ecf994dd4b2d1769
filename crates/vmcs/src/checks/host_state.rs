//! SDM 3C 27.2.2 "Checks on Host Control Registers, MSRs, and SSP", 27.2.3 "Checks on Host Segment and Descriptor-Table
//! Registers" and 27.2.4 "Checks Related to Address-Space Size".

pub(super) mod registers {
    use arch::control::{Cr0, Cr4, Efer};

    use crate::checks::state::{is_pat, is_s_cet};
    use crate::controls::ExitControls;
    use crate::fields::*;

    rules! { "HOST_", "27.2.2", "Checks on Host Control Registers, MSRs, and SSP", HOST, |s|
        CR0_FIXED [HOST_CR0]
            "the host's CR0 must have only bits that VMX operation supports, and those that it fixes to 1"
            => s.environment.capabilities.cr0.permits(s.read(HOST_CR0));
        CR4_FIXED [HOST_CR4]
            "the host's CR4 must have only bits that VMX operation supports, and those that it fixes to 1"
            => s.environment.capabilities.cr4.permits(s.read(HOST_CR4));
        CET_NEEDS_WP [HOST_CR4, HOST_CR0]
            "the host's CR4.CET needs CR0.WP"
            => !s.host_cr4().contains(Cr4::CET) || s.read(HOST_CR0) & Cr0::WP.bits() != 0;
        CR3_WIDTH [HOST_CR3]
            "the host's CR3 must have no bits beyond the physical-address width"
            => s.is_physical(s.read(HOST_CR3));
        SYSENTER_ESP_CANONICAL [HOST_IA32_SYSENTER_ESP]
            "the host's IA32_SYSENTER_ESP must be canonical"
            => s.is_canonical_field(HOST_IA32_SYSENTER_ESP);
        SYSENTER_EIP_CANONICAL [HOST_IA32_SYSENTER_EIP]
            "the host's IA32_SYSENTER_EIP must be canonical"
            => s.is_canonical_field(HOST_IA32_SYSENTER_EIP);
        CET_CANONICAL [HOST_S_CET, HOST_INTR_SSP_TABLE]
            "with \"load CET state\", the host's IA32_S_CET and IA32_INTERRUPT_SSP_TABLE_ADDR must be canonical"
            => !s.exit.has(ExitControls::LOAD_CET_STATE)
                || s.is_canonical_field(HOST_S_CET) && s.is_canonical_field(HOST_INTR_SSP_TABLE);
        PERF_GLOBAL_CTRL_RESERVED [HOST_IA32_PERF_GLOBAL_CTRL]
            "with \"load IA32_PERF_GLOBAL_CTRL\", reserved bits of the host's IA32_PERF_GLOBAL_CTRL must be 0"
            => !s.exit.has(ExitControls::LOAD_IA32_PERF_GLOBAL_CTRL)
                || s.read(HOST_IA32_PERF_GLOBAL_CTRL) & s.environment.reserved.perf_global_ctrl == 0;
        PAT_TYPES [HOST_IA32_PAT]
            "with \"load IA32_PAT\", each byte of the host's IA32_PAT must be 0, 1, 4, 5, 6 or 7"
            => !s.exit.has(ExitControls::LOAD_IA32_PAT) || is_pat(s.read(HOST_IA32_PAT));
        EFER_RESERVED [HOST_IA32_EFER]
            "with \"load IA32_EFER\", reserved bits of the host's IA32_EFER must be 0"
            => !s.exit.has(ExitControls::LOAD_IA32_EFER)
                || s.read(HOST_IA32_EFER) & s.environment.reserved.efer == 0;
        EFER_MODE [HOST_IA32_EFER]
            "with \"load IA32_EFER\", LMA and LME of the host's IA32_EFER must both equal \"host address-space size\""
            => !s.exit.has(ExitControls::LOAD_IA32_EFER) || {
                let efer = Efer::from_bits_retain(s.read(HOST_IA32_EFER));
                efer.contains(Efer::LMA) == s.is_64_bit_host() && efer.contains(Efer::LME) == s.is_64_bit_host()
            };
        S_CET_RESERVED [HOST_S_CET]
            "with \"load CET state\", reserved bits of the host's IA32_S_CET must be 0, and its bits 10 and 11 not both 1"
            => !s.exit.has(ExitControls::LOAD_CET_STATE) || is_s_cet(s.read(HOST_S_CET));
        SSP_ALIGNMENT [HOST_SSP]
            "with \"load CET state\", bits 1:0 of the host's SSP must be 0"
            => !s.exit.has(ExitControls::LOAD_CET_STATE) || s.read(HOST_SSP) & 3 == 0;
        PKRS_RESERVED [HOST_IA32_PKRS]
            "with \"load PKRS\", bits 63:32 of the host's IA32_PKRS must be 0"
            => !s.exit.has(ExitControls::LOAD_PKRS) || s.read(HOST_IA32_PKRS) >> 32 == 0;
    }
}

pub(super) mod segments {
    use crate::fields::*;

    rules! { "HOST_", "27.2.3", "Checks on Host Segment and Descriptor-Table Registers", HOST, |s|
        SELECTOR_RPL_TI [HOST_CS_SELECTOR, HOST_SS_SELECTOR, HOST_DS_SELECTOR, HOST_ES_SELECTOR, HOST_FS_SELECTOR, HOST_GS_SELECTOR, HOST_TR_SELECTOR]
            "RPL and TI (bits 2:0) of the host's selectors must be 0"
            => [
                HOST_CS_SELECTOR,
                HOST_SS_SELECTOR,
                HOST_DS_SELECTOR,
                HOST_ES_SELECTOR,
                HOST_FS_SELECTOR,
                HOST_GS_SELECTOR,
                HOST_TR_SELECTOR,
            ]
            .iter()
            .all(|&selector| s.read(selector) & 7 == 0);
        CS_TR_NOT_NULL [HOST_CS_SELECTOR, HOST_TR_SELECTOR]
            "the host's CS and TR selectors must not be 0"
            => s.read(HOST_CS_SELECTOR) != 0 && s.read(HOST_TR_SELECTOR) != 0;
        SS_NOT_NULL [HOST_SS_SELECTOR]
            "the host's SS selector must not be 0 without \"host address-space size\""
            => s.is_64_bit_host() || s.read(HOST_SS_SELECTOR) != 0;
        BASES_CANONICAL [HOST_FS_BASE, HOST_GS_BASE, HOST_GDTR_BASE, HOST_IDTR_BASE, HOST_TR_BASE]
            "the host's FS, GS, GDTR, IDTR and TR bases must be canonical"
            => [HOST_FS_BASE, HOST_GS_BASE, HOST_GDTR_BASE, HOST_IDTR_BASE, HOST_TR_BASE]
                .iter()
                .all(|&base| s.is_canonical_field(base));
    }
}

pub(super) mod address_space {
    use arch::control::Cr4;

    use crate::controls::ExitControls;
    use crate::fields::*;

    rules! { "HOST_", "27.2.4", "Checks Related to Address-Space Size", HOST, |s|
        OUTSIDE_IA32E_MODE [VM_ENTRY_CONTROLS, VM_EXIT_CONTROLS]
            "outside IA-32e mode, \"IA-32e mode guest\" and \"host address-space size\" must be 0"
            => s.environment.in_ia32e_mode || !s.is_ia32e_guest() && !s.is_64_bit_host();
        INSIDE_IA32E_MODE [VM_EXIT_CONTROLS]
            "in IA-32e mode, \"host address-space size\" must be 1"
            => !s.environment.in_ia32e_mode || s.is_64_bit_host();
        GUEST_NEEDS_64_BIT_HOST [VM_ENTRY_CONTROLS, VM_EXIT_CONTROLS]
            "\"IA-32e mode guest\" needs \"host address-space size\""
            => s.is_64_bit_host() || !s.is_ia32e_guest();
        PCIDE_NEEDS_64_BIT_HOST [HOST_CR4]
            "the host's CR4.PCIDE must be 0 without \"host address-space size\""
            => s.is_64_bit_host() || !s.host_cr4().contains(Cr4::PCIDE);
        RIP_32_BIT [HOST_RIP]
            "bits 63:32 of the host's RIP must be 0 without \"host address-space size\""
            => s.is_64_bit_host() || s.read(HOST_RIP) >> 32 == 0;
        CET_32_BIT [HOST_S_CET, HOST_SSP]
            "with \"load CET state\" and without \"host address-space size\", bits 63:32 of the host's IA32_S_CET and SSP must be 0"
            => s.is_64_bit_host()
                || !s.exit.has(ExitControls::LOAD_CET_STATE)
                || s.read(HOST_S_CET) >> 32 == 0 && s.read(HOST_SSP) >> 32 == 0;
        PAE_NEEDED [HOST_CR4]
            "\"host address-space size\" needs the host's CR4.PAE"
            => !s.is_64_bit_host() || s.host_cr4().contains(Cr4::PAE);
        RIP_CANONICAL [HOST_RIP]
            "with \"host address-space size\", the host's RIP must be canonical"
            => !s.is_64_bit_host() || s.is_canonical_field(HOST_RIP);
        SSP_CANONICAL [HOST_SSP]
            "with \"load CET state\" and \"host address-space size\", the host's SSP must be canonical"
            => !s.is_64_bit_host()
                || !s.exit.has(ExitControls::LOAD_CET_STATE)
                || s.is_canonical_field(HOST_SSP);
    }
}
