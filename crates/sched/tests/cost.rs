//! What a decision costs, in instructions of this host as valgrind counts them: all that [`RunQueue::next`] does, by what came before
//! it, with 64 vCPUs.
//!
//! `cargo test --release -p sched --test cost -- --ignored --nocapture`

#![forbid(unsafe_code)]

use std::process::Command;

use sched::{Decision, MAX_WEIGHTS, Member, RunQueue, Set, State};

const SLICE: u64 = 20_000_000;
const VCPUS: u16 = 64;
/// The most instructions of a decision, averaged over a load.
const LIMIT: u64 = 150;
/// Decisions of a counted process.
const DECISIONS: u32 = 20_000;
/// What the counted process says before how many decisions there were for each reason.
const COUNTED: &str = "decisions: ";
/// What the vCPUs of the counted process do, and how many different weights they have.
const LOAD: &str = "SCHED_COST_LOAD";
const WEIGHTS: &str = "SCHED_COST_WEIGHTS";

/// What the vCPUs do. `compute`: every slice is used up. `pinned`: the same, and each may run on one processor only. `halt`: each halts when
/// it likes, and about half of them sleep. `preempt`: most compute; an eighth of them wake, work for a hundredth of a slice and halt
/// again, so that slices are cut short. `sleep`: each computes for up to a slice, and sleeps until its alarm.
const LOADS: [&str; 5] = ["compute", "pinned", "halt", "preempt", "sleep"];

/// What came before a decision; the names of functions, one for each, in which valgrind counts.
const CAUSES: [&str; 3] = ["after_a_slice", "after_a_halt", "after_a_wake"];

// That each counts its calls keeps the compiler from making one function of the three.
#[inline(never)]
fn after_a_slice(queue: &mut RunQueue, now: u64, calls: &mut [u64; 3]) -> Decision {
    calls[0] += 1;
    queue.next(now)
}

#[inline(never)]
fn after_a_halt(queue: &mut RunQueue, now: u64, calls: &mut [u64; 3]) -> Decision {
    calls[1] += 1;
    queue.next(now)
}

#[inline(never)]
fn after_a_wake(queue: &mut RunQueue, now: u64, calls: &mut [u64; 3]) -> Decision {
    calls[2] += 1;
    queue.next(now)
}

/// Pseudo-random numbers, from a linear congruential generator (D. Knuth's MMIX).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// The counted process.
#[test]
#[ignore = "valgrind runs it, by way of the other test"]
fn decide() {
    let (Ok(load), Ok(weights)) = (std::env::var(LOAD), std::env::var(WEIGHTS)) else { return };
    let weights: usize = weights.parse().unwrap();
    let mut queue = RunQueue::new(SLICE);
    for vcpu in 0..VCPUS {
        let weight = [100, 200, 300, 700, 1, 1000, 50, 400][usize::from(vcpu) % weights];
        let allowed = if load == "pinned" { Set(1) } else { Set::ALL };
        queue.add(Member { vcpu, vm: vcpu % 4, weight, allowed }, State::Ready, 0).unwrap();
    }
    let (mut now, mut random, mut asleep) = (0, Random(1), Vec::new());
    let mut counts = [0; CAUSES.len()];
    let mut cause = 0;
    for _ in 0..DECISIONS {
        let (vcpu, until) = match [after_a_slice, after_a_halt, after_a_wake][cause](&mut queue, now, &mut counts) {
            Decision::Run { vcpu, until } => (Some(vcpu), until),
            Decision::Idle { until } => (None, until),
            Decision::AllStopped => panic!("nobody has stopped"),
        };
        let (ran, alarm) = match load.as_str() {
            "halt" => (random.below(2 * SLICE), u64::MAX),
            "preempt" if vcpu.is_some_and(|vcpu| vcpu % 8 == 0) => (SLICE / 100, u64::MAX),
            "preempt" => (random.below(SLICE), u64::MAX),
            "sleep" => (random.below(SLICE), now + 32 * SLICE + random.below(64 * SLICE)),
            _ => (SLICE, u64::MAX),
        };
        now = if vcpu.is_some() { until.min(now + ran) } else { until };
        let (halts, wakes) = match load.as_str() {
            "halt" => (
                asleep.len() < 16 || asleep.len() < 48 && random.below(2) == 0,
                asleep.len() > 16 && random.below(2) == 0,
            ),
            "preempt" => (ran == SLICE / 100, ran != SLICE / 100),
            "sleep" => (now < until, false),
            _ => (false, false),
        };
        cause = 0;
        if let Some(vcpu) = vcpu.filter(|_| halts) {
            queue.halted(vcpu, alarm, now);
            asleep.push(vcpu);
            cause = 1;
        }
        if wakes && !asleep.is_empty() {
            let one = asleep.swap_remove(usize::try_from(random.below(asleep.len() as u64)).unwrap());
            let _ = queue.wake(one, now);
            cause = 2;
        }
    }
    println!("{COUNTED}{counts:?}");
}

/// How many instructions the functions of this name take, and how many decisions there are for each reason.
fn count(load: &str, weights: usize, function: &str) -> (u64, Vec<u64>) {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(format!("--toggle-collect={function}"))
        .arg(std::env::current_exe().expect("this test is a file"))
        .args(["--exact", "decide", "--ignored", "--nocapture", "--test-threads", "1"])
        .env(LOAD, load)
        .env(WEIGHTS, weights.to_string())
        .output()
        .expect("valgrind cannot be started: install it");
    let numbers = |text: &[u8], before: &str| -> Vec<u64> {
        let text = String::from_utf8_lossy(text);
        let (_, after) = text.split_once(before).expect("valgrind and the process say what they counted");
        let line = after.lines().next().unwrap_or_default();
        line.split([' ', ',', '[', ']']).filter_map(|number| number.parse().ok()).collect()
    };
    (numbers(&output.stderr, "Collected : ")[0], numbers(&output.stdout, COUNTED))
}

/// With one weight, with four, and with as many as there may be.
#[test]
#[ignore = "needs valgrind, and the release profile"]
fn a_decision_is_cheap() {
    println!("{:<10}{:>8}{:>14}{:>10}  of these", "load", "weights", "instructions", "decisions");
    let mut most = 0;
    for load in LOADS {
        for weights in [1, 4, MAX_WEIGHTS] {
            let costs = CAUSES.map(|cause| count(load, weights, &format!("cost::{cause}")));
            let counts = &costs[0].1;
            let decisions: u64 = counts.iter().sum();
            // Who wakes is charged elsewhere, and an alarm is a wake.
            let alarms = count(load, weights, "*RunQueue*ring*").0;
            let average = (costs.iter().map(|cost| cost.0).sum::<u64>() - alarms).div_ceil(decisions);
            let kinds = costs.iter().zip(counts).zip(CAUSES).filter(|((_, count), _)| **count > 0);
            let kinds = kinds.map(|(((cost, _), count), cause)| format!("{count} {cause}: {}", cost.div_ceil(*count)));
            let mut of_these: Vec<String> = kinds.collect();
            if alarms > 0 {
                of_these.push(format!("alarms in these, for each decision: {}", alarms.div_ceil(decisions)));
            }
            println!("{load:<10}{weights:>8}{average:>14}{decisions:>10}  {}", of_these.join(", "));
            most = most.max(average);
        }
    }
    assert!(most <= LIMIT, "{most} instructions a decision: at most {LIMIT}");
}
