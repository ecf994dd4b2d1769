//! EPT02 against a naive reading of EPT12: whatever L1 does to its tables, L2 reaches nothing that the tables did not
//! allow at some time since the last INVEPT that names them, and nothing that is not L1's RAM.

#[path = "support/l1.rs"]
mod l1;
#[path = "support/model.rs"]
mod model;
#[path = "support/processor.rs"]
mod processor;
mod support;

use std::collections::BTreeSet;

use arch::GuestPhys;
use ept::cache::FEWEST_FRAMES;
use ept::{Access, Backing, PageSize, Permissions, Rules};
use l1::{GIB, L1, MIB};
use model::{Machine, Step, TABLES};
use proptest::prelude::*;

fn entry() -> impl Strategy<Value = u64> {
    let bits = prop_oneof![
        8 => Just(7u64),
        2 => Just(0x407),
        6 => prop::sample::select(vec![0x403, 3, 5, 0x405, 1, 0x401, 4, 0x400, 0x404, 0x300 | 7, 0x507]),
        1 => prop::sample::select(vec![2u64, 6, 0x402]),
    ];
    let memory_type = prop_oneof![4 => Just(0x30u64), 1 => (0u64..16).prop_map(|n| n << 3)];
    let table = (1..=TABLES).prop_map(|n| n << 12);
    let small = prop::sample::select(vec![0, 0x9000, 0xa000, 0x9_f000, 0xa_0000, 0xf_0000, 5 * MIB, 4 * GIB, 1 << 46]);
    let large = prop::sample::select(vec![0, 2 * MIB, 4 * MIB, 4 * GIB, 5 * GIB, 5 * GIB + 2 * MIB, 7 * GIB, 8 * GIB]);
    prop_oneof![
        1 => Just(0),
        8 => (table, bits.clone()).prop_map(|(table, bits)| table | bits),
        5 => (small, bits.clone(), memory_type.clone()).prop_map(|(at, bits, memory_type)| at | bits | memory_type),
        4 => (large, bits, memory_type).prop_map(|(at, bits, memory_type)| at | bits | memory_type | 0x80),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let access = prop::sample::select(vec![
        Access::READ,
        Access::WRITE,
        Access::fetch(false),
        Access::fetch(true),
        Access::PAGING_STRUCTURE,
        Access { needs: Permissions::WRITE, to_paging_structure: true },
    ]);
    prop_oneof![
        6 => (1..=TABLES, 0..2u64, entry()).prop_map(|(table, index, entry)| Step::Set { table, index, entry }),
        12 => (0..3usize, 0..16u64, access).prop_map(|(context, page, access)| Step::Access { context, page, access }),
        1 => (0..3usize).prop_map(|context| Step::InvalidateSingle { context }),
        1 => Just(Step::InvalidateAll),
    ]
}

/// The sizes of RAM pieces are what the tables of this test take for granted.
#[test]
fn the_model_reaches_every_size() {
    let l1 = L1::new();
    let sizes: BTreeSet<_> = [0, 4 * MIB, 5 * GIB].map(|at| l1.backing(GuestPhys(at)).unwrap().size).into();
    assert_eq!(sizes, BTreeSet::from([PageSize::Size4K, PageSize::Size2M, PageSize::Size1G]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Random changes, accesses and INVEPTs, with plenty of frames and with hardly any.
    #[test]
    fn nothing_that_l1_did_not_allow(
        execute_only: bool,
        mode_based_execute: bool,
        largest in prop::sample::select(vec![PageSize::Size2M, PageSize::Size1G]),
        limit in prop_oneof![Just(FEWEST_FRAMES), Just(FEWEST_FRAMES + 4), Just(1000)],
        steps in prop::collection::vec(step(), 1..150),
    ) {
        let mut machine = Machine::new(Rules { execute_only, mode_based_execute, largest, physical_width: 46 }, limit);
        for step in steps {
            machine.step(step);
            machine.check();
        }
    }
}
