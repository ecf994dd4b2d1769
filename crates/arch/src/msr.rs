//! MSR numbers (SDM 4 2.1 "Architectural MSRs"), those that Nestling names.

/// The number of a model-specific register.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Msr(pub u32);

impl core::fmt::Debug for Msr {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "MSR {:#x}", self.0)
    }
}

#[cfg(feature = "defmt")]
impl defmt::Format for Msr {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "MSR {=u32:#x}", self.0);
    }
}

macro_rules! msrs {
    ($($name:ident = $number:expr;)*) => {
        #[expect(missing_docs, reason = "the manual's names, listed in SDM 4 2.1")]
        impl Msr { $(pub const $name: Self = Self($number);)* }
    };
}

msrs! {
    P5_MC_ADDR = 0x0;
    P5_MC_TYPE = 0x1;
    TSC = 0x10;
    PLATFORM_ID = 0x17;
    APIC_BASE = 0x1b;
    FEATURE_CONTROL = 0x3a;
    TSC_ADJUST = 0x3b;
    SPEC_CTRL = 0x48;
    PRED_CMD = 0x49;
    BIOS_UPDT_TRIG = 0x79;
    BIOS_SIGN_ID = 0x8b;
    PLATFORM_INFO = 0xce;
    MTRRCAP = 0xfe;
    ARCH_CAPABILITIES = 0x10a;
    FLUSH_CMD = 0x10b;
    SYSENTER_CS = 0x174;
    SYSENTER_ESP = 0x175;
    SYSENTER_EIP = 0x176;
    MCG_CAP = 0x179;
    MCG_STATUS = 0x17a;
    MCG_CTL = 0x17b;
    PERF_STATUS = 0x198;
    MISC_ENABLE = 0x1a0;
    DEBUGCTL = 0x1d9;
    MTRR_PHYSBASE0 = 0x200;
    MTRR_PHYSMASK0 = 0x201;
    MTRR_FIX64K_00000 = 0x250;
    MTRR_FIX16K_80000 = 0x258;
    MTRR_FIX16K_A0000 = 0x259;
    MTRR_FIX4K_C0000 = 0x268;
    MTRR_FIX4K_F8000 = 0x26f;
    PAT = 0x277;
    MTRR_DEF_TYPE = 0x2ff;
    PERF_GLOBAL_CTRL = 0x38f;
    MC0_CTL = 0x400;
    VMX_BASIC = 0x480;
    VMX_PINBASED_CTLS = 0x481;
    VMX_PROCBASED_CTLS = 0x482;
    VMX_EXIT_CTLS = 0x483;
    VMX_ENTRY_CTLS = 0x484;
    VMX_MISC = 0x485;
    VMX_CR0_FIXED0 = 0x486;
    VMX_CR0_FIXED1 = 0x487;
    VMX_CR4_FIXED0 = 0x488;
    VMX_CR4_FIXED1 = 0x489;
    VMX_VMCS_ENUM = 0x48a;
    VMX_PROCBASED_CTLS2 = 0x48b;
    VMX_EPT_VPID_CAP = 0x48c;
    VMX_TRUE_PINBASED_CTLS = 0x48d;
    VMX_TRUE_PROCBASED_CTLS = 0x48e;
    VMX_TRUE_EXIT_CTLS = 0x48f;
    VMX_TRUE_ENTRY_CTLS = 0x490;
    VMX_VMFUNC = 0x491;
    VMX_PROCBASED_CTLS3 = 0x492;
    VMX_EXIT_CTLS2 = 0x493;
    TSC_DEADLINE = 0x6e0;
    X2APIC_FIRST = 0x800;
    X2APIC_LAST = 0x8ff;
    XSS = 0xda0;
    EFER = 0xc000_0080;
    STAR = 0xc000_0081;
    LSTAR = 0xc000_0082;
    CSTAR = 0xc000_0083;
    FMASK = 0xc000_0084;
    FS_BASE = 0xc000_0100;
    GS_BASE = 0xc000_0101;
    KERNEL_GS_BASE = 0xc000_0102;
    TSC_AUX = 0xc000_0103;
}
