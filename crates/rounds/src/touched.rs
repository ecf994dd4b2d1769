//! What the rounds may touch: the controls and bits that an L1 has on the bare machine and under Nestling alike.
//!
//! Under Nestling an L1 is offered a subset of the machine's VMX. A control that only the bare machine has would make
//! the two logs differ rightly, so it is never set. Controls that neither has are set and refused by both.

use vmcs::controls::{EntryControls, ExitControls, PinBased, PrimaryBased, SecondaryBased};
use vmcs::field::{FieldInfo, Needs};

/// Pin-based controls that rounds leave 0.
pub const NO_PIN: PinBased = PinBased::PROCESS_POSTED_INTERRUPTS;
/// Primary processor-based controls that rounds leave 0: none.
pub const NO_PRIMARY: PrimaryBased = PrimaryBased::empty();
/// Secondary processor-based controls that rounds leave 0.
pub const NO_SECONDARY: SecondaryBased = SecondaryBased::EPT_VIOLATION_VE
    .union(SecondaryBased::CONCEAL_VMX_FROM_PT)
    .union(SecondaryBased::PT_USES_GUEST_PHYSICAL_ADDRESSES);
/// VM-exit controls that rounds leave 0.
pub const NO_EXIT: ExitControls = ExitControls::LOAD_IA32_PERF_GLOBAL_CTRL
    .union(ExitControls::SAVE_IA32_PERF_GLOBAL_CTRL)
    .union(ExitControls::CLEAR_IA32_BNDCFGS)
    .union(ExitControls::CONCEAL_VMX_FROM_PT);
/// VM-entry controls that rounds leave 0.
pub const NO_ENTRY: EntryControls = EntryControls::LOAD_IA32_PERF_GLOBAL_CTRL
    .union(EntryControls::LOAD_IA32_BNDCFGS)
    .union(EntryControls::CONCEAL_VMX_FROM_PT);

/// Controls that both have: the fields that need one of them exist for both. Those of the machine of the tests, Bochs's
/// `corei7_skylake_x`.
const PIN: PinBased = PinBased::from_bits_retain(0xff).difference(NO_PIN);
const PRIMARY: PrimaryBased = PrimaryBased::from_bits_retain(0xfff9_fffe).difference(NO_PRIMARY);
const SECONDARY: SecondaryBased = SecondaryBased::from_bits_retain(0x0257_7fff).difference(NO_SECONDARY);
const EXIT: ExitControls = ExitControls::from_bits_retain(0x407f_ffff).difference(NO_EXIT);
const ENTRY: EntryControls = EntryControls::from_bits_retain(0xffff).difference(NO_ENTRY);

/// Bits of CR4 that rounds leave alone, in the guest's and the host's. A bit that CPUID does not show is refused.
pub const NO_CR4: u64 = 0;

/// Whether both can enter the shutdown state. If not, it is tried only with an event that it does not take, which fails
/// for both.
pub const HAS_SHUTDOWN: bool = false;

/// The lowest bit of an address that is beyond the physical-address width.
pub const WIDTH: u64 = 40;

/// Whether rounds write the field: it exists for both, and can be written.
pub(crate) fn writes(field: &FieldInfo) -> bool {
    let has = |need: &Needs| match *need {
        Needs::Pin(control) => PIN.contains(control),
        Needs::Primary(control) => PRIMARY.contains(control),
        Needs::Secondary(control) => SECONDARY.contains(control),
        Needs::Exit(control) => EXIT.contains(control),
        Needs::Entry(control) => ENTRY.contains(control),
        Needs::VmFunction(number) => number == 0 && SECONDARY.contains(SecondaryBased::ENABLE_VM_FUNCTIONS),
        Needs::MoreCr3TargetsThan(number) => number < 4,
        Needs::Tertiary(_) | Needs::SecondaryExit(_) => false,
    };
    !field.is_read_only() && (field.needs.is_empty() || field.needs.iter().any(has))
}

/// Rules that no round breaks, or only by chance together with others: the machine lacks the feature or the control, the
/// control is never touched, or L1 would have to be outside IA-32e mode or tracing.
pub const OUT_OF_REACH: [&str; 42] = [
    "TERTIARY_RESERVED",
    "POSTED_NEEDS_VIRTUAL_INTERRUPTS",
    "POSTED_NEEDS_ACKNOWLEDGE",
    "POSTED_VECTOR",
    "POSTED_DESCRIPTOR_ALIGNMENT",
    "POSTED_DESCRIPTOR_WIDTH",
    "EPTP_ACCESSED_DIRTY",
    "SUB_PAGE_NEEDS_EPT",
    "SUB_PAGE_TABLE",
    "VE_INFORMATION_PAGE",
    "PT_GUEST_PHYSICAL_NEEDS",
    "PASID_DIRECTORIES",
    "HLAT_AND_PAGING_CONTROLS_NEED_EPT",
    "HLATP_RESERVED",
    "HLAT_PREFIX",
    "PID_POINTER_TABLE",
    "PID_POINTER_TABLE_END",
    "SECONDARY_EXIT_RESERVED",
    "LOAD_RTIT_CTL_WHILE_TRACING",
    "HOST_CET_NEEDS_WP",
    "HOST_CET_CANONICAL",
    "HOST_PERF_GLOBAL_CTRL_RESERVED",
    "HOST_S_CET_RESERVED",
    "HOST_SSP_ALIGNMENT",
    "HOST_PKRS_RESERVED",
    "HOST_SS_NOT_NULL",
    "HOST_OUTSIDE_IA32E_MODE",
    "HOST_PCIDE_NEEDS_64_BIT_HOST",
    "HOST_RIP_32_BIT",
    "HOST_CET_32_BIT",
    "HOST_SSP_CANONICAL",
    "GUEST_CET_CANONICAL",
    "GUEST_PERF_GLOBAL_CTRL_RESERVED",
    "GUEST_BNDCFGS_RESERVED",
    "GUEST_BNDCFGS_CANONICAL",
    "GUEST_RTIT_CTL_RESERVED",
    "GUEST_S_CET_RESERVED",
    "GUEST_LBR_CTL_RESERVED",
    "GUEST_PKRS_RESERVED",
    "GUEST_UINV_RESERVED",
    "GUEST_SSP_ALIGNMENT",
    "GUEST_SSP_WIDTH",
];
