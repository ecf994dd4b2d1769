//! Two processors, three vCPUs, one that wakes them: every interleaving of every step that others can see, until there is no new
//! state. Time stands still, so that there is an end; slices end whenever they like.
//!
//! The queues and signals are the real ones; what is modelled is how the image uses them, one access to what is shared at a time.

use std::collections::{HashMap, VecDeque};

use crate::member::small;
use crate::run_queue::SHORT;
use crate::signals::Signals;
use crate::{Decision, Member, Migrant, RunQueue, Set, State, Wake};

const SLICE: u64 = 800;
const VCPUS: u16 = 3;
/// Wakes in all.
const WAKES: u8 = 2;

/// vCPU 0 must stay on processor 0; the others may be anywhere.
fn member(vcpu: u16) -> Member {
    Member { vcpu, vm: 0, weight: 1, allowed: if vcpu == 0 { Set(0b01) } else { Set(0b11) } }
}

/// A queue, as far as time standing still leaves differences.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
struct Queue {
    /// Who runs, whether it was woken, whether its request is a short one.
    running: Option<(u16, bool, bool)>,
    /// Who waits with a whole request, and with a short one.
    waiting: Vec<u16>,
    short: Vec<u16>,
    /// One who had a short request has gone since the running one was chosen.
    looks_again: bool,
    halted: Vec<u16>,
}

impl Queue {
    fn real(&self) -> RunQueue {
        let mut queue = RunQueue::new(SLICE, 1, 1);
        let add = |queue: &mut RunQueue, vcpu, short| {
            queue.add(member(vcpu), if short { State::Halted } else { State::Ready }, 0).unwrap();
            if short {
                queue.wake(vcpu, 0);
            }
        };
        if let Some((vcpu, woken, short)) = self.running {
            add(&mut queue, vcpu, short);
            queue.next(0);
            if woken {
                queue.wake(vcpu, 0);
            }
        }
        self.waiting.iter().for_each(|&vcpu| add(&mut queue, vcpu, false));
        self.short.iter().for_each(|&vcpu| add(&mut queue, vcpu, true));
        if self.looks_again {
            add(&mut queue, VCPUS, true);
            queue.stopped(VCPUS, 0);
        }
        for &vcpu in &self.halted {
            queue.add(member(vcpu), State::Halted, 0).unwrap();
        }
        queue
    }

    fn of(queue: &RunQueue) -> Self {
        let running = queue.running.map(|running| (running.vcpu, running.woken, running.end < SLICE / 2));
        let here = |state| (0..VCPUS).filter(move |&vcpu| queue.state(vcpu) == Some(state)).collect();
        let all = queue.calendar.everybody().iter();
        let (short, waiting): (Vec<_>, _) = all.partition(|&vcpu| queue.is_noted(vcpu, SHORT));
        let is_before = queue.running.is_some_and(|running| queue.calendar.has_before(running.turn));
        Self { running, waiting, looks_again: is_before && short.is_empty(), short, halted: here(State::Halted) }
    }

    fn is_waiting(&self) -> bool {
        !self.waiting.is_empty() || !self.short.is_empty()
    }

    fn has(&self, vcpu: u16) -> bool {
        let runs = self.running.is_some_and(|running| running.0 == vcpu);
        runs || [&self.waiting, &self.short, &self.halted].iter().any(|all| all.contains(&vcpu))
    }
}

/// Where a processor is in its loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum At {
    /// Its kick is taken, its bits are not.
    Look,
    /// It has these bits to see to.
    Wake(u64),
    /// One of them, and the rest: the vCPU is not here, its home is to be read.
    Forward(u16, u64),
    /// The same; the home was read.
    ForwardTo(u16, u16, u64),
    /// Somebody waits here: is another processor idle?
    Offer,
    /// It is: it shall have this vCPU, which is in no queue. Those who wake do not know yet.
    Leaves(u16),
    /// They do.
    Give(u16),
    /// The same; the vCPU is in the queue there.
    Given,
    /// A vCPU has the processor, and nobody knows yet.
    Enter,
    Run,
    /// The vCPU has executed HLT, and nobody knows it yet.
    Halts,
    /// Those who wake know it, the queue does not.
    Rests,
    /// The queue knows it too. Did mail come before all did?
    Recheck(u16),
    /// Nobody can run.
    Announce,
    Search,
    /// It looks into the other processor's queue for one that it could run.
    Find,
    /// It tells that processor of this one.
    Ask(u16),
    Sleep,
}

