//! Random VM entries, for the oracle: what round `i` under seed `s` enters, what it must come to, and what it came to.
//!
//! The guest `oracle` makes the rounds on a machine; `cargo xtask oracle` makes the same rounds on the host and predicts
//! each outcome from `vmcs::checks`. Both call [`Round::new`], which knows nothing of either.
//!
//! | question | file |
//! |---|---|
//! | which valid VMCSs there are | `baseline.rs` |
//! | how one field is changed, and several together | `change.rs`, `themes.rs` |
//! | what is never tried, and why | `survive.rs`, `touched.rs` |
//! | what lies in memory | `pages.rs` |
//! | what must happen | `predict.rs`; `msr_list.rs`, `exit.rs` where all checks pass |
//! | what a line of the log means | `outcome.rs` |
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

mod baseline;
mod change;
mod exit;
mod image;
mod msr_list;
mod outcome;
pub mod pages;
mod predict;
mod rng;
mod survive;
mod themes;
pub mod touched;

pub use baseline::{Kind, OWN, OWN_VALUE};
pub use image::Image;
pub use outcome::Outcome;
pub use predict::{Passed, Prediction, predict};

use rng::Rng;
use vmcs::{Access, Encoding};

/// Words in memory that rounds change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Words {
    /// The word at [`pages::VTPR`].
    pub vtpr: u64,
    /// The first entries of the list at [`pages::ENTRY_LOAD`]: the MSR's word and its value.
    pub entry_list: [(u64, u64); 3],
}

impl Words {
    /// Those of a round that changes none.
    pub const PLAIN: Self = Self {
        vtpr: pages::VTPR_VALUE,
        entry_list: [(pages::PLAIN_MSRS[0], 0), (pages::PLAIN_MSRS[1], 0), (pages::PLAIN_MSRS[2], 0)],
    };

    /// Each word with its address.
    pub fn all(&self) -> impl Iterator<Item = (u64, u64)> {
        let list = self.entry_list;
        let entries = (0..list.len() as u64).zip(list);
        [(pages::VTPR, self.vtpr)].into_iter().chain(
            entries.flat_map(|(i, (msr, value))| {
                [(pages::ENTRY_LOAD + 16 * i, msr), (pages::ENTRY_LOAD + 16 * i + 8, value)]
            }),
        )
    }
}

/// One VM entry.
#[derive(Clone, Debug)]
pub struct Round {
    /// What it started from.
    pub kind: Kind,
    /// The VMCS that is entered.
    pub vmcs: Image,
    /// The words in memory.
    pub words: Words,
}

impl Round {
    /// Nothing but the valid VMCS of `kind`.
    pub fn unchanged(kind: Kind) -> Self {
        Self { kind, vmcs: baseline::of(kind), words: Words::PLAIN }
    }

    /// Round `index` under `seed`.
    pub fn new(seed: u32, index: u32) -> Self {
        let mut rng = Rng::new(seed, index);
        let mut round = Self::unchanged(rng.pick(&Kind::CHOICES));
        for _ in 0..=rng.below(3) {
            if rng.one_in(2) {
                change::any_field(&mut round.vmcs, &mut rng);
            } else {
                themes::any(&mut round.vmcs, &mut rng, &mut round.words);
            }
        }
        survive::make(&mut round.vmcs);
        round
    }

    /// The fields that differ from the valid VMCS: value before and in the round.
    pub fn changes(&self) -> impl Iterator<Item = (Encoding, u64, u64)> + '_ {
        let before = baseline::of(self.kind);
        self.vmcs
            .fields()
            .map(move |(field, value)| (field, before.read_raw(field), value))
            .filter(|(_, before, value)| before != value)
    }
}
