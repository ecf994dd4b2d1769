//! Two L0s that may work differently run the same L1 and L2: one writes into vmcs02 what changed and reads from it what is
//! asked for, the other makes vmcs02 from nothing for each entry and reads everything after each exit. Nobody can tell them
//! apart: not L1 by its VMCS and its registers, not the processor by vmcs02.
//!
//! The second also judges the whole VMCS by itself before each entry, and each vmcs02 is judged by the processor's rules. The
//! processor lacks some of what a processor may lack; touching a field that it does not have fails the test.

mod support;

use std::sync::LazyLock;

use arch::Msr;
use proptest::prelude::*;
use support::{Driver, Manner, any_step};
use testkit::NestedBench;
use vmcs::Capabilities;
use vmcs::controls::SecondaryBased;

/// What the processor of a test is.
#[derive(Clone, Copy, Debug)]
enum Processor {
    /// It has the secondary controls whose bit is set, those that L0 needs, and so many CR3-target values.
    With(u32, u64),
    /// That of a board.
    OfBoard(usize),
}

/// What L0 cannot do without.
const NEEDED: SecondaryBased = SecondaryBased::ENABLE_EPT.union(SecondaryBased::UNRESTRICTED_GUEST);

static BOARDS: LazyLock<Vec<Capabilities>> = LazyLock::new(|| {
    let all = testkit::boards().into_iter().map(|board| board.capabilities());
    all.filter(|processor| processor.secondary.supports(NEEDED)).collect()
});

impl Processor {
    fn capabilities(self) -> Capabilities {
        match self {
            Self::With(has, cr3_targets) => Capabilities::read(|msr| match msr {
                Msr::VMX_PROCBASED_CTLS2 => testkit::capability_msrs(msr) & u64::from(has | NEEDED.bits()) << 32,
                Msr::VMX_MISC => testkit::capability_msrs(msr) & !(0x1ff << 16) | cr3_targets << 16,
                _ => testkit::capability_msrs(msr),
            }),
            Self::OfBoard(number) => BOARDS[number % BOARDS.len()],
        }
    }
}

fn driver(processor: Processor, manner: Manner) -> Driver {
    let processor = processor.capabilities();
    let shadowing = manner.shadowing && processor.secondary.supports(SecondaryBased::VMCS_SHADOWING);
    Driver::on(NestedBench::on(&processor, shadowing), manner)
}

fn any_processor() -> impl Strategy<Value = Processor> {
    prop_oneof![
        2 => (0..=4u64).prop_map(|targets| Processor::With(u32::MAX, targets)),
        1 => (any::<u32>(), 0..=4u64).prop_map(|(has, targets)| Processor::With(has, targets)),
        1 => any::<usize>().prop_map(Processor::OfBoard),
    ]
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
