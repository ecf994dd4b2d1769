//! VMCS regions with any bytes, VMLAUNCH, exits and VMRESUME: what L1 may write, and what else it may have in its memory.
//!
//! An entry is made if and only if the whole VMCS keeps every rule, and then vmcs02 keeps those of the machine's processor.
#![no_main]

use std::cell::RefCell;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use nested::{Entry, Outcome, Synthesized};
use testkit::{NestedBench, Ram};
use vmcs::{Access, ExitReason};

#[derive(Arbitrary, Debug)]
struct Input {
    shadowing: bool,
    /// Bytes over those of a valid region.
    region: Vec<(u16, Vec<u8>)>,
    /// Words of L1's memory, 8 bytes each, in the first MiB.
    memory: Vec<(u16, u64)>,
    launched: bool,
    steps: Vec<Step>,
}

#[derive(Arbitrary, Debug)]
enum Step {
    Write(u16, u64),
    Memory(u16, u64),
    Enter { launch: bool },
    Exit { reason: u16, guest: Vec<(u8, u64)>, activity: u8 },
    Synthesized { reason: u16, qualification: u64, nmi: bool },
}

thread_local! {
    static BENCHES: RefCell<[NestedBench; 2]> = RefCell::new([NestedBench::new(false), NestedBench::new(true)]);
}

fn poke(ram: &Ram, (word, value): (u16, u64)) {
    let at = u64::from(word) * 8;
    // Not the regions: what L1 writes there while it is current is lost.
    if Ram::has(at) && !(0x5_0000..0x5_4000).contains(&at) {
        ram.set(at, value);
    }
}

/// Enters; false if L1 is not alive any more.
fn enter(bench: &mut NestedBench, launch: bool) -> bool {
    let expected = bench.broken_rule().map(|rule| rule.name());
    let count = bench.refused.len();
    match bench.enter(launch) {
        Entry::Entered { .. } => {
            assert_eq!(expected, None);
            bench.assert_vmcs02_is_valid();
        }
        // A failure by a rule is by the first one that is broken; others are the launch state and the list of MSRs.
        Entry::Failed(_) | Entry::Exited if bench.refused.len() > count => {
            let refused = bench.refused.last().copied().flatten();
            assert_eq!(refused.map(|rule| rule.name()), expected);
            assert!(bench.explained.starts_with("entry of L1 failed"));
        }
        Entry::Failed(_) => {}
        Entry::Exited => unreachable!("an exit without a reason"),
        Entry::Aborted(_) => return false,
    }
    true
}

fuzz_target!(|input: Input| {
    BENCHES.with_borrow_mut(|benches| {
        let bench = &mut benches[usize::from(input.shadowing)];
        bench.restart();
        bench.start();
        bench.write_valid();
        assert_eq!(bench.vmclear(NestedBench::VMCS), Outcome::Succeed);
        for (at, bytes) in &input.region {
            // The revision stays, or there is nothing to see.
            let at = 4 + u64::from(*at) % 4092;
            for (at, &byte) in (NestedBench::VMCS + at..NestedBench::VMCS + 4096).zip(bytes) {
                let shift = 8 * (at % 8);
                bench.ram.set(at & !7, bench.ram.get(at & !7) & !(0xff << shift) | u64::from(byte) << shift);
            }
        }
        for &word in &input.memory {
            poke(&bench.ram, word);
        }
        assert_eq!(bench.vmptrld(NestedBench::VMCS), Outcome::Succeed);
        if !enter(bench, !input.launched) {
            return;
        }
        for step in input.steps.iter().take(12) {
            let in_l2 = bench.nested.in_l2();
            match *step {
                Step::Write(encoding, value) if !in_l2 => {
                    let _ = bench.vmwrite(encoding.into(), value);
                }
                Step::Memory(word, value) => poke(&bench.ram, (word, value)),
                Step::Enter { launch } if !in_l2 => {
                    if !enter(bench, launch) {
                        return;
                    }
                }
                Step::Exit { reason, ref guest, activity } if in_l2 => {
                    bench.run_l2(ExitReason(reason), |vmcs02| {
                        for &(field, value) in guest {
                            let fields =
                                vmcs::fields::FIELDS.iter().filter(|row| row.group == vmcs::field::Group::Guest);
                            let fields: Vec<_> =
                                fields.filter(|row| vmcs02.values().any(|(it, _)| it == row.encoding)).collect();
                            vmcs02.write_raw(fields[usize::from(field) % fields.len()].encoding, value);
                        }
                    });
                    let activity = [0, 1, 3][usize::from(activity) % 3];
                    if bench.nested.reflect(&mut bench.cpu, &bench.ram, &mut bench.msrs, activity).is_err() {
                        return;
                    }
                    // What the processor would not have saved makes the rest of no interest.
                    if !guest.is_empty() {
                        bench.vmcs12();
                        return;
                    }
                }
                Step::Synthesized { reason, qualification, nmi } if in_l2 => {
                    bench.run_l2(ExitReason::EXTERNAL_INTERRUPT, |_| ());
                    let interruption = if nmi { vmcs::EventInfo::nmi() } else { vmcs::EventInfo::NONE };
                    let exit = Synthesized { reason, qualification, interruption, ..Synthesized::default() };
                    if bench.synthesize(exit).is_err() {
                        return;
                    }
                }
                _ => {}
            }
        }
    });
});
