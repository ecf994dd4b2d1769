//! What each decision costs, in instructions of this host as valgrind counts them: all that [`RunQueue::next`] does, by what came before
//! it, with 64 vCPUs.
//!
//! `cargo test --release -p sched --test cost -- --ignored --nocapture`, or `cargo xtask test --filter decision-cost`

#![forbid(unsafe_code)]

use std::process::Command;

use sched::{Decision, Member, RunQueue, Set, State};

const SLICE: u64 = 20_000_000;
const VCPUS: u16 = 64;
/// The most instructions of any decision.
const LIMIT: u64 = 150;
/// Decisions of a counted process.
const DECISIONS: u32 = 1_000;
/// What the vCPUs of the counted process do, and how many different weights they have.
const LOAD: &str = "SCHED_COST_LOAD";
const WEIGHTS: &str = "SCHED_COST_WEIGHTS";

/// What the vCPUs do. `compute`: every slice is used up. `pinned`: the same, and each may run on one processor only. `halt`: each halts when
/// it likes, and about half of them sleep. `preempt`: most compute; an eighth of them wake, work for a hundredth of a slice and halt
/// again, so that slices are cut short. `sleep`: each computes for up to a slice, and sleeps until its alarm. `spin`: each computes or spins.
/// `long`: as `compute`, with the longest slices. `few`: all but one to three sleep, and are woken and halt at any moment. [`DEBT`], [`MIX`].
const LOADS: [&str; 10] = ["compute", "pinned", "halt", "preempt", "sleep", "spin", "long", "few", DEBT, MIX];
/// One who is in debt comes back while nobody waits, and the one that runs has just been woken: its short request ends before the
/// other's turn.
const DEBT: &str = "debt";
/// All of this at random, on two processors between which vCPUs move.
const MIX: &str = "mix";
/// As `halt`, but decisions come up to three slices late, for which there is no limit.
const LATE: &str = "late";

/// What came before a decision.
const CAUSES: [&str; 4] = ["after a slice", "after a halt", "after a wake", "after a spin"];
/// What the counted process says before it lists these, a digit for each decision.
const CAUSED: &str = "causes: ";

