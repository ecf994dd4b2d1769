//! All reachable states, and long random walks.

use std::collections::{HashSet, VecDeque};

use proptest::prelude::*;
use vlapic::Hardware;

use super::system::{Bench, EVENTS, VCPUS};

pub(super) const ALL: Hardware =
    Hardware { tpr_shadow: true, accesses: true, delivery: true, posting: true, x2apic: true };
const NOT_POSTED: Hardware = Hardware { posting: false, ..ALL };
pub(super) const TPR_ONLY: Hardware = Hardware { tpr_shadow: true, accesses: true, ..Hardware::NONE };
const MACHINES: [Hardware; 4] = [ALL, NOT_POSTED, TPR_ONLY, Hardware::NONE];

/// Visits every state that two vCPUs can reach, up to `most`; returns how many there are.
fn explore(bench: &Bench, most: usize) -> usize {
    let start = bench.start();
    let mut seen = HashSet::from([start.fingerprint()]);
    let mut frontier = VecDeque::from([start]);
    while let Some(system) = frontier.pop_front() {
        for index in 0..VCPUS {
            for event in EVENTS {
                let Some(next) = bench.after(&system, index, event) else { continue };
                if seen.insert(next.fingerprint()) {
                    frontier.push_back(next);
                }
            }
        }
        if seen.len() >= most {
            break;
        }
    }
    seen.len()
}

/// All states of two vCPUs on a processor that has everything.
#[test]
fn every_reachable_state_keeps_the_invariants() {
    let start = std::time::Instant::now();
    let states = explore(&Bench::new(ALL, None), 1_200_000);
    println!("{states} distinct states in {} s", start.elapsed().as_secs());
    assert!(states >= 1_000_000, "the exploration covers less than it should: {states} states");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100_000))]
    /// Long walks, on every kind of machine.
    #[test]
    fn random_walks_keep_the_invariants(
        machine in 0..MACHINES.len(),
        steps in prop::collection::vec((0..VCPUS, 0..EVENTS.len()), 1..40),
    ) {
        thread_local! {
            static BENCHES: [Bench; 4] = MACHINES.map(|hardware| Bench::new(hardware, None));
        }
        BENCHES.with(|benches| {
            let mut system = benches[machine].start();
            for (index, event) in steps {
                if let Some(next) = benches[machine].after(&system, index, EVENTS[event]) {
                    system = next;
                }
            }
        });
    }
}
