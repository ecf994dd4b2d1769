//! What a round must come to by the manual.

use heapless::Vec;
use vmcs::checks::{self, Environment, PhysicalMemory, Rule};
use vmcs::{Capabilities, ExitReason};

use crate::outcome::Outcome;
use crate::{Round, Words, exit, msr_list, pages};

/// More rules than three changes break.
const MOST_RULES: usize = 96;

/// What an entry that passes all checks comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passed {
    /// It fails while it loads MSRs; the number of the entry of the list.
    MsrLoading(u64),
    /// L2 runs. What ends it is known where the round changed nothing that L2 starts with.
    Enters(Option<Outcome>),
}

/// The prediction for one round.
#[derive(Clone, Debug)]
pub struct Prediction {
    /// Every rule that is broken, in the manual's order, and what comes of it.
    pub broken: Vec<(&'static Rule, Outcome), MOST_RULES>,
    /// What comes of the entry if no rule is.
    pub passed: Passed,
}

impl Prediction {
    /// Whether `outcome` is one that the manual allows.
    ///
    /// A processor may check in any order, within the controls and host state and within the guest state, and so report
    /// any of several errors (SDM 3C 27.2 "Checks on VMX Controls and Host-State Area", 27.3.1 "Checks on the Guest State
    /// Area"). Guest state is checked only when nothing was wrong before it.
    pub fn admits(&self, outcome: Outcome) -> bool {
        if !self.broken.is_empty() {
            return self.admitted().any(|admitted| admitted == outcome);
        }
        match self.passed {
            Passed::MsrLoading(entry) => outcome == msr_loading(entry),
            Passed::Enters(Some(exit)) => outcome == exit,
            Passed::Enters(None) => matches!(outcome, Outcome::Exit(..)),
        }
    }

    /// The outcome, if checks are made in the manual's order; `None` if it is only known that L2 exits.
    pub fn foremost(&self) -> Option<Outcome> {
        self.admitted().next().or(match self.passed {
            Passed::MsrLoading(entry) => Some(msr_loading(entry)),
            Passed::Enters(exit) => exit,
        })
    }

    /// The outcomes of the broken rules that may show.
    fn admitted(&self) -> impl Iterator<Item = Outcome> + '_ {
        let is_early = |outcome: &Outcome| matches!(outcome, Outcome::VmFail(_));
        let any_early = self.broken.iter().any(|(_, outcome)| is_early(outcome));
        self.broken.iter().map(|(_, outcome)| *outcome).filter(move |outcome| is_early(outcome) == any_early)
    }
}

impl core::fmt::Display for Prediction {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.foremost() {
            Some(outcome) => write!(f, "{outcome}"),
            None => f.write_str("an exit of L2"),
        }
    }
}

fn msr_loading(entry: u64) -> Outcome {
    Outcome::EntryFailure(ExitReason::ENTRY_FAILURE_MSR_LOADING, entry)
}

fn outcome_of(rule: &Rule) -> Outcome {
    match *rule.outcome {
        checks::Outcome::VmFail(error) => Outcome::VmFail(error),
        checks::Outcome::Exit { reason, qualification } => Outcome::EntryFailure(reason, qualification),
    }
}

/// Predicts the round on a machine with these capabilities and this width of physical addresses.
pub fn predict(round: &Round, capabilities: &Capabilities, physical_address_bits: u8) -> Prediction {
    let memory = Memory { words: round.words, revision: capabilities.basic.revision() };
    let environment = Environment::new(capabilities, physical_address_bits, pages::VMCS, &memory);
    let mut broken = Vec::new();
    checks::for_each_broken(&round.vmcs, &environment, |rule| {
        // The capacity is above what rounds break; a rule too many would be missing from a report, no more.
        let _ = broken.push((rule, outcome_of(rule)));
    });
    let passed = match msr_list::first_refused(&round.vmcs, &memory) {
        Some(entry) => Passed::MsrLoading(entry),
        None => Passed::Enters(exit::predict(round, &memory)),
    };
    Prediction { broken, passed }
}

/// The memory of a round: the pages as they are in it, other memory that no check reads, and nothing beyond.
struct Memory {
    words: Words,
    revision: u32,
}

/// Where a guest's memory ends at the latest.
const END_OF_MEMORY: u64 = 4 << 30;

impl PhysicalMemory for Memory {
    fn read_u64(&self, address: u64) -> u64 {
        if let Some((_, word)) = self.words.all().find(|(changed, _)| *changed == address) {
            word
        } else if (pages::FIRST..pages::FIRST + pages::SIZE).contains(&address) {
            pages::word(address, self.revision)
        } else if address < END_OF_MEMORY {
            0
        } else {
            u64::MAX
        }
    }
}
