//! What the processor's VMX can do: the capability MSRs, decoded (SDM 3D appendix A "VMX Capability Reporting Facility").

use arch::Msr;

pub use crate::choose::{Allowed, Choice, MissingControls};
use crate::controls::{
    EntryControls, ExitControls, PinBased, PrimaryBased, SecondaryBased, SecondaryExitControls, TertiaryBased,
};
pub use crate::ept_vpid::EptVpid;
use crate::field::{FieldInfo, Needs};

/// All VMX capability MSRs of one processor, or those that a guest is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Capabilities {
    /// IA32_VMX_BASIC.
    pub basic: Basic,
    /// IA32_VMX_MISC.
    pub misc: Misc,
    /// Pin-based VM-execution controls.
    pub pin: Allowed<PinBased>,
    /// Primary processor-based VM-execution controls.
    pub primary: Allowed<PrimaryBased>,
    /// Secondary processor-based VM-execution controls; nothing allowed where they do not exist.
    pub secondary: Allowed<SecondaryBased>,
    /// Tertiary processor-based VM-execution controls; nothing allowed where they do not exist.
    pub tertiary: Allowed<TertiaryBased>,
    /// Primary VM-exit controls.
    pub exit: Allowed<ExitControls>,
    /// Secondary VM-exit controls; nothing allowed where they do not exist.
    pub secondary_exit: Allowed<SecondaryExitControls>,
    /// VM-entry controls.
    pub entry: Allowed<EntryControls>,
    /// IA32_VMX_EPT_VPID_CAP; zero where it does not exist.
    pub ept_vpid: EptVpid,
    /// IA32_VMX_VMFUNC: bit N allows VM function N; zero where it does not exist.
    pub vm_functions: u64,
    /// CR0 in VMX operation.
    pub cr0: FixedBits,
    /// CR4 in VMX operation.
    pub cr4: FixedBits,
    /// IA32_VMX_VMCS_ENUM bits 9:1: the highest [`crate::Encoding::index`] of any field.
    pub highest_field_index: u32,
}

impl Capabilities {
    /// Reads the capability MSRs through `read_msr`, only those that exist given the others, so that nothing faults.
    /// The processor must have VMX (CPUID leaf 1, ECX bit 5).
    ///
    /// Where IA32_VMX_BASIC bit 55 says that the "true" MSRs exist, they count: they are what VM entry checks against.
    pub fn read(mut read_msr: impl FnMut(Msr) -> u64) -> Self {
        let basic = Basic(read_msr(Msr::VMX_BASIC));
        let [pin, primary, exit, entry] = if basic.has_true_controls() {
            [
                Msr::VMX_TRUE_PINBASED_CTLS,
                Msr::VMX_TRUE_PROCBASED_CTLS,
                Msr::VMX_TRUE_EXIT_CTLS,
                Msr::VMX_TRUE_ENTRY_CTLS,
            ]
        } else {
            [Msr::VMX_PINBASED_CTLS, Msr::VMX_PROCBASED_CTLS, Msr::VMX_EXIT_CTLS, Msr::VMX_ENTRY_CTLS]
        };
        let primary: Allowed<PrimaryBased> = Allowed::from_msr(read_msr(primary));
        let exit: Allowed<ExitControls> = Allowed::from_msr(read_msr(exit));
        let mut read_if = |exists: bool, msr: Msr| if exists { read_msr(msr) } else { 0 };
        let secondary: Allowed<SecondaryBased> = Allowed::from_msr(read_if(
            primary.supports(PrimaryBased::ACTIVATE_SECONDARY_CONTROLS),
            Msr::VMX_PROCBASED_CTLS2,
        ));
        let has_ept_or_vpid =
            secondary.supports(SecondaryBased::ENABLE_EPT) || secondary.supports(SecondaryBased::ENABLE_VPID);
        Self {
            basic,
            misc: Misc(read_if(true, Msr::VMX_MISC)),
            pin: Allowed::from_msr(read_if(true, pin)),
            primary,
            secondary,
            tertiary: Allowed::from_allowed1(read_if(
                primary.supports(PrimaryBased::ACTIVATE_TERTIARY_CONTROLS),
                Msr::VMX_PROCBASED_CTLS3,
            )),
            exit,
            secondary_exit: Allowed::from_allowed1(read_if(
                exit.supports(ExitControls::ACTIVATE_SECONDARY_CONTROLS),
                Msr::VMX_EXIT_CTLS2,
            )),
            entry: Allowed::from_msr(read_if(true, entry)),
            ept_vpid: EptVpid::from_bits_retain(read_if(has_ept_or_vpid, Msr::VMX_EPT_VPID_CAP)),
            vm_functions: read_if(secondary.supports(SecondaryBased::ENABLE_VM_FUNCTIONS), Msr::VMX_VMFUNC),
            cr0: FixedBits { fixed0: read_if(true, Msr::VMX_CR0_FIXED0), fixed1: read_if(true, Msr::VMX_CR0_FIXED1) },
            cr4: FixedBits { fixed0: read_if(true, Msr::VMX_CR4_FIXED0), fixed1: read_if(true, Msr::VMX_CR4_FIXED1) },
            highest_field_index: (read_if(true, Msr::VMX_VMCS_ENUM) >> 1 & 0x1ff) as u32,
        }
    }

