//! L1's extended page tables: any entries, changed at any time, under accesses of L2 and INVEPT. The model of
//! `crates/ept/tests/shadow_model.rs` judges every step.
#![no_main]

#[path = "../../../crates/ept/tests/support/l1.rs"]
mod l1;
#[path = "../../../crates/ept/tests/support/model.rs"]
mod model;
#[path = "../../../crates/ept/tests/support/processor.rs"]
mod processor;
#[path = "../../../crates/ept/tests/support/mod.rs"]
mod support;

use arbitrary::Arbitrary;
use ept::cache::FEWEST_FRAMES;
use ept::{Access, PageSize, Permissions, Rules};
use libfuzzer_sys::fuzz_target;
use model::{Machine, Step, TABLES};

/// Addresses at which something begins or ends: RAM, ROM, devices, tables, large pages, the physical width.
const PLACES: [u64; 16] = [
    0x0,
    0x9000,
    0xf000,
    0x9_f000,
    0xa_0000,
    0xf_0000,
    0x20_0000,
    0x40_0000,
    0x3fe0_0000,
    0x4000_0000,
    0xfee0_0000,
    0x1_0000_0000,
    0x1_4020_0000,
    0x1_c000_0000,
    0x2_0000_0000,
    0x4000_0000_0000,
];

#[derive(Arbitrary, Debug)]
struct Input {
    execute_only: bool,
    mode_based_execute: bool,
    large: bool,
    more_frames: u8,
    steps: Vec<Raw>,
}

#[derive(Arbitrary, Debug)]
enum Raw {
    Entry { slot: u8, entry: u64 },
    Table { slot: u8, table: u8, bits: u16 },
    Page { slot: u8, place: u8, bits: u16 },
    Access { context: u8, page: u8, needs: u8, to_paging_structure: bool },
    InvalidateSingle { context: u8 },
    InvalidateAll,
}

fn set(slot: u8, entry: u64) -> Step {
    let slot = u64::from(slot);
    Step::Set { table: 1 + slot / 2 % TABLES, index: slot % 2, entry }
}

fn step(raw: &Raw) -> Step {
    match *raw {
        Raw::Entry { slot, entry } => set(slot, entry),
        Raw::Table { slot, table, bits } => set(slot, (1 + u64::from(table) % TABLES) << 12 | u64::from(bits & 0xf07)),
        Raw::Page { slot, place, bits } => {
            set(slot, PLACES[usize::from(place) % PLACES.len()] | u64::from(bits & 0xfff))
        }
        Raw::Access { context, page, needs, to_paging_structure } => {
            let needs = [Permissions::READ, Permissions::WRITE, Permissions::EXECUTE, Permissions::EXECUTE_USER]
                .into_iter()
                .enumerate()
                .filter(|(n, _)| needs >> n & 1 != 0)
                .fold(Permissions::empty(), |all, (_, needed)| all | needed);
            // Every access needs something.
            let needs = if needs.is_empty() { Permissions::READ } else { needs };
            let access = Access { needs, to_paging_structure };
            Step::Access { context: usize::from(context % 3), page: u64::from(page % 16), access }
        }
        Raw::InvalidateSingle { context } => Step::InvalidateSingle { context: usize::from(context % 3) },
        Raw::InvalidateAll => Step::InvalidateAll,
    }
}

fuzz_target!(|input: Input| {
    let rules = Rules {
        execute_only: input.execute_only,
        mode_based_execute: input.mode_based_execute,
        largest: if input.large { PageSize::Size1G } else { PageSize::Size2M },
        physical_width: 46,
    };
    let mut machine = Machine::new(rules, FEWEST_FRAMES + usize::from(input.more_frames));
    for raw in &input.steps {
        machine.step(step(raw));
        machine.check();
    }
});
