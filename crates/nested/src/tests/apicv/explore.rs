//! All reachable states, and long random walks.

use std::collections::{HashSet, VecDeque};

use proptest::prelude::*;
use vlapic::Hardware;

use super::event::{EVENTS, Event};
use super::oracle::Mode8;
use super::state::VCPUS;
use super::system::Bench;

pub(super) const ALL: Hardware =
    Hardware { tpr_shadow: true, accesses: true, delivery: true, posting: true, x2apic: true };
const NOT_POSTED: Hardware = Hardware { posting: false, ..ALL };
pub(super) const TPR_ONLY: Hardware = Hardware { tpr_shadow: true, accesses: true, ..Hardware::NONE };
const MACHINES: [Hardware; 4] = [ALL, NOT_POSTED, TPR_ONLY, Hardware::NONE];

/// The first vCPU does everything but change its id and switch AutoEOI: to the registers these mean what the debugger's block
/// and its moved page mean.
const LEFT_OUT: [Event; 4] = [Event::HyperV(true), Event::HyperV(false), Event::Id(true), Event::Id(false)];

/// What the second vCPU does in the exploration: whatever reaches the first, running L1 or L2. What it leaves out (interrupts,
/// priorities, migration) concerns its own registers only, and there the first goes through all of it.
const OF_SECOND: [Event; 5] =
    [Event::Mode(Mode8::Disabled), Event::Mode(Mode8::Xapic), Event::Mode(Mode8::X2apic), Event::Enter, Event::Exit];

/// All states of two vCPUs on a processor that has everything.
#[test]
fn every_reachable_state_keeps_the_invariants() {
    let began = std::time::Instant::now();
    let bench = Bench::new(ALL, None);
    let start = bench.start();
    let mut seen = HashSet::from([start.fingerprint()]);
    let mut frontier = VecDeque::from([start]);
    let mut transitions = 0u64;
    while let Some(system) = frontier.pop_front() {
        let of_first = EVENTS.into_iter().filter(|event| !LEFT_OUT.contains(event));
        for (index, event) in of_first.map(|event| (0, event)).chain(OF_SECOND.map(|event| (1, event))) {
            let Some(next) = bench.after_unchecked(&system, index, event) else { continue };
            transitions += 1;
            if seen.insert(next.fingerprint()) {
                // The invariants are about states, and the fingerprint has all that they look at.
                bench.check(&next);
                frontier.push_back(next);
            }
        }
        assert!(seen.len() < 12_000_000, "the states should be fewer");
    }
    println!("{} distinct states, {transitions} transitions, {} s", seen.len(), began.elapsed().as_secs());
    assert!(seen.len() >= 1_000_000, "the exploration covers less than it should: {} states", seen.len());
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