    /// Whether the VMCS has this field.
    pub fn has_field(&self, field: &FieldInfo) -> bool {
        field.needs.is_empty() || field.needs.iter().any(|need| self.has(need))
    }

    /// Whether the processor has this capability.
    pub fn has(&self, need: &Needs) -> bool {
        match *need {
            Needs::Pin(control) => self.pin.supports(control),
            Needs::Primary(control) => self.primary.supports(control),
            Needs::Secondary(control) => self.secondary.supports(control),
            Needs::Tertiary(control) => self.tertiary.supports(control),
            Needs::Exit(control) => self.exit.supports(control),
            Needs::SecondaryExit(control) => self.secondary_exit.supports(control),
            Needs::Entry(control) => self.entry.supports(control),
            Needs::VmFunction(number) => self.vm_functions >> number & 1 != 0,
            Needs::MoreCr3TargetsThan(number) => self.misc.cr3_targets() > u32::from(number),
        }
    }
}

/// IA32_VMX_BASIC (SDM 3D A.1 "Basic VMX Information").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Basic(pub u64);

impl Basic {
    /// Bits 30:0: the VMCS revision identifier, the first word of every VMXON and VMCS region.
    pub const fn revision(self) -> u32 {
        (self.0 & 0x7fff_ffff) as u32
    }

    /// Bits 44:32: bytes of a VMXON or VMCS region, at most 4096.
    pub const fn region_size(self) -> u32 {
        (self.0 >> 32 & 0x1fff) as u32
    }

    /// Bit 48: physical addresses in VMX structures are limited to 32 bits.
    pub const fn has_32_bit_addresses(self) -> bool {
        self.0 >> 48 & 1 != 0
    }

    /// Bits 53:50: the memory type to use for VMX structures: 0 (UC) or 6 (WB).
    pub const fn memory_type(self) -> u8 {
        (self.0 >> 50 & 0xf) as u8
    }

    /// Bit 54: exits due to INS and OUTS have instruction information.
    pub const fn has_ins_outs_information(self) -> bool {
        self.0 >> 54 & 1 != 0
    }

    /// Bit 55: controls whose default is 1 may be 0, and the "true" capability MSRs say which.
    pub const fn has_true_controls(self) -> bool {
        self.0 >> 55 & 1 != 0
    }

    /// Bit 56: any hardware exception may be injected with or without an error code.
    pub const fn has_free_error_codes(self) -> bool {
        self.0 >> 56 & 1 != 0
    }
}

/// IA32_VMX_MISC (SDM 3D A.6 "Miscellaneous Data").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Misc(pub u64);

impl Misc {
    /// Bits 4:0: the VMX-preemption timer counts down once every 2^shift TSC ticks.
    pub const fn preemption_timer_shift(self) -> u32 {
        (self.0 & 0x1f) as u32
    }

    /// Bit 5: a VM exit stores IA32_EFER.LMA into "IA-32e mode guest". Always so with unrestricted guest.
    pub const fn saves_lma(self) -> bool {
        self.0 >> 5 & 1 != 0
    }

    /// Whether activity state `state` may be entered: 0 (active) always; bit 6 for HLT (1), bit 7 for shutdown (2), bit 8
    /// for wait-for-SIPI (3).
    pub const fn supports_activity_state(self, state: u32) -> bool {
        match state {
            0 => true,
            1..=3 => self.0 >> (5 + state) & 1 != 0,
            _ => false,
        }
    }

    /// Bits 24:16: how many CR3-target values there are.
    pub const fn cr3_targets(self) -> u32 {
        (self.0 >> 16 & 0x1ff) as u32
    }

    /// Bits 27:25: the most entries that an MSR list should have.
    pub const fn max_msr_list_entries(self) -> u32 {
        512 * ((self.0 >> 25 & 7) as u32 + 1)
    }

    /// Bit 29: VMWRITE may write every field that exists, also the read-only ones.
    pub const fn can_write_all_fields(self) -> bool {
        self.0 >> 29 & 1 != 0
    }

    /// Bit 30: software events may be injected with an instruction length of 0.
    pub const fn allows_zero_instruction_length(self) -> bool {
        self.0 >> 30 & 1 != 0
    }
}

/// Which bits of CR0 or CR4 have one value only in VMX operation (SDM 3D A.7 "VMX-Fixed Bits in CR0" and A.8 "VMX-Fixed
/// Bits in CR4").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct FixedBits {
    /// Bits that must be 1.
    pub fixed0: u64,
    /// Bits that may be 1.
    pub fixed1: u64,
}

impl FixedBits {
    /// Whether VMX operation allows `value`.
    pub const fn permits(self, value: u64) -> bool {
        self.permits_ignoring(value, 0)
    }

    /// Whether VMX operation allows `value`, whatever the bits of `ignored` are.
    pub const fn permits_ignoring(self, value: u64, ignored: u64) -> bool {
        (self.fixed0 & !value | value & !self.fixed1) & !ignored == 0
    }

    /// `value` with the fixed bits as they must be.
    pub const fn adjust(self, value: u64) -> u64 {
        (value | self.fixed0) & self.fixed1
    }
}
