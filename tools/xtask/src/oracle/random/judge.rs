//! Comparing three accounts of the same rounds: the bare machine's, Nestling's and the manual's.

use super::capture::Machine;
use super::emulator_errors::{self, Does};
use rounds::{Outcome, Passed, Prediction, Round, predict};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// What came of the comparison.
pub(super) struct Report {
    rounds: usize,
    differences: Vec<String>,
    /// How often each outcome was seen on the bare machine, by its first word.
    outcomes: BTreeMap<String, usize>,
    /// Rounds that each emulator error explains.
    explained: Vec<usize>,
    /// Rules that some round broke.
    broken: BTreeSet<&'static str>,
    /// Rounds in which L2 must run, and those of them whose exit was predicted.
    entered: [usize; 2],
}

/// Judges every round.
pub(super) fn judge(machine: &Machine, seed: u32, first: u32, bare: &[Outcome], nested: Option<&[Outcome]>) -> Report {
    let mut report = Report {
        rounds: bare.len(),
        differences: Vec::new(),
        outcomes: BTreeMap::new(),
        explained: vec![0; emulator_errors::ALL.len()],
        broken: BTreeSet::new(),
        entered: [0; 2],
    };
    for ((index, &bare), position) in (first..).zip(bare).zip(0..) {
        let round = Round::new(seed, index);
        let by_manual = predict(&round, &machine.capabilities, machine.physical_address_bits);
        report.broken.extend(by_manual.broken.iter().map(|(rule, _)| rule.name()));
        let word = bare.to_string().split(' ').next().unwrap_or_default().to_owned();
        *report.outcomes.entry(word).or_default() += 1;
        if let (true, Passed::Enters(exit)) = (by_manual.broken.is_empty(), by_manual.passed) {
            report.entered[0] += 1;
            report.entered[1] += usize::from(exit.is_some());
        }
        let (by_emulator, errors) = as_emulator(&round, &by_manual);
        if !by_manual.admits(bare) && by_emulator.admits(bare) {
            errors.iter().for_each(|&error| report.explained[error] += 1);
        } else if !by_manual.admits(bare) {
            report.differences.push(describe(index, &round, &by_manual, &format!("the bare machine says {bare}")));
        }
        if let Some(&nested) = nested.and_then(|nested| nested.get(position)) {
            // Where several rules are broken, or the emulator is wrong, the two may differ and both be excused; but not
            // where it is only known that L2 exits.
            let has_choice = !by_manual.broken.is_empty() || !errors.is_empty();
            let is_excused = |account: &Prediction| {
                has_choice
                    && account.admits(nested)
                    && (!account.broken.is_empty() || account.passed != Passed::Enters(None))
            };
            let open = emulator_errors::ALL.iter().position(|error| {
                matches!(error.does, Does::MayExit(exit) if exit == bare) && nested != bare && (error.when)(&round)
            });
            if let Some(open) = open {
                report.explained[open] += 1;
            } else if nested != bare && !is_excused(&by_manual) && !is_excused(&by_emulator) {
                let what = format!("the bare machine says {bare}, Nestling {nested}");
                report.differences.push(describe(index, &round, &by_manual, &what));
            }
        }
    }
    report
}

/// What the emulator may come to with its errors, and which of them have a part in it.
fn as_emulator(round: &Round, by_manual: &Prediction) -> (Prediction, BTreeSet<usize>) {
    let mut errors = BTreeSet::new();
    let mut prediction = by_manual.clone();
    prediction.broken = by_manual
        .broken
        .iter()
        .filter_map(|&(rule, outcome)| {
            let error =
                emulator_errors::ALL.iter().position(|error| error.rules.contains(&rule.name()) && (error.when)(round));
            let Some(error) = error else { return Some((rule, outcome)) };
            errors.insert(error);
            match emulator_errors::ALL[error].does {
                Does::NotCheck => None,
                Does::Fail(outcome) | Does::Exit(outcome) | Does::MayExit(outcome) => Some((rule, outcome)),
            }
        })
        .collect();
    for (number, error) in emulator_errors::ALL.iter().enumerate().filter(|(_, error)| error.rules.is_empty()) {
        if let (Does::Exit(exit), Passed::Enters(Some(_)), true) = (error.does, prediction.passed, (error.when)(round))
        {
            errors.insert(number);
            prediction.passed = Passed::Enters(Some(exit));
        }
    }
    (prediction, errors)
}

fn describe(index: u32, round: &Round, by_manual: &Prediction, what: &str) -> String {
    let mut text = format!("round {index} ({:?}): by the manual {by_manual}, but {what}\n", round.kind);
    for (field, before, value) in round.changes() {
        let _ = writeln!(text, "    {field:?} = {value:#x} instead of {before:#x}");
    }
    let plain = rounds::Words::PLAIN;
    for ((address, word), (_, before)) in round.words.all().zip(plain.all()).filter(|(word, before)| word != before) {
        let _ = writeln!(text, "    the word at {address:#x} = {word:#x} instead of {before:#x}");
    }
    for (rule, _) in &by_manual.broken {
        let _ = writeln!(text, "    {}: {rule}", rule.name());
    }
    text
}

/// As many rules as are worth their names in the report.
const FEW: usize = 10;

