//! From capability MSRs to control words.

use std::cell::RefCell;

use arch::Msr;
use proptest::prelude::*;
use testkit::capability_msrs;
use vmcs::capabilities::FixedBits;
use vmcs::controls::{PinBased, PrimaryBased, SecondaryBased};
use vmcs::field::info;
use vmcs::fields::*;
use vmcs::{Allowed, Capabilities};

/// The MSRs of a processor of the first generation, read in SDM 3D appendix A's terms: neither secondary controls nor
/// "true" MSRs. RDMSR of an MSR that does not exist would be #GP in L0.
#[test]
fn only_msrs_that_exist_are_read() {
    let read = RefCell::new(Vec::new());
    let capabilities = Capabilities::read(|msr| {
        read.borrow_mut().push(msr);
        match msr {
            Msr::VMX_BASIC => 0x1 | 1024 << 32 | 6 << 50,
            Msr::VMX_PINBASED_CTLS => 0x0000_001f_0000_0016,
            Msr::VMX_PROCBASED_CTLS => 0x77b9_fffe_0401_e172,
            Msr::VMX_EXIT_CTLS => 0x0003_6fff_0003_6dff,
            Msr::VMX_ENTRY_CTLS => 0x0000_1fff_0000_11ff,
            Msr::VMX_MISC => 0x403c0,
            Msr::VMX_CR0_FIXED0 => 0x8000_0021,
            Msr::VMX_CR0_FIXED1 => 0xffff_ffff,
            Msr::VMX_CR4_FIXED0 => 0x2000,
            Msr::VMX_CR4_FIXED1 => 0x27ff,
            Msr::VMX_VMCS_ENUM => 0x2c,
            other => panic!("{other:?} does not exist on this processor"),
        }
    });
    assert!(!capabilities.primary.supports(PrimaryBased::ACTIVATE_SECONDARY_CONTROLS));
    assert_eq!(capabilities.secondary, Allowed::default());
    assert_eq!((capabilities.basic.revision(), capabilities.basic.region_size()), (1, 1024));
    assert_eq!(capabilities.highest_field_index, 0x16);
    assert!(!capabilities.has_field(info(EPT_POINTER.encoding()).unwrap()));
    assert!(capabilities.has_field(info(GUEST_RIP.encoding()).unwrap()));
    assert_eq!(capabilities.misc.cr3_targets(), 4);
    assert!(capabilities.has_field(info(CR3_TARGET_VALUE3.encoding()).unwrap()));
}

/// Without the true MSRs CR3-load exiting would always be on, and every MOV to CR3 would exit.
#[test]
fn true_controls_count_where_they_exist() {
    let with = Capabilities::read(capability_msrs);
    assert!(!with.primary.allowed0.contains(PrimaryBased::CR3_LOAD_EXITING));
    let without = Capabilities::read(|msr| match msr {
        Msr::VMX_BASIC => capability_msrs(msr) & !(1 << 55),
        Msr::VMX_TRUE_PINBASED_CTLS
        | Msr::VMX_TRUE_PROCBASED_CTLS
        | Msr::VMX_TRUE_EXIT_CTLS
        | Msr::VMX_TRUE_ENTRY_CTLS => panic!("{msr:?} does not exist"),
        other => capability_msrs(other),
    });
    assert!(without.primary.allowed0.contains(PrimaryBased::CR3_LOAD_EXITING));
}

/// The sentence that a user of a machine without EPT reads.
#[test]
fn missing_controls_are_named() {
    let secondary = Allowed::<SecondaryBased>::from_msr(0x0000_0020_0000_0000);
    let missing = secondary
        .choose(
            SecondaryBased::ENABLE_EPT | SecondaryBased::ENABLE_VPID | SecondaryBased::UNRESTRICTED_GUEST,
            SecondaryBased::empty(),
        )
        .unwrap_err();
    assert_eq!(
        missing.to_string(),
        "the processor's secondary processor-based VM-execution controls lack \"enable EPT\", \"unrestricted guest\""
    );
    assert_eq!(missing.bits(), 0x82);
}

/// What the log shows of a choice: what was asked for, what was refused, what is forced.
#[test]
fn choice_shows_how_it_came_about() {
    let pin = Allowed::<PinBased>::from_msr(0x0000_003f_0000_0016);
    let choice =
        pin.choose(PinBased::NMI_EXITING, PinBased::VIRTUAL_NMIS | PinBased::PROCESS_POSTED_INTERRUPTS).unwrap();
    assert_eq!(choice.chosen.bits(), 0x16 | 0x08 | 0x20);
    assert_eq!(choice.refused(), PinBased::PROCESS_POSTED_INTERRUPTS);
    assert_eq!(choice.forced().bits(), 0x16);
    assert!(choice.has(PinBased::VIRTUAL_NMIS));
}

/// SDM 3D A.7: a CR0 with PE, NE and PG fixed to 1.
#[test]
fn fixed_bits() {
    let cr0 = FixedBits { fixed0: 0x8000_0021, fixed1: 0xffff_ffff };
    assert!(cr0.permits(0x8001_0033));
    assert!(!cr0.permits(0x8001_0013), "NE is 0");
    assert!(!cr0.permits(0x1_8001_0033), "bit 32 does not exist");
    assert!(cr0.permits_ignoring(0x20, 0x8000_0001), "real mode in an unrestricted guest");
    assert_eq!(cr0.adjust(0x1_0000_0000), 0x8000_0021);
}

/// SDM 3D A.6 of a value that a real machine reports: timer shift 7, all activity states, 4 CR3 targets.
#[test]
fn miscellaneous_data() {
    let misc = vmcs::capabilities::Misc(0x7004_c1e7);
    assert_eq!(misc.preemption_timer_shift(), 7);
    assert!(misc.saves_lma());
    assert_eq!([0, 1, 2, 3, 4].map(|state| misc.supports_activity_state(state)), [true, true, true, true, false]);
    assert_eq!(misc.cr3_targets(), 4);
    assert_eq!(misc.max_msr_list_entries(), 512);
    assert!(misc.can_write_all_fields());
    assert!(misc.allows_zero_instruction_length());
}

proptest! {
    /// Whatever the MSR says and whatever is wanted: the entry accepts the word, and nothing required is missing.
    #[test]
    fn chosen_words_are_permitted(msr: u64, required: u32, wanted: u32) {
        // A processor never says that a bit must be 1 and may not.
        let msr = msr | msr << 32;
        let allowed = Allowed::<SecondaryBased>::from_msr(msr);
        let required = SecondaryBased::from_bits_retain(required);
        match allowed.choose(required, SecondaryBased::from_bits_retain(wanted)) {
            Ok(choice) => {
                prop_assert!(allowed.permits(choice.chosen));
                prop_assert!(choice.has(required));
            }
            Err(missing) => prop_assert_ne!(missing.bits() & !(msr >> 32), 0),
        }
    }
}
