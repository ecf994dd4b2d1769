//! The run queue against a model that is too simple to be wrong, and against what it promises.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;

use crate::{Decision, Full, RunQueue, State};

const SLICE: u64 = 100;
const MOST: usize = 5;

/// What can happen to a queue. `u16`s are vCPU ids, of which some are not there.
#[derive(Clone, Debug)]
enum Event {
    Add(u16, State),
    Next { after: u64 },
    Halted(u16),
    WaitsForSipi(u16),
    Preempted(u16),
    Stopped(u16),
    Wake(u16),
}

fn state() -> impl Strategy<Value = State> {
    prop_oneof![Just(State::Ready), Just(State::Halted), Just(State::WaitsForSipi), Just(State::Stopped)]
}

fn event() -> impl Strategy<Value = Event> {
    let id = || 0..7_u16;
    prop_oneof![
        3 => (id(), state()).prop_map(|(vcpu, state)| Event::Add(vcpu, state)),
        8 => (0..3 * SLICE / 2).prop_map(|after| Event::Next { after }),
        4 => id().prop_map(Event::Halted),
        2 => id().prop_map(Event::WaitsForSipi),
        2 => id().prop_map(Event::Preempted),
        1 => id().prop_map(Event::Stopped),
        6 => id().prop_map(Event::Wake),
    ]
}

/// A queue as one would write it without a thought for size: the line of the waiting, and a set or map for all else.
#[derive(Default)]
struct Model {
    waiting: VecDeque<u16>,
    states: BTreeMap<u16, State>,
    running: Option<(u16, u64)>,
    woken: BTreeSet<u16>,
}

impl Model {
    fn set(&mut self, vcpu: u16, state: State) {
        self.states.insert(vcpu, state);
        self.waiting.retain(|other| *other != vcpu);
        if state == State::Ready {
            self.waiting.push_back(vcpu);
        }
    }

    fn add(&mut self, vcpu: u16, state: State) -> Result<(), Full> {
        if self.states.contains_key(&vcpu) {
            return Ok(());
        }
        if self.states.len() == MOST {
            return Err(Full);
        }
        self.set(vcpu, state);
        Ok(())
    }

    fn next(&mut self, now: u64) -> Decision {
        if let Some((vcpu, since)) = self.running {
            if self.waiting.is_empty() {
                return Decision::Run { vcpu, until: u64::MAX };
            }
            if now < since + SLICE {
                return Decision::Run { vcpu, until: since + SLICE };
            }
            self.left(vcpu, State::Ready);
        }
        if let Some(vcpu) = self.waiting.pop_front() {
            self.running = Some((vcpu, now));
            let until = if self.waiting.is_empty() { u64::MAX } else { now + SLICE };
            return Decision::Run { vcpu, until };
        }
        if self.states.values().all(|state| *state == State::Stopped) { Decision::AllStopped } else { Decision::Idle }
    }

    fn left(&mut self, vcpu: u16, state: State) {
        if self.running.is_some_and(|(running, _)| running == vcpu) {
            self.running = None;
            let woken = self.woken.remove(&vcpu);
            self.set(vcpu, if woken { State::Ready } else { state });
        }
    }

    fn stopped(&mut self, vcpu: u16) {
        self.left(vcpu, State::Stopped);
        if self.states.contains_key(&vcpu) {
            self.set(vcpu, State::Stopped);
        }
    }

    fn wake(&mut self, vcpu: u16) -> bool {
        if self.running.is_some_and(|(running, _)| running == vcpu) {
            self.woken.insert(vcpu);
            return false;
        }
        let sleeps = matches!(self.states.get(&vcpu), Some(State::Halted | State::WaitsForSipi));
        if sleeps {
            self.set(vcpu, State::Ready);
        }
        sleeps
    }
}

