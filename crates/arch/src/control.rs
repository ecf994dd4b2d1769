//! Control registers, EFER, XCR0 and RFLAGS.

use bitflags::bitflags;

bitflags! {
    /// CR0 (SDM 3A 2.5 "Control Registers").
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Cr0: u64 {
        /// Protection enable.
        const PE = 1 << 0;
        /// Monitor coprocessor.
        const MP = 1 << 1;
        /// Emulation.
        const EM = 1 << 2;
        /// Task switched.
        const TS = 1 << 3;
        /// Extension type: always 1.
        const ET = 1 << 4;
        /// Numeric error.
        const NE = 1 << 5;
        /// Write protect.
        const WP = 1 << 16;
        /// Alignment mask.
        const AM = 1 << 18;
        /// Not write-through.
        const NW = 1 << 29;
        /// Cache disable.
        const CD = 1 << 30;
        /// Paging.
        const PG = 1 << 31;
    }

    /// CR4 (SDM 3A 2.5 "Control Registers").
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Cr4: u64 {
        /// Virtual-8086 mode extensions.
        const VME = 1 << 0;
        /// Protected-mode virtual interrupts.
        const PVI = 1 << 1;
        /// Time stamp disable.
        const TSD = 1 << 2;
        /// Debugging extensions.
        const DE = 1 << 3;
        /// Page-size extensions.
        const PSE = 1 << 4;
        /// Physical-address extension.
        const PAE = 1 << 5;
        /// Machine-check enable.
        const MCE = 1 << 6;
        /// Page-global enable.
        const PGE = 1 << 7;
        /// Performance-monitoring counter enable.
        const PCE = 1 << 8;
        /// FXSAVE and FXRSTOR support.
        const OSFXSR = 1 << 9;
        /// Unmasked SIMD floating-point exceptions.
        const OSXMMEXCPT = 1 << 10;
        /// User-mode instruction prevention.
        const UMIP = 1 << 11;
        /// 57-bit linear addresses.
        const LA57 = 1 << 12;
        /// VMX enable.
        const VMXE = 1 << 13;
        /// SMX enable.
        const SMXE = 1 << 14;
        /// RDFSBASE and its relatives.
        const FSGSBASE = 1 << 16;
        /// Process-context identifiers.
        const PCIDE = 1 << 17;
        /// XSAVE and processor extended states.
        const OSXSAVE = 1 << 18;
        /// Supervisor-mode execution prevention.
        const SMEP = 1 << 20;
        /// Supervisor-mode access prevention.
        const SMAP = 1 << 21;
        /// Protection keys for user pages.
        const PKE = 1 << 22;
        /// Control-flow enforcement.
        const CET = 1 << 23;
        /// Protection keys for supervisor pages.
        const PKS = 1 << 24;
        /// User interrupts.
        const UINTR = 1 << 25;
    }

    /// IA32_EFER (SDM 3A 2.2.1 "Extended Feature Enable Register").
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Efer: u64 {
        /// SYSCALL enable.
        const SCE = 1 << 0;
        /// IA-32e mode enable.
        const LME = 1 << 8;
        /// IA-32e mode active.
        const LMA = 1 << 10;
        /// Execute-disable enable.
        const NXE = 1 << 11;
    }

    /// XCR0: the state components in use (SDM 1 13.3 "Enabling the XSAVE Feature Set and XSAVE-Enabled Features").
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Xcr0: u64 {
        /// x87, with MMX: always 1.
        const X87 = 1 << 0;
        /// XMM registers and MXCSR.
        const SSE = 1 << 1;
        /// Upper halves of the YMM registers.
        const AVX = 1 << 2;
        /// AVX-512: mask registers.
        const OPMASK = 1 << 5;
        /// AVX-512: upper halves of ZMM0 to ZMM15.
        const ZMM_HI256 = 1 << 6;
        /// AVX-512: ZMM16 to ZMM31.
        const HI16_ZMM = 1 << 7;
        /// Protection-key rights of user pages.
        const PKRU = 1 << 9;
    }

    /// RFLAGS (SDM 1 3.4.3 "EFLAGS Register").
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Rflags: u64 {
        /// Carry.
        const CF = 1 << 0;
        /// Always 1.
        const RESERVED_1 = 1 << 1;
        /// Parity.
        const PF = 1 << 2;
        /// Auxiliary carry.
        const AF = 1 << 4;
        /// Zero.
        const ZF = 1 << 6;
        /// Sign.
        const SF = 1 << 7;
        /// Trap.
        const TF = 1 << 8;
        /// Interrupt enable.
        const IF = 1 << 9;
        /// Direction.
        const DF = 1 << 10;
        /// Overflow.
        const OF = 1 << 11;
        /// I/O privilege level, both bits.
        const IOPL = 3 << 12;
        /// Nested task.
        const NT = 1 << 14;
        /// Resume.
        const RF = 1 << 16;
        /// Virtual-8086 mode.
        const VM = 1 << 17;
        /// Alignment check, or access control.
        const AC = 1 << 18;
        /// Virtual interrupt.
        const VIF = 1 << 19;
        /// Virtual interrupt pending.
        const VIP = 1 << 20;
        /// CPUID can be executed.
        const ID = 1 << 21;
    }
}

/// The state components that guests may use where the processor has them: what `hw::guest_state` keeps apart between vCPUs.
pub const XCR0_OFFERED: Xcr0 = Xcr0::X87
    .union(Xcr0::SSE)
    .union(Xcr0::AVX)
    .union(Xcr0::OPMASK)
    .union(Xcr0::ZMM_HI256)
    .union(Xcr0::HI16_ZMM)
    .union(Xcr0::PKRU);

/// CR0 after power-up or INIT: CD, NW and ET (SDM 3A 9.1.1 "Processor State After Reset").
pub const CR0_RESET: Cr0 = Cr0::CD.union(Cr0::NW).union(Cr0::ET);
