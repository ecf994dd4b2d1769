//! Anything may happen, in any order, to two queues between which vCPUs move: their books stay right.

use super::random::Random;
use crate::{Decision, Member, RunQueue, Set, State};

/// What a storm is made of.
struct Weather {
    slice: u64,
    /// By how many slices decisions may be late.
    late: u64,
    /// When it begins, in ticks.
    begin: u64,
}

fn storm(weights: &[u32], weather: &Weather, steps: u32, seed: u64) {
    let &Weather { slice, late, begin } = weather;
    let heaviest = *weights.iter().max().unwrap();
    let mut queues = [RunQueue::new(slice, heaviest, 1), RunQueue::new(slice, heaviest, 1)];
    let mut random = Random(seed);
    let mut now = begin;
    // How long each was ready.
    let mut ready = vec![0; weights.len()];
    for (&weight, vcpu) in weights.iter().zip(0..) {
        let state = [State::Ready, State::Ready, State::Halted, State::WaitsForSipi][usize::from(vcpu % 4)];
        let member = Member { vcpu, vm: vcpu % 3, weight, allowed: Set::ALL };
        queues[usize::from(vcpu % 2)].add(member, state, now).unwrap();
    }
    let mut until = [begin; 2];
    for step in 0..steps {
        let passed = random.below(3 * slice / 2) >> random.below(8);
        let is_late = random.below(64) == 0;
        let latest = until[0].min(until[1]).saturating_add(if is_late { random.below(slice + 1) * late } else { 0 });
        let end = if is_late { latest } else { latest.max(now).min(now + passed) };
        for (ready, vcpu) in ready.iter_mut().zip(0..) {
            let is_ready = queues.iter().any(|queue| queue.state(vcpu) == Some(State::Ready));
            *ready += if is_ready && end != u64::MAX { end - now } else { 0 };
        }
        now = if end == u64::MAX { now } else { end };
        let here = usize::from(random.below(2) == 1);
        let [first, second] = &mut queues;
        let (queue, other) = if here == 0 { (first, second) } else { (second, first) };
        let vcpu = u16::try_from(random.below(weights.len() as u64)).unwrap();
        match (random.below(16), queue.running()) {
            (0, Some(running)) => queue.halted(running, u64::MAX, now),
            // Into the past, too.
            (1, Some(running)) => queue.halted(running, now.saturating_sub(slice) + random.below(4 * slice), now),
            (2, Some(running)) => queue.waits_for_sipi(running, now),
            (3..6, Some(running)) => _ = queue.spins(running, now),
            (6, Some(running)) => queue.preempted(running, now),
            (7..9, _) => {
                if let Some(migrant) = queue.take(0, now) {
                    other.receive(migrant, now);
                    until[1 - here] = now;
                }
            }
            (9, _) if step % 100 == 0 => queue.stopped(vcpu, now),
            (10..14, _) => _ = queue.wake(vcpu, now),
            _ => {}
        }
        // Both processors look, so that a wake is known, and all is charged.
        for (queue, until) in queues.iter_mut().zip(&mut until) {
            queue.check();
            let decision = queue.next(now);
            queue.check();
            let states: Vec<_> = (0..64).filter_map(|vcpu| queue.state(vcpu)).collect();
            *until = match decision {
                Decision::Run { vcpu, until } => {
                    assert_eq!((queue.running(), queue.state(vcpu)), (Some(vcpu), Some(State::Ready)));
                    assert!(until > now, "a slice of nothing");
                    until
                }
                Decision::Idle { until } => {
                    assert!(!states.contains(&State::Ready), "idle while somebody is ready");
                    until
                }
                Decision::AllStopped => {
                    assert!(states.iter().all(|&state| state == State::Stopped));
                    u64::MAX
                }
            };
        }
        for (&ready, vcpu) in ready.iter().zip(0..) {
            let homes: Vec<_> = queues.iter().filter(|queue| queue.state(vcpu).is_some()).collect();
            assert_eq!(homes.len(), 1, "vCPU {vcpu} is in two places or none");
            let counters = homes[0].counters(vcpu);
            assert_eq!(counters.ran + counters.waited, ready, "time of {vcpu} was lost");
        }
    }
}

#[test]
fn books_stay_right() {
    let mixed: Vec<u32> = (0..64).map(|vcpu| [1, 1000, 7, 100, 333, 2][vcpu % 6]).collect();
    let weathers = [
        Weather { slice: 20_000_000, late: 0, begin: 0 },
        // A slice has as many granules as it may have, so that one who is late is soon at the end of the slots.
        Weather { slice: 30 << 20, late: 1, begin: u64::MAX / 2 },
        Weather { slice: 20_000_000, late: 20, begin: u64::MAX / 2 },
        Weather { slice: 1 << 30, late: 0, begin: 1 << 40 },
        Weather { slice: 1, late: 1000, begin: 5 },
    ];
    for weather in &weathers {
        for weights in [&mixed[..], &[4; 64], &[1, 2, 3, 1000], &[1; 6]] {
            (1..9).for_each(|seed| storm(weights, weather, 5_000, seed));
        }
    }
}
