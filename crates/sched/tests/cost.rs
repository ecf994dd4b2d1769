//! What a decision costs, in instructions of this host as valgrind counts them.
//!
//! `cargo test --release -p sched --test cost -- --ignored --nocapture`

#![forbid(unsafe_code)]

use std::hint::black_box;
use std::process::Command;

use sched::{Decision, Member, RunQueue, Set, State};

const SLICE: u64 = 20_000_000;
/// How many decisions the counted process makes.
const COUNT: &str = "SCHED_COST_COUNT";
/// How many different weights its 64 vCPUs have; 0 makes no decisions.
const WEIGHTS: &str = "SCHED_COST_WEIGHTS";

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// The counted process: 64 vCPUs compute, and every slice is used up.
#[test]
#[ignore = "valgrind runs it, by way of the other test"]
fn decide() {
    let (Some(count), Some(weights)) = (number(COUNT), number(WEIGHTS)) else { return };
    let mut queue = RunQueue::new(SLICE);
    for vcpu in 0..64 {
        let weight = [100, 200, 300, 700][usize::from(vcpu) % weights.clamp(1, 4) as usize];
        queue.add(Member { vcpu, vm: vcpu % 4, weight, allowed: Set::ALL }, State::Ready, 0).unwrap();
    }
    let mut now = 0;
    for _ in 0..count {
        if weights == 0 {
            now = black_box(now) + black_box(SLICE);
        } else if let Decision::Run { until, .. } = black_box(&mut queue).next(black_box(now)) {
            now = until;
        }
    }
    black_box(now);
}

/// All instructions of a process that makes `count` decisions.
fn instructions(count: u64, weights: u64) -> u64 {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe().expect("this test is a file"))
        .args(["--exact", "decide", "--ignored", "--test-threads", "1"])
        .env(COUNT, count.to_string())
        .env(WEIGHTS, weights.to_string())
        .output()
        .expect("valgrind cannot be started: install it");
    let said = String::from_utf8_lossy(&output.stderr);
    let count = said.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok());
    count.expect("valgrind says how many instructions it has collected")
}

/// At the end of a slice with 64 vCPUs: at most 150 instructions when all have one weight, 50 more with four.
#[test]
#[ignore = "needs valgrind, and the release profile"]
fn a_decision_is_cheap() {
    const FEW: u64 = 10_000;
    const MANY: u64 = 110_000;
    let per_step = |weights| {
        let more = instructions(MANY, weights) - instructions(FEW, weights);
        (more + (MANY - FEW) / 2) / (MANY - FEW)
    };
    let loop_alone = per_step(0);
    for (weights, limit) in [(1, 150), (4, 200)] {
        let cost = per_step(weights) - loop_alone;
        println!("{cost} instructions a decision, {weights} weights");
        assert!(cost <= limit, "{cost} instructions a decision, {weights} weights: at most {limit}");
    }
}