/// Where one who wakes is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Waker {
    Rests,
    /// It has left mail.
    Posted(u16),
    /// The vCPU has no processor.
    FoundNoProcessor(u16),
    KnowsHome(u16, u16),
    Kicks(u16),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    queues: [Queue; 2],
    homes: [u8; VCPUS as usize],
    woken: [u64; 2],
    idle: u64,
    waiting: u64,
    /// Why a vCPU was woken, until it looks.
    mail: [bool; VCPUS as usize],
    /// The processor that each vCPU has, as others see it; or had last, when it only waits for its next turn.
    places: [Option<u16>; VCPUS as usize],
    kicked: [bool; 2],
    at: [At; 2],
    waker: Waker,
    /// Wakes that are still to come.
    wakes_left: u8,
}

impl World {
    fn start() -> Self {
        let mut queues = [Queue::default(), Queue::default()];
        queues[0].waiting = vec![0, 1];
        queues[1].waiting = vec![2];
        Self {
            queues,
            homes: [0, 0, 1],
            woken: [0; 2],
            idle: 0,
            waiting: 0,
            mail: [false; VCPUS as usize],
            places: [None; VCPUS as usize],
            kicked: [false; 2],
            at: [At::Look; 2],
            waker: Waker::Rests,
            wakes_left: WAKES,
        }
    }

    /// Does `act` with the real signals.
    fn signals<T>(&mut self, act: impl FnOnce(&Signals) -> T) -> T {
        let signals = Signals::new();
        for (&home, vcpu) in self.homes.iter().zip(0..) {
            signals.moves(vcpu, home.into());
        }
        for processor in 0..2 {
            for vcpu in Set(self.woken[usize::from(processor)]).iter() {
                let _ = signals.wake(vcpu, processor);
            }
            signals.set_idle(processor, Set(self.idle).has(processor));
            signals.set_waiting(processor, Set(self.waiting).has(processor));
        }
        let result = act(&signals);
        for (home, vcpu) in self.homes.iter_mut().zip(0..) {
            *home = small(signals.home(vcpu).into());
        }
        (self.idle, self.waiting) = (signals.idle().0, signals.waiting().0);
        self.woken = [signals.take_woken(0).0, signals.take_woken(1).0];
        result
    }

    /// Does `act` with the real queue of `processor`, under its lock.
    fn queue<T>(&mut self, processor: u16, act: impl FnOnce(&mut RunQueue) -> T) -> T {
        let mut queue = self.queues[usize::from(processor)].real();
        let result = act(&mut queue);
        self.queues[usize::from(processor)] = Queue::of(&queue);
        result
    }

    fn publish_waiting(&mut self, processor: u16) {
        let waiting = self.queues[usize::from(processor)].is_waiting();
        self.signals(|signals| signals.set_waiting(processor, waiting));
    }