/// The function whose calls valgrind counts.
#[inline(never)]
fn decision(queue: &mut RunQueue, now: u64) -> Decision {
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
    let all = &[100, 200, 300, 700, 1, 1000, 50, 400][..weights];
    let slice = if load == "long" { 1 << 30 } else { SLICE };
    let mut queue = RunQueue::new(slice, *all.iter().max().unwrap(), 1);
    for vcpu in 0..VCPUS {
        let weight = all[usize::from(vcpu) % weights];
        let allowed = if load == "pinned" { Set(1) } else { Set::ALL };
        queue.add(Member { vcpu, vm: vcpu % 4, weight, allowed }, State::Ready, 0).unwrap();
    }
    if load == DEBT {
        return debt();
    }
    if load == MIX {
        return mix(&mut queue, *all.iter().max().unwrap());
    }
    let (mut now, mut random, mut asleep) = (0, Random(1), Vec::new());
    let (mut cause, mut causes) = (0, String::new());
    for _ in 0..DECISIONS {
        causes += &cause.to_string();
        let (vcpu, until) = match decision(&mut queue, now) {
            Decision::Run { vcpu, until } => (Some(vcpu), until),
            Decision::Idle { until } => (None, until),
            Decision::AllStopped => panic!("nobody has stopped"),
        };
        let (ran, alarm) = match load.as_str() {
            "halt" | LATE => (random.below(2 * SLICE), u64::MAX),
            "preempt" if vcpu.is_some_and(|vcpu| vcpu % 8 == 0) => (SLICE / 100, u64::MAX),
            "preempt" | "spin" | "few" => (random.below(SLICE), u64::MAX),
            "sleep" => (random.below(SLICE), now + 32 * SLICE + random.below(64 * SLICE)),
            _ => (slice, u64::MAX),
        };
        now = if vcpu.is_some() { until.min(now + ran) } else { until };
        if load == LATE {
            now += random.below(3 * SLICE);
        }
        let (halts, wakes) = match load.as_str() {
            "halt" | LATE => (
                asleep.len() < 16 || asleep.len() < 48 && random.below(2) == 0,
                asleep.len() > 16 && random.below(2) == 0,
            ),
            "preempt" => (ran == SLICE / 100, ran != SLICE / 100),
            "sleep" => (now < until, false),
            "few" => {
                let awake = usize::from(VCPUS) - asleep.len();
                (awake > 3 || awake > 1 && random.below(3) == 0, awake <= 3 && random.below(3) == 0)
            }
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
        if let Some(vcpu) = vcpu.filter(|_| load == "spin" && now < until) {
            queue.spins(vcpu, now);
            cause = 3;
        }
    }
    println!("{CAUSED}{causes}");
}

/// The counted process of that load: the same five decisions again and again.
fn debt() {
    let mut causes = String::new();
    while causes.len() < DECISIONS as usize {
        let mut queue = RunQueue::new(SLICE, 1, 1);
        for vcpu in 0..VCPUS {
            let state = if vcpu < 2 { State::Ready } else { State::Halted };
            let added = queue.add(Member { vcpu, vm: vcpu % 4, weight: 1, allowed: Set::ALL }, state, 0);
            assert_eq!(added, Ok(()));
        }
        let _ = decision(&mut queue, 0);
        queue.halted(0, u64::MAX, SLICE / 2);
        let _ = decision(&mut queue, SLICE / 2);
        let now = SLICE / 2 + 1000;
        let _ = queue.wake(2, now);
        queue.halted(1, u64::MAX, now);
        let short = decision(&mut queue, now);
        let _ = queue.wake(0, now + 100);
        let _ = decision(&mut queue, now + 100);
        assert_eq!(queue.running(), Some(2), "the other one is in debt");
        if let Decision::Run { until, .. } = short {
            let _ = decision(&mut queue, until);
        }
        causes += "01120";
    }
    println!("{CAUSED}{causes}");
}

/// The counted process, when anything may happen on two processors, of which `first` has all vCPUs.
fn mix(first: &mut RunQueue, heaviest: u32) {
    let mut second = RunQueue::new(SLICE, heaviest, 1);
    let (mut now, mut random, mut causes) = (0, Random(1), String::new());
    let mut until = [0; 2];
    let (mut here, mut cause) = (0, 0);
    for _ in 0..DECISIONS {
        let (queue, other) = if here == 0 { (&mut *first, &mut second) } else { (&mut second, &mut *first) };
        causes += &cause.to_string();
        until[here] = match decision(queue, now) {
            Decision::Run { until, .. } | Decision::Idle { until } => until,
            Decision::AllStopped => u64::MAX,
        };
        let wanted = until[0].min(until[1]);
        now = wanted.min(now + (random.below(2 * SLICE) >> random.below(10)));
        // Whose decision is due has it in time.
        if now == wanted {
            here = usize::from(until[0] != now);
            cause = 0;
            continue;
        }
        let vcpu = u16::try_from(random.below(VCPUS.into())).unwrap_or(0);
        let running = queue.running();
        cause = match (random.below(8), running) {
            (0, Some(running)) => {
                queue.halted(running, u64::MAX, now);
                1
            }
            (1, Some(running)) => {
                queue.halted(running, now + random.below(4 * SLICE), now);
                1
            }
            (2, Some(running)) => {
                queue.spins(running, now);
                3
            }
            (3, Some(running)) => {
                queue.preempted(running, now);
                0
            }
            (4, _) => {
                if let Some(migrant) = queue.take(0, now) {
                    other.receive(migrant, now);
                    until[1 - here] = now;
                }
                0
            }
            (5, _) => {
                (0..VCPUS).for_each(|vcpu| _ = queue.wake(vcpu, now));
                2
            }
            _ => {
                let _ = queue.wake(vcpu, now);
                2
            }
        };
    }
    println!("{CAUSED}{causes}");
}

/// How many instructions each decision takes, by what came before it. Who wakes is charged elsewhere, and an alarm is a wake.
fn count(load: &str, weights: usize) -> [Vec<u64>; CAUSES.len()] {
    let folder = std::env::temp_dir().join(format!("sched-cost-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("there is room for what valgrind writes");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--toggle-collect=cost::decision", "--toggle-collect=*RunQueue*ring*"])
        .args(["--dump-after=cost::decision", &format!("--callgrind-out-file={}/call", folder.display())])
        .arg(std::env::current_exe().expect("this test is a file"))
        .args(["--exact", "decide", "--ignored", "--nocapture", "--test-threads", "1"])
        .envs([(LOAD, load), (WEIGHTS, &weights.to_string())])
        .output()
        .expect("valgrind cannot be started: install it");
    let said = String::from_utf8_lossy(&output.stdout);
    let (_, causes) = said.split_once(CAUSED).expect("the process says what came before each decision");
    let mut counts = [const { Vec::new() }; CAUSES.len()];
    for (cause, number) in causes.bytes().take(DECISIONS as usize).zip(1..) {
        let file = std::fs::read_to_string(folder.join(format!("call.{number}"))).expect("valgrind writes each call");
        let (_, summary) = file.split_once("\nsummary: ").expect("it says how many instructions");
        let count = summary.lines().next().and_then(|count| count.parse().ok());
        counts[usize::from(cause - b'0')].push(count.expect("it is a number"));
    }
    std::fs::remove_dir_all(folder).expect("what valgrind wrote can be removed");
    counts
}

/// With one weight, with four, and with eight.
#[test]
#[ignore = "needs valgrind, and the release profile"]
fn a_decision_is_cheap() {
    println!("{:<10}{:>8}  {:<15}{:>10}{:>9}{:>6}", "load", "weights", "decisions", "number", "average", "most");
    let mut most = 0;
    for load in LOADS.into_iter().chain([LATE]) {
        for weights in [1, 4, 8] {
            for (counts, cause) in count(load, weights).iter().zip(CAUSES) {
                let Some(&greatest) = counts.iter().max() else { continue };
                let (number, all) = (counts.len() as u64, counts.iter().sum::<u64>());
                println!("{load:<10}{weights:>8}  {cause:<15}{number:>10}{:>9}{greatest:>6}", all.div_ceil(number));
                most = if load == LATE { most } else { most.max(greatest) };
            }
        }
    }
    println!("at most {most} instructions a decision");
    assert!(most <= LIMIT, "{most} instructions a decision: {LIMIT} are allowed");
}
