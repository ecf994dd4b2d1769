//! Two L0s that may work differently run the same L1 and L2: one writes into vmcs02 what changed and reads from it what is
//! asked for, the other makes vmcs02 from nothing for each entry and reads everything after each exit. Nobody can tell them
//! apart: not L1 by its VMCS and its registers, not the processor by vmcs02.
//!
//! The second also judges the whole VMCS by itself before each entry, and each vmcs02 is judged by the processor's rules.

mod support;

use proptest::prelude::*;
use support::{Driver, Manner, any_step};

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Dirty tracking, partial checks, lazy read-back and VMCS shadowing change nothing.
    #[test]
    fn shortcuts_cannot_be_seen(steps in prop::collection::vec(any_step(), 1..80), shadowing: bool) {
        let mut short = Driver::new(Manner { shadowing, ..Manner::default() });
        let mut long = Driver::new(Manner { eager: true, from_scratch: true, ..Manner::default() });
        for (number, step) in steps.iter().enumerate() {
            let (seen, expected) = (short.step(step), long.step(step));
            support::assert_same(&seen, &expected, number, step);
        }
    }

    /// Nor can be that the vCPU is saved, and restored on another processor, whatever it is about to do.
    #[test]
    fn moving_the_vcpu_cannot_be_seen(steps in prop::collection::vec(any_step(), 1..80), shadowing: bool) {
        let mut moved = Driver::new(Manner { shadowing, moves: true, ..Manner::default() });
        let mut stays = Driver::new(Manner { shadowing, ..Manner::default() });
        for (number, step) in steps.iter().enumerate() {
            let (seen, expected) = (moved.step(step), stays.step(step));
            support::assert_same(&seen, &expected, number, step);
        }
    }
}
