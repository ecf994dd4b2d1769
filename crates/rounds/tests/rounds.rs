//! What holds of every round, whatever the seed.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a capture that cannot be read fails the tests")]

use std::collections::BTreeSet;

use rounds::{Kind, Outcome, Passed, Prediction, Round, pages, predict, touched};
use vmcs::fields::*;
use vmcs::{Access, Capabilities, ExitReason, InstructionError};

/// The machine of the emulator tests: `boards/bochs-skylake-x/vmx-caps.toml`.
fn capabilities() -> Capabilities {
    let text = include_str!("../../../boards/bochs-skylake-x/vmx-caps.toml");
    let hex = |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16).unwrap();
    let value = |number: u32| {
        let line = text.lines().find(|line| line.starts_with(&format!("{number:#05x} = ")));
        line.map(|line| hex(line.split('"').nth(1).unwrap())).unwrap_or_else(|| panic!("no MSR {number:#x}"))
    };
    Capabilities::read(|msr| value(msr.0))
}

fn predicted(round: &Round) -> Prediction {
    predict(round, &capabilities(), 40)
}

fn names(prediction: &Prediction) -> Vec<&'static str> {
    prediction.broken.iter().map(|(rule, _)| rule.name()).collect()
}

/// Every VMCS that rounds start from is valid: a rule that it broke would hide what a round changes.
#[test]
fn each_kind_starts_valid() {
    for kind in Kind::CHOICES {
        let prediction = predicted(&Round::unchanged(kind));
        assert_eq!(names(&prediction), [""; 0], "{kind:?}");
        assert_eq!(prediction.passed, Passed::Enters(Some(Outcome::Exit(ExitReason::EXCEPTION_OR_NMI, 3))), "{kind:?}");
    }
}

/// Each rule that can be broken is, within a run of the usual length: a rule that no round breaks is not compared.
#[test]
fn each_rule_within_reach_is_broken() {
    let broken: BTreeSet<&str> = (0..20_000).flat_map(|index| names(&predicted(&Round::new(1, index)))).collect();
    let missed: Vec<_> = vmcs::checks::rules()
        .map(|rule| rule.name())
        .filter(|name| !broken.contains(name) && !touched::OUT_OF_REACH.contains(name))
        .collect();
    assert_eq!(missed, [""; 0]);
}

/// What a machine with fewer controls lacks is never set, and every field that is written exists without it.
#[test]
fn untouched_controls_stay_0() {
    for index in 0..5_000 {
        let vmcs = Round::new(2, index).vmcs;
        assert_eq!(vmcs.read(PIN_BASED_VM_EXEC_CONTROL) & touched::NO_PIN.bits(), 0, "round {index}");
        assert_eq!(vmcs.read(SECONDARY_VM_EXEC_CONTROL) & touched::NO_SECONDARY.bits(), 0, "round {index}");
        assert_eq!(vmcs.read(VM_EXIT_CONTROLS) & touched::NO_EXIT.bits(), 0, "round {index}");
        assert_eq!(vmcs.read(VM_ENTRY_CONTROLS) & touched::NO_ENTRY.bits(), 0, "round {index}");
        assert!(vmcs.fields().all(|(field, _)| field != POSTED_INTR_NV.encoding()), "round {index}");
    }
}

/// L1 comes back from every round: L2 does not wait for another processor, does not sleep without a timer, and what an exit
/// loads is L1's or harmless.
#[test]
fn every_round_is_survived() {
    for index in 0..20_000 {
        let round = Round::new(3, index);
        let vmcs = &round.vmcs;
        if !predicted(&round).broken.is_empty() {
            continue;
        }
        let state = vmcs.read(GUEST_ACTIVITY_STATE);
        assert!(state <= 2, "round {index}");
        if state != 0 {
            assert!(vmcs.read(PIN_BASED_VM_EXEC_CONTROL) & 1 << 6 != 0, "round {index}: no timer");
            assert!(vmcs.read(VMX_PREEMPTION_TIMER_VALUE) <= 0x4000, "round {index}: a long sleep");
        }
        assert_eq!([vmcs.read(HOST_RIP), vmcs.read(HOST_CR3)], [rounds::OWN_VALUE; 2], "round {index}");
        for (address, count, page) in [
            (VM_EXIT_MSR_STORE_ADDR, VM_EXIT_MSR_STORE_COUNT, pages::EXIT_STORE),
            (VM_EXIT_MSR_LOAD_ADDR, VM_EXIT_MSR_LOAD_COUNT, pages::EXIT_LOAD),
        ] {
            let count = vmcs.read(count);
            assert!(count == 0 || count <= 2 && vmcs.read(address) == page, "round {index}: a VMX abort");
        }
    }
}

/// A round can be made again without those before it; another seed makes other rounds.
#[test]
fn rounds_depend_on_seed_and_number_only() {
    let fields = |seed, index| Round::new(seed, index).vmcs.fields().collect::<Vec<_>>();
    assert_eq!(fields(7, 1000), fields(7, 1000));
    let differing = (0..100).filter(|&index| fields(7, index) != fields(8, index)).count();
    assert!(differing > 90, "{differing} of 100 rounds differ between two seeds");
}

/// The host reads the lines that the guest writes.
#[test]
fn outcomes_are_read_as_they_are_written() {
    for (outcome, text) in [
        (Outcome::VmFail(InstructionError::INVALID_CONTROL_FIELDS), "v7"),
        (Outcome::EntryFailure(ExitReason::ENTRY_FAILURE_GUEST_STATE, 4), "f33 4"),
        (Outcome::Exit(ExitReason::EPT_VIOLATION, 0x184), "e48 184"),
    ] {
        assert_eq!(outcome.to_string(), text);
        assert_eq!(text.parse(), Ok(outcome));
    }
    for text in ["", "v", "v7 0", "f33", "e0 g", "x1", "done"] {
        assert_eq!(text.parse::<Outcome>(), Err(()), "{text:?}");
    }
}

/// SDM 3C 27.4 "Loading MSRs": the number of the first entry that cannot be loaded, and none beyond the count.
#[test]
fn msr_list_fails_at_its_first_bad_entry() {
    let load = |count, change: fn(&mut Round)| {
        let mut round = Round::unchanged(Kind::Long);
        round.vmcs.write(VM_ENTRY_MSR_LOAD_COUNT, count);
        change(&mut round);
        predicted(&round).passed
    };
    let passes = |passed| matches!(passed, Passed::Enters(_));
    assert!(passes(load(3, |_| {})));
    assert_eq!(load(4, |_| {}), Passed::MsrLoading(4), "beyond the good entries");
    assert_eq!(load(3, |round| round.words.entry_list[1] = (0xc000_0100, 0)), Passed::MsrLoading(2), "IA32_FS_BASE");
    assert!(passes(load(1, |round| round.words.entry_list[1] = (0xc000_0100, 0))));
    assert_eq!(load(1, |round| round.vmcs.write(VM_ENTRY_MSR_LOAD_ADDR, pages::NOWHERE)), Passed::MsrLoading(1));
}
