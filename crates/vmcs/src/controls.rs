//! The control words: which bit switches what, with the manual's names.

use bitflags::bitflags;

/// A word of VM-execution, VM-exit or VM-entry controls.
pub trait ControlWord: Copy + Eq + core::fmt::Debug {
    /// What the manual calls the word.
    const NAME: &'static str;

    /// Bit number and manual's name of each control, lowest bit first.
    const CONTROLS: &'static [(u8, &'static str)];

    /// The word's bits, zero-extended.
    fn to_bits(self) -> u64;

    /// The word with these bits, also those that have no name; bits beyond the word's width are dropped.
    fn from_bits_truncated(bits: u64) -> Self;
}

macro_rules! controls {
    ($($(#[$doc:meta])* $word:ident: $bits:ty, $name:literal { $($flag:ident = $bit:literal, $manual:literal;)* })*) => {$(
        bitflags! {
            $(#[$doc])*
            #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
            pub struct $word: $bits {
                $(#[doc = concat!("Bit ", $bit, ": \u{201c}", $manual, "\u{201d}.")] const $flag = 1 << $bit;)*
            }
        }

        impl ControlWord for $word {
            const NAME: &'static str = $name;
            const CONTROLS: &'static [(u8, &'static str)] = &[$(($bit, $manual)),*];

            #[inline(always)]
            fn to_bits(self) -> u64 { u64::from(self.bits()) }

            #[inline(always)]
            fn from_bits_truncated(bits: u64) -> Self {
                Self::from_bits_retain(<$bits>::try_from(bits & u64::from(<$bits>::MAX)).unwrap_or_default())
            }
        }

        #[cfg(feature = "defmt")]
        impl defmt::Format for $word {
            fn format(&self, f: defmt::Formatter<'_>) { defmt::write!(f, "{=u64:#x}", self.to_bits()) }
        }
    )*};
}

controls! {
    /// SDM 3C 25.6.1 "Pin-Based VM-Execution Controls".
    PinBased: u32, "pin-based VM-execution controls" {
        EXTERNAL_INTERRUPT_EXITING = 0, "external-interrupt exiting";
        NMI_EXITING = 3, "NMI exiting";
        VIRTUAL_NMIS = 5, "virtual NMIs";
        ACTIVATE_PREEMPTION_TIMER = 6, "activate VMX-preemption timer";
        PROCESS_POSTED_INTERRUPTS = 7, "process posted interrupts";
    }

    /// SDM 3C 25.6.2 "Processor-Based VM-Execution Controls", table of the primary ones.
    PrimaryBased: u32, "primary processor-based VM-execution controls" {
        INTERRUPT_WINDOW_EXITING = 2, "interrupt-window exiting";
        USE_TSC_OFFSETTING = 3, "use TSC offsetting";
        HLT_EXITING = 7, "HLT exiting";
        INVLPG_EXITING = 9, "INVLPG exiting";
        MWAIT_EXITING = 10, "MWAIT exiting";
        RDPMC_EXITING = 11, "RDPMC exiting";
        RDTSC_EXITING = 12, "RDTSC exiting";
        CR3_LOAD_EXITING = 15, "CR3-load exiting";
        CR3_STORE_EXITING = 16, "CR3-store exiting";
        ACTIVATE_TERTIARY_CONTROLS = 17, "activate tertiary controls";
        CR8_LOAD_EXITING = 19, "CR8-load exiting";
        CR8_STORE_EXITING = 20, "CR8-store exiting";
        USE_TPR_SHADOW = 21, "use TPR shadow";
        NMI_WINDOW_EXITING = 22, "NMI-window exiting";
        MOV_DR_EXITING = 23, "MOV-DR exiting";
        UNCONDITIONAL_IO_EXITING = 24, "unconditional I/O exiting";
        USE_IO_BITMAPS = 25, "use I/O bitmaps";
        MONITOR_TRAP_FLAG = 27, "monitor trap flag";
        USE_MSR_BITMAPS = 28, "use MSR bitmaps";
        MONITOR_EXITING = 29, "MONITOR exiting";
        PAUSE_EXITING = 30, "PAUSE exiting";
        ACTIVATE_SECONDARY_CONTROLS = 31, "activate secondary controls";
    }

    /// SDM 3C 25.6.2 "Processor-Based VM-Execution Controls", table of the secondary ones. They are in force only if
    /// [`PrimaryBased::ACTIVATE_SECONDARY_CONTROLS`] is 1.
    SecondaryBased: u32, "secondary processor-based VM-execution controls" {
        VIRTUALIZE_APIC_ACCESSES = 0, "virtualize APIC accesses";
        ENABLE_EPT = 1, "enable EPT";
        DESCRIPTOR_TABLE_EXITING = 2, "descriptor-table exiting";
        ENABLE_RDTSCP = 3, "enable RDTSCP";
        VIRTUALIZE_X2APIC_MODE = 4, "virtualize x2APIC mode";
        ENABLE_VPID = 5, "enable VPID";
        WBINVD_EXITING = 6, "WBINVD exiting";
        UNRESTRICTED_GUEST = 7, "unrestricted guest";
        APIC_REGISTER_VIRTUALIZATION = 8, "APIC-register virtualization";
        VIRTUAL_INTERRUPT_DELIVERY = 9, "virtual-interrupt delivery";
        PAUSE_LOOP_EXITING = 10, "PAUSE-loop exiting";
        RDRAND_EXITING = 11, "RDRAND exiting";
        ENABLE_INVPCID = 12, "enable INVPCID";
        ENABLE_VM_FUNCTIONS = 13, "enable VM functions";
        VMCS_SHADOWING = 14, "VMCS shadowing";
        ENABLE_ENCLS_EXITING = 15, "enable ENCLS exiting";
        RDSEED_EXITING = 16, "RDSEED exiting";
        ENABLE_PML = 17, "enable PML";
        EPT_VIOLATION_VE = 18, "EPT-violation #VE";
        CONCEAL_VMX_FROM_PT = 19, "conceal VMX from PT";
        ENABLE_XSAVES_XRSTORS = 20, "enable XSAVES/XRSTORS";
        PASID_TRANSLATION = 21, "PASID translation";
        MODE_BASED_EXECUTE_CONTROL_FOR_EPT = 22, "mode-based execute control for EPT";
        SUB_PAGE_WRITE_PERMISSIONS_FOR_EPT = 23, "sub-page write permissions for EPT";
        PT_USES_GUEST_PHYSICAL_ADDRESSES = 24, "Intel PT uses guest physical addresses";
        USE_TSC_SCALING = 25, "use TSC scaling";
        ENABLE_USER_WAIT_AND_PAUSE = 26, "enable user wait and pause";
        ENABLE_PCONFIG = 27, "enable PCONFIG";
        ENABLE_ENCLV_EXITING = 28, "enable ENCLV exiting";
        VMM_BUS_LOCK_DETECTION = 30, "VMM bus-lock detection";
        INSTRUCTION_TIMEOUT = 31, "instruction timeout";
    }

    /// SDM 3C 25.6.2 "Processor-Based VM-Execution Controls", table of the tertiary ones. They are in force only if
    /// [`PrimaryBased::ACTIVATE_TERTIARY_CONTROLS`] is 1.
    TertiaryBased: u64, "tertiary processor-based VM-execution controls" {
        LOADIWKEY_EXITING = 0, "LOADIWKEY exiting";
        ENABLE_HLAT = 1, "enable HLAT";
        EPT_PAGING_WRITE_CONTROL = 2, "EPT paging-write control";
        GUEST_PAGING_VERIFICATION = 3, "guest-paging verification";
        IPI_VIRTUALIZATION = 4, "IPI virtualization";
        ENABLE_MSR_LIST_INSTRUCTIONS = 6, "enable MSR-list instructions";
        VIRTUALIZE_IA32_SPEC_CTRL = 7, "virtualize IA32_SPEC_CTRL";
    }

    /// SDM 3C 25.7.1 "VM-Exit Controls", table of the primary ones.
    ExitControls: u32, "primary VM-exit controls" {
        SAVE_DEBUG_CONTROLS = 2, "save debug controls";
        HOST_ADDRESS_SPACE_SIZE = 9, "host address-space size";
        LOAD_IA32_PERF_GLOBAL_CTRL = 12, "load IA32_PERF_GLOBAL_CTRL";
        ACKNOWLEDGE_INTERRUPT_ON_EXIT = 15, "acknowledge interrupt on exit";
        SAVE_IA32_PAT = 18, "save IA32_PAT";
        LOAD_IA32_PAT = 19, "load IA32_PAT";
        SAVE_IA32_EFER = 20, "save IA32_EFER";
        LOAD_IA32_EFER = 21, "load IA32_EFER";
        SAVE_PREEMPTION_TIMER_VALUE = 22, "save VMX-preemption timer value";
        CLEAR_IA32_BNDCFGS = 23, "clear IA32_BNDCFGS";
        CONCEAL_VMX_FROM_PT = 24, "conceal VMX from PT";
        CLEAR_IA32_RTIT_CTL = 25, "clear IA32_RTIT_CTL";
        CLEAR_IA32_LBR_CTL = 26, "clear IA32_LBR_CTL";
        CLEAR_UINV = 27, "clear UINV";
        LOAD_CET_STATE = 28, "load CET state";
        LOAD_PKRS = 29, "load PKRS";
        SAVE_IA32_PERF_GLOBAL_CTRL = 30, "save IA32_PERF_GLOBAL_CTRL";
        ACTIVATE_SECONDARY_CONTROLS = 31, "activate secondary controls";
    }

    /// SDM 3C 25.7.1 "VM-Exit Controls", table of the secondary ones. They are in force only if
    /// [`ExitControls::ACTIVATE_SECONDARY_CONTROLS`] is 1.
    SecondaryExitControls: u64, "secondary VM-exit controls" {
        PREMATURELY_BUSY_SHADOW_STACK = 3, "prematurely busy shadow stack";
    }

    /// SDM 3C 25.8.1 "VM-Entry Controls".
    EntryControls: u32, "VM-entry controls" {
        LOAD_DEBUG_CONTROLS = 2, "load debug controls";
        IA32E_MODE_GUEST = 9, "IA-32e mode guest";
        ENTRY_TO_SMM = 10, "entry to SMM";
        DEACTIVATE_DUAL_MONITOR_TREATMENT = 11, "deactivate dual-monitor treatment";
        LOAD_IA32_PERF_GLOBAL_CTRL = 13, "load IA32_PERF_GLOBAL_CTRL";
        LOAD_IA32_PAT = 14, "load IA32_PAT";
        LOAD_IA32_EFER = 15, "load IA32_EFER";
        LOAD_IA32_BNDCFGS = 16, "load IA32_BNDCFGS";
        CONCEAL_VMX_FROM_PT = 17, "conceal VMX from PT";
        LOAD_IA32_RTIT_CTL = 18, "load IA32_RTIT_CTL";
        LOAD_UINV = 19, "load UINV";
        LOAD_CET_STATE = 20, "load CET state";
        LOAD_GUEST_IA32_LBR_CTL = 21, "load guest IA32_LBR_CTL";
        LOAD_PKRS = 22, "load PKRS";
    }
}