    /// What can happen next on `processor`.
    fn processor_steps(&self, processor: u16) -> Vec<Self> {
        let (own, other) = (usize::from(processor), 1 - processor);
        let mut world = self.clone();
        let next = match self.at[own] {
            At::Look => At::Wake(world.signals(|signals| signals.take_woken(processor)).0),
            At::Wake(0) => {
                let decision = world.queue(processor, |queue| queue.next(0));
                world.publish_waiting(processor);
                match decision {
                    Decision::Run { .. } if world.queues[own].is_waiting() => At::Offer,
                    Decision::Run { .. } => At::Enter,
                    Decision::Idle { .. } | Decision::AllStopped => At::Announce,
                }
            }
            At::Wake(bits) => {
                let vcpu = Set(bits).iter().next().unwrap();
                let rest = bits & (bits - 1);
                match world.queue(processor, |queue| queue.wake(vcpu, 0)) {
                    Wake::Elsewhere => At::Forward(vcpu, rest),
                    Wake::Ready | Wake::Noted => At::Wake(rest),
                }
            }
            At::Forward(vcpu, rest) => At::ForwardTo(vcpu, world.signals(|signals| signals.home(vcpu)), rest),
            At::ForwardTo(vcpu, home, rest) => {
                if world.signals(|signals| signals.wake(vcpu, home)) {
                    world.kicked[usize::from(home)] = true;
                }
                At::Wake(rest)
            }
            At::Offer if !world.signals(|signals| signals.idle()).has(other) => At::Enter,
            At::Offer => {
                let taken = world.queue(processor, |queue| queue.take(other, 0));
                world.publish_waiting(processor);
                taken.map_or(At::Enter, |migrant| At::Leaves(migrant.member.vcpu))
            }
            At::Leaves(vcpu) => {
                world.places[usize::from(vcpu)] = None;
                At::Give(vcpu)
            }
            At::Give(vcpu) => {
                let migrant = Migrant { member: member(vcpu), counters: crate::Counters::default(), woken_at: None };
                world.queue(other, |queue| queue.receive(migrant, 0));
                world.signals(|signals| signals.moves(vcpu, other));
                At::Given
            }
            At::Given => {
                world.kicked[usize::from(other)] = true;
                At::Enter
            }
            At::Enter => {
                let vcpu = world.queues[own].running.unwrap().0;
                world.places[usize::from(vcpu)] = Some(processor);
                At::Run
            }
            At::Run => return self.run_steps(processor),
            At::Halts => {
                world.places[usize::from(self.queues[own].running.unwrap().0)] = None;
                At::Rests
            }
            At::Rests => {
                let vcpu = self.queues[own].running.unwrap().0;
                world.queue(processor, |queue| queue.halted(vcpu, u64::MAX, 0));
                At::Recheck(vcpu)
            }
            At::Recheck(vcpu) => {
                if self.mail[usize::from(vcpu)] {
                    world.queue(processor, |queue| queue.wake(vcpu, 0));
                }
                world.kicked[own] = false;
                At::Look
            }
            At::Announce => {
                world.signals(|signals| signals.set_idle(processor, true));
                At::Search
            }
            At::Search => {
                let others = world.signals(|signals| signals.waiting());
                if others.has(other) { At::Find } else { At::Sleep }
            }
            At::Find => world.queue(other, |queue| queue.candidate(processor)).map_or(At::Sleep, At::Ask),
            At::Ask(vcpu) => {
                if world.signals(|signals| signals.wake(vcpu, other)) {
                    world.kicked[usize::from(other)] = true;
                }
                At::Sleep
            }
            At::Sleep if !self.kicked[own] => return Vec::new(),
            At::Sleep => {
                world.kicked[own] = false;
                world.signals(|signals| signals.set_idle(processor, false));
                At::Look
            }
        };
        if next == At::Run {
            let vcpu = world.queues[own].running.unwrap().0;
            world.mail[usize::from(vcpu)] = false;
        }
        world.at[own] = next;
        vec![world]
    }

    /// A vCPU runs, and has looked for mail as it began: it halts without another look; its slice ends; a kick ends its run.
    fn run_steps(&self, processor: u16) -> Vec<Self> {
        let own = usize::from(processor);
        let (vcpu, ..) = self.queues[own].running.unwrap();
        let mut halts = self.clone();
        halts.at[own] = At::Halts;
        let mut leaves = self.clone();
        leaves.kicked[own] = false;
        leaves.at[own] = At::Look;
        let mut steps = vec![halts];
        if self.kicked[own] {
            steps.push(leaves.clone());
        }
        leaves.queue(processor, |queue| queue.preempted(vcpu, 0));
        steps.push(leaves);
        steps
    }

    /// What one who wakes can do next, without beginning anything new.
    fn waker_step(&self) -> Option<Self> {
        let mut world = self.clone();
        world.waker = match self.waker {
            Waker::Rests => return None,
            Waker::Posted(vcpu) => match self.places[usize::from(vcpu)] {
                Some(processor) => Waker::Kicks(processor),
                None => Waker::FoundNoProcessor(vcpu),
            },
            Waker::FoundNoProcessor(vcpu) => Waker::KnowsHome(vcpu, world.signals(|signals| signals.home(vcpu))),
            Waker::KnowsHome(vcpu, home) if world.signals(|signals| signals.wake(vcpu, home)) => Waker::Kicks(home),
            Waker::KnowsHome(..) => Waker::Rests,
            Waker::Kicks(processor) => {
                world.kicked[usize::from(processor)] = true;
                Waker::Rests
            }
        };
        Some(world)
    }