impl Report {
    pub(super) fn has_differences(&self) -> bool {
        !self.differences.is_empty()
    }

    /// For a person, with the first differences.
    pub(super) fn text(&self, show: usize) -> String {
        let mut text = String::new();
        for difference in self.differences.iter().take(show) {
            text += difference;
        }
        let outcomes: Vec<String> = self.outcomes.iter().map(|(outcome, count)| format!("{outcome} {count}")).collect();
        let _ = writeln!(text, "outcomes: {}", outcomes.join(", "));
        for (error, count) in emulator_errors::ALL.iter().zip(&self.explained) {
            let _ = match count {
                0 => writeln!(text, "not met: {}", error.text),
                _ => writeln!(text, "{count} rounds: {}", error.text),
            };
        }
        let _ = writeln!(text, "L2 ran in {} rounds, with a predicted exit in {}", self.entered[0], self.entered[1]);
        let within_reach = || {
            vmcs::checks::rules().map(|rule| rule.name()).filter(|name| !rounds::touched::OUT_OF_REACH.contains(name))
        };
        let (broken, missed): (Vec<&str>, Vec<&str>) = within_reach().partition(|name| self.broken.contains(name));
        let _ = writeln!(text, "{} of {} rules within reach were broken", broken.len(), within_reach().count());
        // A short run misses many.
        if (1..=FEW).contains(&missed.len()) {
            let _ = writeln!(text, "no round broke {}", missed.join(", "));
        }
        let _ = writeln!(text, "{} rounds, {} differences", self.rounds, self.differences.len());
        text
    }
}

#[cfg(test)]
mod tests {
    use super::super::{capture, emulator_errors::ALL};
    use super::*;
    use crate::board;
    use vmcs::ExitReason;

    const GUEST_STATE: Outcome = Outcome::EntryFailure(ExitReason::ENTRY_FAILURE_GUEST_STATE, 0);

    /// The outcomes by the manual, for a machine that makes no mistake.
    fn faultless(machine: &Machine, count: u32) -> Vec<Outcome> {
        (0..count)
            .map(|index| {
                let prediction = predict(&Round::new(1, index), &machine.capabilities, machine.physical_address_bits);
                prediction.foremost().unwrap_or(Outcome::Exit(ExitReason::EXCEPTION_OR_NMI, 3))
            })
            .collect()
    }

    /// A machine that does what the manual says differs nowhere; one that is wrong once, or two that differ once, do.
    #[test]
    fn one_wrong_outcome_is_one_difference() {
        let machine = capture::read(board::DEFAULT).unwrap();
        let good = faultless(&machine, 300);
        assert_eq!(judge(&machine, 1, 0, &good, Some(&good)).differences, [""; 0]);
        // A round that enters, and one that must not.
        let entered = good.iter().position(|outcome| matches!(outcome, Outcome::Exit(..))).unwrap();
        let refused = good.iter().position(|outcome| matches!(outcome, Outcome::VmFail(..))).unwrap();
        for (at, wrong) in [(entered, GUEST_STATE), (refused, Outcome::Exit(ExitReason::EXCEPTION_OR_NMI, 3))] {
            let mut bad = good.clone();
            bad[at] = wrong;
            let report = judge(&machine, 1, 0, &bad, None);
            assert_eq!(report.differences.len(), 1);
            assert!(report.differences[0].starts_with(&format!("round {at} ")), "{}", report.differences[0]);
            let report = judge(&machine, 1, 0, &good, Some(&bad));
            assert_eq!(report.differences.len(), 1);
            assert!(report.differences[0].contains("Nestling"), "{}", report.differences[0]);
        }
    }

    /// Where the bare machine is wrong in a way that is listed, Nestling may be right.
    #[test]
    fn listed_errors_are_excepted_on_the_bare_machine() {
        let machine = capture::read(board::DEFAULT).unwrap();
        let good = faultless(&machine, 2_000);
        let is_listed = |index: u32| {
            let round = Round::new(1, index);
            let prediction = predict(&round, &machine.capabilities, machine.physical_address_bits);
            let (by_emulator, errors) = as_emulator(&round, &prediction);
            by_emulator.broken.is_empty() && by_emulator.passed == Passed::Enters(None) && !errors.is_empty()
        };
        let at = (0..2_000).find(|&index| is_listed(index)).unwrap();
        let mut bare = good.clone();
        bare[at as usize] = Outcome::Exit(ExitReason::EXCEPTION_OR_NMI, 13);
        assert_eq!(judge(&machine, 1, 0, &bare, Some(&good)).differences, [""; 0]);
        // Nestling that enters as something else than both is wrong.
        let mut nested = good;
        nested[at as usize] = Outcome::Exit(ExitReason::TRIPLE_FAULT, 0);
        assert_eq!(judge(&machine, 1, 0, &bare, Some(&nested)).differences.len(), 1);
    }

    /// A case about a rule that is no more would never explain anything.
    #[test]
    fn listed_errors_name_rules_that_exist() {
        let names: BTreeSet<&str> = vmcs::checks::rules().map(|rule| rule.name()).collect();
        for error in ALL {
            assert!(error.rules.iter().all(|rule| names.contains(rule)), "{:?}", error.rules);
        }
    }
}