proptest! {
    /// Whatever comes in whatever order, also reports about vCPUs that are not running or not here, the queue decides
    /// and answers as the model does, and keeps each vCPU once.
    #[test]
    fn agrees_with_the_model(events in prop::collection::vec(event(), 0..200)) {
        let mut queue = RunQueue::<MOST>::new(SLICE);
        let mut model = Model::default();
        let mut now = 0;
        for event in events {
            match event {
                Event::Add(vcpu, state) => prop_assert_eq!(queue.add(vcpu, state), model.add(vcpu, state)),
                Event::Next { after } => {
                    now += after;
                    prop_assert_eq!(queue.next(now), model.next(now));
                }
                Event::Halted(vcpu) => {
                    queue.halted(vcpu);
                    model.left(vcpu, State::Halted);
                }
                Event::WaitsForSipi(vcpu) => {
                    queue.waits_for_sipi(vcpu);
                    model.left(vcpu, State::WaitsForSipi);
                }
                Event::Preempted(vcpu) => {
                    queue.preempted(vcpu);
                    model.left(vcpu, State::Ready);
                }
                Event::Stopped(vcpu) => {
                    queue.stopped(vcpu);
                    model.stopped(vcpu);
                }
                Event::Wake(vcpu) => prop_assert_eq!(queue.wake(vcpu), model.wake(vcpu)),
            }
            prop_assert_eq!(queue.running(), model.running.map(|(vcpu, _)| vcpu));
            for vcpu in 0..7 {
                prop_assert_eq!(queue.state(vcpu), model.states.get(&vcpu).copied());
            }
        }
    }

    /// Nobody who is ready ever waits longer than a slice for each of the others, and who was woken gets the processor after
    /// the wake, however it fell: while the vCPU slept, ran, or had executed HLT and not been reported yet.
    #[test]
    fn turns_come_and_wakes_are_not_lost(vcpus in 1..=5_u16, steps in prop::collection::vec(step(), 1..200)) {
        let mut processor = Processor::new(vcpus);
        processor.ask();
        for step in steps {
            match step {
                Step::Pass(ticks) => processor.pass(ticks),
                Step::Halt => processor.halt(),
                Step::Wake(vcpu) => processor.wake(vcpu % vcpus),
            }
            processor.ask();
            for vcpu in 0..vcpus {
                let waited = processor.ready_since.get(&vcpu).map_or(0, |since| processor.now - since);
                prop_assert!(waited <= SLICE * u64::from(vcpus - 1), "vCPU {} has waited {}", vcpu, waited);
                let sleeps = processor.queue.state(vcpu) != Some(State::Ready);
                prop_assert!(!sleeps || !processor.owed.contains(&vcpu), "vCPU {} was woken and sleeps", vcpu);
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Pass(u64),
    Halt,
    Wake(u16),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..2 * SLICE).prop_map(Step::Pass),
        2 => Just(Step::Halt),
        3 => (0..60_u16).prop_map(Step::Wake),
    ]
}

/// A processor that does as the queue says and asks it again whenever something happened.
struct Processor {
    queue: RunQueue<MOST>,
    now: u64,
    /// Who runs, and until when at most.
    running: Option<(u16, u64)>,
    /// Since when those wait who are ready and do not run.
    ready_since: BTreeMap<u16, u64>,
    /// Those who were woken and have not got the processor since.
    owed: BTreeSet<u16>,
}

impl Processor {
    fn new(vcpus: u16) -> Self {
        let mut queue = RunQueue::new(SLICE);
        for vcpu in 0..vcpus {
            queue.add(vcpu, State::Ready).unwrap();
        }
        let ready_since = (0..vcpus).map(|vcpu| (vcpu, 0)).collect();
        Self { queue, now: 0, running: None, ready_since, owed: BTreeSet::new() }
    }

    /// The running vCPU computes for a while, at most to the end of its slice.
    fn pass(&mut self, ticks: u64) {
        let end = self.now + ticks;
        match self.running {
            Some((vcpu, until)) if until <= end => {
                self.now = until;
                self.leave(vcpu, RunQueue::preempted);
            }
            _ => self.now = end,
        }
    }

    fn halt(&mut self) {
        if let Some((vcpu, _)) = self.running {
            self.leave(vcpu, RunQueue::halted);
        }
    }

    fn leave(&mut self, vcpu: u16, report: fn(&mut RunQueue<MOST>, u16)) {
        self.running = None;
        report(&mut self.queue, vcpu);
        if self.queue.state(vcpu) == Some(State::Ready) {
            self.ready_since.insert(vcpu, self.now);
        }
    }

    fn wake(&mut self, vcpu: u16) {
        self.owed.insert(vcpu);
        if self.queue.wake(vcpu) {
            self.ready_since.insert(vcpu, self.now);
        }
    }

    fn ask(&mut self) {
        let before = self.running.map(|(vcpu, _)| vcpu);
        match self.queue.next(self.now) {
            Decision::Run { vcpu, until } => {
                assert!(until > self.now, "a slice of nothing");
                if before != Some(vcpu) {
                    self.ready_since.remove(&vcpu).expect("only who is ready gets the processor");
                    self.owed.remove(&vcpu);
                    if let Some(before) = before {
                        self.ready_since.insert(before, self.now);
                    }
                }
                self.running = Some((vcpu, until));
            }
            Decision::Idle => assert!(self.ready_since.is_empty(), "idle while somebody is ready"),
            Decision::AllStopped => panic!("nobody was stopped"),
        }
    }
}