    /// All that goes on by itself.
    fn steps(&self) -> Vec<Self> {
        (0..2).flat_map(|processor| self.processor_steps(processor)).chain(self.waker_step()).collect()
    }

    /// What begins anew: like a mailbox, a wake that found mail there does nothing more.
    fn wakes(&self) -> Vec<Self> {
        let rests = self.waker == Waker::Rests && self.wakes_left > 0;
        let vcpus = (0..VCPUS).filter(|&vcpu| rests && !self.mail[usize::from(vcpu)]);
        vcpus
            .map(|vcpu| {
                let mut world = self.clone();
                world.mail[usize::from(vcpu)] = true;
                world.waker = Waker::Posted(vcpu);
                world.wakes_left -= 1;
                world
            })
            .collect()
    }

    /// What holds at every moment.
    fn check(&self) {
        for vcpu in 0..VCPUS {
            let on = |processor: usize| {
                self.queues[processor].has(vcpu) || [At::Leaves(vcpu), At::Give(vcpu)].contains(&self.at[processor])
            };
            assert!(on(0) != on(1), "vCPU {vcpu} is in two places or none: {self:?}");
            let place = u16::from(on(1));
            assert!(member(vcpu).allowed.has(place), "vCPU {vcpu} is where it must not be: {self:?}");
        }
        let rests = |processor: usize| matches!(self.at[processor], At::Run | At::Sleep) && !self.kicked[processor];
        if self.waker == Waker::Rests && rests(0) && rests(1) {
            for vcpu in (0..VCPUS).filter(|&vcpu| self.mail[usize::from(vcpu)]) {
                let sleeps = self.queues.iter().any(|queue| queue.halted.contains(&vcpu));
                assert!(!sleeps, "vCPU {vcpu} was woken and sleeps: {self:?}");
            }
        }
        for (processor, other, its_number) in [(0, 1, 1), (1, 0, 0)] {
            let kicks = self.waker == Waker::Kicks(small(processor).into());
            if rests(other)
                && self.at[other] == At::Sleep
                && rests(processor)
                && self.at[processor] == At::Run
                && !kicks
            {
                let Queue { waiting, short, .. } = &self.queues[processor];
                let could = waiting.iter().chain(short).filter(|&&vcpu| member(vcpu).allowed.has(its_number)).count();
                assert_eq!(could, 0, "somebody waits beside a processor that sleeps: {self:?}");
            }
        }
    }

    /// Everybody has looked at everything and sleeps.
    fn is_quiet(&self) -> bool {
        self.at == [At::Sleep; 2] && self.kicked == [false; 2] && self.mail == [false; VCPUS as usize]
    }
}

/// In every state that can be reached: each vCPU is in one place, where it may be; no wake is lost; nobody waits beside a sleeping
/// processor; and if no more wakes came, all could still come to rest, so that nothing is stuck.
#[test]
fn every_interleaving() {
    let mut numbers = HashMap::from([(World::start(), 0_usize)]);
    let mut open = VecDeque::from([World::start()]);
    // By state: from where one gets there without a new wake.
    let mut before: Vec<Vec<usize>> = vec![Vec::new()];
    let mut quiet = Vec::new();
    while let Some(world) = open.pop_front() {
        world.check();
        let number = numbers[&world];
        if world.is_quiet() {
            quiet.push(number);
        }
        let by_itself = world.steps().into_iter().map(|next| (next, true));
        for (next, by_itself) in by_itself.chain(world.wakes().into_iter().map(|next| (next, false))) {
            let count = numbers.len();
            let next_number = *numbers.entry(next).or_insert_with_key(|next| {
                open.push_back(next.clone());
                before.push(Vec::new());
                count
            });
            if by_itself {
                before[next_number].push(number);
            }
        }
    }
    let mut comes_to_rest = vec![false; before.len()];
    while let Some(number) = quiet.pop() {
        if !core::mem::replace(&mut comes_to_rest[number], true) {
            quiet.extend(&before[number]);
        }
    }
    let stuck = comes_to_rest.iter().filter(|rests| !**rests).count();
    assert_eq!(stuck, 0, "of {} states some cannot come to rest", before.len());
    println!("{} states", before.len());
}
