//! The run queue against its promises: fair, and no wake is lost.

use proptest::prelude::*;
use sched::{AddError, Decision, RunQueue, State};

const SLICE: u64 = 100;

fn run(vcpu: u16, until: u64) -> Decision {
    Decision::Run { vcpu, until }
}

#[test]
fn takes_turns() {
    let mut queue = RunQueue::<3>::new(SLICE);
    assert_eq!(queue.next(0), Decision::Idle);
    queue.add(7, false).unwrap();
    // Alone it runs without a limit; when another one comes its slice counts from where it began.
    assert_eq!(queue.next(10), run(7, u64::MAX));
    queue.add(300, false).unwrap();
    assert_eq!(queue.next(50), run(7, 110));
    assert_eq!(queue.next(109), run(7, 110));
    assert_eq!(queue.next(110), run(300, 210));
    queue.yield_now();
    assert_eq!(queue.next(120), run(7, 220));
    queue.halt();
    assert_eq!((queue.state(7), queue.next(130)), (Some(State::Halted), run(300, u64::MAX)));
    queue.stop(300);
    assert_eq!(queue.next(140), Decision::Idle);
    assert!(!queue.wake(300) && !queue.start(300) && queue.wake(7));
    assert_eq!(queue.next(150), run(7, u64::MAX));
}

#[test]
fn has_a_fixed_capacity() {
    let mut queue = RunQueue::<2>::new(SLICE);
    assert_eq!(queue.add(1, false), Ok(()));
    assert_eq!(queue.add(1, true), Err(AddError::Present));
    assert_eq!(queue.add(2, true), Ok(()));
    assert_eq!(queue.add(3, true), Err(AddError::Full));
    assert_eq!(queue.state(3), None);
}

/// SDM 3A, "MP Initialization Protocol": nothing but a SIPI ends the wait for it, and it means nothing to a vCPU in HLT.
#[test]
fn only_sipi_starts() {
    let mut queue = RunQueue::<2>::new(SLICE);
    queue.add(0, true).unwrap();
    assert!(!queue.wake(0));
    assert_eq!(queue.next(0), Decision::Idle);
    assert!(queue.start(0));
    assert_eq!(queue.next(0), run(0, u64::MAX));
    queue.halt();
    assert!(!queue.start(0));
    assert_eq!(queue.state(0), Some(State::Halted));
}

/// The vCPU has looked for events, found none and is on its way to HLT or the wait for SIPI when one comes.
#[test]
fn wake_on_the_way_to_halt() {
    let mut queue = RunQueue::<2>::new(SLICE);
    queue.add(0, false).unwrap();
    queue.next(0);
    assert!(!queue.wake(0));
    queue.halt();
    assert_eq!(queue.next(1), run(0, u64::MAX));
    // The mark is used up: this time it halts.
    queue.halt();
    assert_eq!(queue.next(2), Decision::Idle);
    queue.wake(0);
    queue.next(3);
    assert!(!queue.start(0));
    queue.wait_for_sipi();
    assert_eq!(queue.next(4), run(0, u64::MAX));
    queue.wait_for_sipi();
    assert_eq!(queue.next(5), Decision::Idle);
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Wake(u16),
    Start(u16),
    Halt,
    WaitForSipi,
    Yield,
    Stop(u16),
    /// Time passes; the processor asks again no later than it was told to.
    Run(u64),
}

const VCPUS: u16 = 5;

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..VCPUS + 1).prop_map(Step::Wake),
        3 => (0..VCPUS + 1).prop_map(Step::Start),
        3 => Just(Step::Halt),
        1 => Just(Step::WaitForSipi),
        1 => Just(Step::Yield),
        1 => (0..VCPUS * 8).prop_map(Step::Stop),
        6 => (0..2 * SLICE).prop_map(Step::Run),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// After any steps: at most one vCPU runs, and the decision names it; nobody who is ready waits for more than a slice
    /// of each of the others; after a wake a vCPU has been chosen to run before it is halted again; the processor is idle
    /// only if nobody is ready.
    #[test]
    fn promises(steps in prop::collection::vec(step(), 1..120)) {
        let mut queue = RunQueue::<{ VCPUS as usize }>::new(SLICE);
        for vcpu in 0..VCPUS {
            queue.add(vcpu, vcpu > 2).unwrap();
        }
        let mut now = 0;
        let mut ready_since = [0; VCPUS as usize];
        let mut woken = [false; VCPUS as usize];
        for step in steps {
            let limit = match queue.next(now) {
                Decision::Run { vcpu, until } => {
                    prop_assert_eq!(queue.state(vcpu), Some(State::Running));
                    woken[usize::from(vcpu)] = false;
                    ready_since[usize::from(vcpu)] = now;
                    until
                }
                Decision::Idle => u64::MAX,
            };
            match step {
                Step::Wake(vcpu) => {
                    let halted = queue.state(vcpu) == Some(State::Halted);
                    prop_assert_eq!(queue.wake(vcpu), halted);
                    if matches!(queue.state(vcpu), Some(State::Running | State::Ready)) {
                        woken[usize::from(vcpu)] = true;
                    }
                }
                Step::Start(vcpu) => {
                    let waiting = queue.state(vcpu) == Some(State::WaitingForSipi);
                    prop_assert_eq!(queue.start(vcpu), waiting);
                }
                Step::Halt => queue.halt(),
                Step::WaitForSipi => queue.wait_for_sipi(),
                Step::Yield => queue.yield_now(),
                Step::Stop(vcpu) => {
                    queue.stop(vcpu);
                    if vcpu < VCPUS {
                        woken[usize::from(vcpu)] = false;
                        prop_assert_eq!(queue.state(vcpu), Some(State::Stopped));
                    }
                }
                Step::Run(time) => now = limit.min(now + time).max(now),
            }
            let states: Vec<_> = (0..VCPUS).filter_map(|vcpu| queue.state(vcpu)).collect();
            prop_assert!(states.iter().filter(|&&state| state == State::Running).count() <= 1);
            for (vcpu, &state) in states.iter().enumerate() {
                prop_assert!(!woken[vcpu] || matches!(state, State::Running | State::Ready), "lost a wake of {}", vcpu);
                if state != State::Ready {
                    ready_since[vcpu] = now;
                }
                let waited = now - ready_since[vcpu];
                prop_assert!(waited <= SLICE * u64::from(VCPUS - 1), "{} waited {}", vcpu, waited);
            }
        }
        if queue.next(now) == Decision::Idle {
            prop_assert!((0..VCPUS).all(|vcpu| queue.state(vcpu) != Some(State::Ready)));
        }
    }
}
