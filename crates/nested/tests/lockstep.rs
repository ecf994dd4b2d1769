//! Two L0s that may work differently run the same L1 and L2: one writes into vmcs02 what changed and reads from it what is
//! asked for, the other makes vmcs02 from nothing for each entry and reads everything after each exit. Nobody can tell them
//! apart: not L1 by its VMCS and its registers, not the processor by vmcs02.
//!
//! The second also judges the whole VMCS by itself before each entry, and each vmcs02 is judged by the processor's rules. The
//! processor lacks some of what a processor may lack; touching a field that it does not have fails the test.

mod support;

use arch::Msr;
use proptest::prelude::*;
use support::{Driver, Manner, any_step};
use testkit::NestedBench;
use vmcs::Capabilities;
use vmcs::controls::SecondaryBased;

/// A processor that has the secondary controls of which the bit in `has` is set, and those that L0 needs.
fn processor(has: u32, cr3_targets: u64) -> Capabilities {
    let needed = (SecondaryBased::ENABLE_EPT | SecondaryBased::UNRESTRICTED_GUEST).bits();
    Capabilities::read(|msr| match msr {
        Msr::VMX_PROCBASED_CTLS2 => testkit::capability_msrs(msr) & u64::from(has | needed) << 32,
        Msr::VMX_MISC => testkit::capability_msrs(msr) & !(0x1ff << 16) | cr3_targets << 16,
        _ => testkit::capability_msrs(msr),
    })
}

fn driver((has, cr3_targets): (u32, u64), manner: Manner) -> Driver {
    let processor = processor(has, cr3_targets);
    let shadowing = manner.shadowing && processor.secondary.supports(SecondaryBased::VMCS_SHADOWING);
    Driver::on(NestedBench::on(&processor, shadowing), manner)
}

/// What [`processor`] is made of: mostly one that has everything.
fn any_processor() -> impl Strategy<Value = (u32, u64)> {
    (prop_oneof![Just(u32::MAX), any::<u32>()], 0..=4u64)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Dirty tracking, partial checks, lazy read-back and VMCS shadowing change nothing.
    #[test]
    fn shortcuts_cannot_be_seen(
        processor in any_processor(), steps in prop::collection::vec(any_step(), 1..80), shadowing: bool,
    ) {
        let mut short = driver(processor, Manner { shadowing, ..Manner::default() });
        let mut long = driver(processor, Manner { eager: true, from_scratch: true, ..Manner::default() });
        for (number, step) in steps.iter().enumerate() {
            let (seen, expected) = (short.step(step), long.step(step));
            support::assert_same(&seen, &expected, number, step);
        }
    }

    /// Nor can be that the vCPU is saved, and restored on another processor, whatever it is about to do.
    #[test]
    fn moving_the_vcpu_cannot_be_seen(
        processor in any_processor(), steps in prop::collection::vec(any_step(), 1..80), shadowing: bool,
    ) {
        let mut moved = driver(processor, Manner { shadowing, moves: true, ..Manner::default() });
        let mut stays = driver(processor, Manner { shadowing, ..Manner::default() });
        for (number, step) in steps.iter().enumerate() {
            let (seen, expected) = (moved.step(step), stays.step(step));
            support::assert_same(&seen, &expected, number, step);
        }
    }
}
