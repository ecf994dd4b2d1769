//! The VMX capability MSRs of a processor that has everything.

use arch::Msr;
use vmcs::EptVpid;
use vmcs::controls::{
    ControlWord, EntryControls, ExitControls, PinBased, PrimaryBased, SecondaryBased, SecondaryExitControls,
    TertiaryBased,
};

/// The capability MSR `msr` of a processor on which every control that the manual names may be 1 and only those that the
/// manual reserves as 1 must be: the value to give [`vmcs::Capabilities::read`].
///
/// # Panics
///
/// For an MSR that is no VMX capability MSR: on a machine the RDMSR would fault.
#[expect(clippy::panic, reason = "a test that gets here is wrong")]
pub fn capability_msrs(msr: Msr) -> u64 {
    // SDM 3D A.2 "Reserved Controls and Default Settings": these reserved bits must be 1. The second value of each pair
    // has the controls whose default is 1, which only the "true" MSRs let be 0.
    let pin = (0x0000_0016, 0x0000_0016);
    let primary = (0x0400_6172, 0x0401_e172);
    let exit = (0x0003_6dfb, 0x0003_6dff);
    let entry = (0x0000_11fb, 0x0000_11ff);
    match msr {
        // Revision 0x4e53, 4096-byte regions, write-back, information for INS and OUTS, true controls.
        Msr::VMX_BASIC => 0x4e53 | 4096 << 32 | 6 << 50 | 1 << 54 | 1 << 55,
        // Timer shift 5, EFER.LMA saved, HLT, shutdown and wait-for-SIPI, 4 CR3 targets, instruction length 0.
        Msr::VMX_MISC => 5 | 1 << 5 | 7 << 6 | 4 << 16 | 1 << 30,
        Msr::VMX_PINBASED_CTLS => word::<PinBased>(pin.1),
        Msr::VMX_TRUE_PINBASED_CTLS => word::<PinBased>(pin.0),
        Msr::VMX_PROCBASED_CTLS => word::<PrimaryBased>(primary.1),
        Msr::VMX_TRUE_PROCBASED_CTLS => word::<PrimaryBased>(primary.0),
        Msr::VMX_PROCBASED_CTLS2 => word::<SecondaryBased>(0),
        Msr::VMX_PROCBASED_CTLS3 => named::<TertiaryBased>(),
        Msr::VMX_EXIT_CTLS => word::<ExitControls>(exit.1),
        Msr::VMX_TRUE_EXIT_CTLS => word::<ExitControls>(exit.0),
        Msr::VMX_EXIT_CTLS2 => named::<SecondaryExitControls>(),
        Msr::VMX_ENTRY_CTLS => word::<EntryControls>(entry.1),
        Msr::VMX_TRUE_ENTRY_CTLS => word::<EntryControls>(entry.0),
        Msr::VMX_EPT_VPID_CAP => EptVpid::all().bits() | 52 << 48,
        Msr::VMX_VMFUNC => 1,
        // PE, NE and PG must be 1; all 32 bits may be.
        Msr::VMX_CR0_FIXED0 => 0x8000_0021,
        Msr::VMX_CR0_FIXED1 => 0xffff_ffff,
        // VMXE must be 1; every bit that has a meaning may be, but SMXE and UINTR.
        Msr::VMX_CR4_FIXED0 => 0x2000,
        Msr::VMX_CR4_FIXED1 => 0x01f7_3fff,
        Msr::VMX_VMCS_ENUM => 0x26 << 1,
        other => panic!("{other:?} is no VMX capability MSR"),
    }
}

fn named<C: ControlWord>() -> u64 {
    C::CONTROLS.iter().fold(0, |bits, (bit, _)| bits | 1 << bit)
}

fn word<C: ControlWord>(must_be_one: u64) -> u64 {
    (named::<C>() | must_be_one) << 32 | must_be_one
}
