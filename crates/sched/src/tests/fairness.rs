//! What the queue promises about time, over a million random steps, against the ideal processor: one that gives every competitor
//! its share of every instant.

use super::random::Random;
use crate::{Decision, Member, RunQueue, Set, State, Wake};

const SLICE: u64 = 10_000;
/// What one look at the clock may be off, in ticks for a weight of 1; and for a tick that it counts.
const ROUNDING: f64 = 1.0 / (1 << 24) as f64;
const PACE_ROUNDING: f64 = 1.0 / (1_u64 << 32) as f64;

/// One vCPU as the ideal processor serves it.
#[derive(Clone, Copy)]
struct Competitor {
    weight: f64,
    state: State,
    /// It takes part: it is ready, or owes something.
    competes: bool,
    /// What it should have had, and what it had, since it began to compete.
    ideal: f64,
    had: f64,
    /// Since when it is ready and has no processor, of its own will.
    waits_since: Option<u64>,
    /// It was woken and must run.
    owed: bool,
}

impl Competitor {
    fn lag(&self) -> f64 {
        self.ideal - self.had
    }
}

/// One processor: the queue, and beside it the ideal one.
struct Processor {
    queue: RunQueue,
    slice: f64,
    heaviest: f64,
    /// The latest that any decision has come.
    late: f64,
    now: u64,
    running: Option<(u16, u64)>,
    payer: u16,
    all: Vec<Competitor>,
    /// Looks at the clock so far.
    looks: u32,
    /// For how long somebody had the processor, and those who were ready and had not waited.
    ran: u64,
    waited: u64,
}

impl Processor {
    fn new(weights: &[u32], vms: u16, slice: u64, least: u64) -> Self {
        let heaviest = *weights.iter().max().unwrap();
        let mut queue = RunQueue::new(slice, heaviest, least);
        let mut all = Vec::new();
        for (&weight, vcpu) in weights.iter().zip(0..) {
            let member = Member { vcpu, vm: vcpu % vms, weight, allowed: Set::ALL };
            queue.add(member, State::Ready, 0).unwrap();
            let waits_since = Some(0);
            all.push(Competitor {
                weight: weight.into(),
                state: State::Ready,
                competes: true,
                ideal: 0.0,
                had: 0.0,
                waits_since,
                owed: false,
            });
        }
        let (slice, heaviest, late) = (slice as f64, heaviest.into(), if least > 1 { least as f64 } else { 0.0 });
        let mut processor =
            Self { queue, slice, heaviest, late, now: 0, running: None, payer: 0, all, looks: 0, ran: 0, waited: 0 };
        processor.decide();
        processor
    }

    /// The running vCPU computes for `ticks`, at most until it was told to ask again and `late` more.
    fn pass(&mut self, ticks: u64, late: u64) {
        self.looks += 3;
        let Some((_, until)) = self.running else {
            self.now += ticks;
            return;
        };
        let end = until.saturating_add(late).min(self.now + ticks);
        self.late = self.late.max(end.saturating_sub(until) as f64);
        let ready = self.all.iter().filter(|one| one.state == State::Ready).count() as u64;
        self.ran += end - self.now;
        self.waited += (end - self.now) * (ready - 1);
        let mut left = (end - self.now) as f64;
        self.now = end;
        self.all[usize::from(self.payer)].had += left;
        // The ideal processor goes from one paid debt to the next.
        let payer = usize::from(self.payer);
        while left > 0.0 {
            let weight: f64 = self.competitors().map(|one| one.weight).sum();
            let debtors = self.all.iter().filter(|one| one.competes && one.state != State::Ready);
            let step = debtors.map(|one| -one.lag() * weight / one.weight).fold(left, f64::min).max(1e-9);
            self.share(step);
            left -= step;
            self.settle();
        }
        assert!(self.all[payer].competes, "who does not compete is charged");
    }

    fn competitors(&mut self) -> impl Iterator<Item = &mut Competitor> {
        self.all.iter_mut().filter(|one| one.competes)
    }

    /// Gives all who compete their shares of so many ticks.
    fn share(&mut self, ticks: f64) {
        let weight: f64 = self.competitors().map(|one| one.weight).sum();
        self.competitors().for_each(|one| one.ideal += ticks * one.weight / weight);
    }

    /// Who is no longer ready competes until its debt is paid. What it may be owed goes to the others, so that some may have paid theirs.
    fn settle(&mut self) {
        let has_paid = |one: &&mut Competitor| one.state != State::Ready && one.lag() >= -1e-9;
        loop {
            let Some(one) = self.competitors().find(has_paid) else { return };
            let given_up = one.lag();
            (one.ideal, one.competes) = (one.had, false);
            self.share(given_up);
        }
    }

    /// The running vCPU has left the processor.
    fn left(&mut self, state: State) {
        let Some((vcpu, _)) = self.running.take() else { return };
        let now = self.now;
        match state {
            State::Ready => self.queue.preempted(vcpu, now),
            State::Halted => self.queue.halted(vcpu, u64::MAX, now),
            State::WaitsForSipi => self.queue.waits_for_sipi(vcpu, now),
            State::Stopped => self.queue.stopped(vcpu, now),
        }
        let one = &mut self.all[usize::from(vcpu)];
        let state = if one.owed && state != State::Stopped { State::Ready } else { state };
        assert_eq!(self.queue.state(vcpu), Some(state), "a wake that came while it ran keeps it ready");
        one.state = state;
        if state == State::Ready {
            one.waits_since = Some(now);
        } else {
            self.settle();
        }
    }

    fn wake(&mut self, vcpu: u16) {
        let sleeps = matches!(self.all[usize::from(vcpu)].state, State::Halted | State::WaitsForSipi);
        let expected = if sleeps { Wake::Ready } else { Wake::Noted };
        assert_eq!(self.queue.wake(vcpu, self.now), expected);
        let one = &mut self.all[usize::from(vcpu)];
        one.owed = one.state != State::Stopped;
        if sleeps {
            // The processor must ask again.
            self.running = self.running.map(|(vcpu, _)| (vcpu, self.now));
            one.state = State::Ready;
            one.waits_since = Some(self.now);
            if !one.competes {
                (one.ideal, one.competes) = (one.had, true);
            }
        }
    }

    /// The running vCPU spins.
    fn spin(&mut self) {
        let Some((vcpu, _)) = self.running else { return };
        let vm = |vcpu: usize| vcpu % 2;
        let same = |other: usize| other != usize::from(vcpu) && vm(other) == vm(usize::from(vcpu));
        let payer = usize::from(self.payer);
        let could =
            (0..self.all.len()).any(|other| same(other) && other != payer && self.all[other].state == State::Ready);
        let helped = self.queue.spins(vcpu, self.now);
        assert_eq!(helped, could);
        self.all[usize::from(vcpu)].waits_since = Some(self.now);
        if let Some(running) = self.queue.running {
            assert!(same(usize::from(running.vcpu)), "time was lent to another machine");
            assert_eq!(running.payer, self.payer);
            self.all[usize::from(running.vcpu)].waits_since = None;
            self.all[usize::from(running.vcpu)].owed = false;
            self.running = Some((running.vcpu, self.now));
        } else {
            // It gives up what it was owed. If it did so on borrowed time, the lender's turn is over too.
            let one = &mut self.all[usize::from(vcpu)];
            let given_up = one.lag().max(0.0);
            one.ideal -= given_up;
            self.share(given_up);
            self.settle();
            self.running = None;
        }
    }

    fn decide(&mut self) {
        let before = self.queue.running;
        let decision = self.queue.next(self.now);
        let counters = (0..).take(self.all.len()).map(|vcpu| self.queue.counters(vcpu));
        let counted = counters.fold((0, 0), |all, one| (all.0 + one.ran, all.1 + one.waited));
        assert_eq!(counted, (self.ran, self.waited), "time was lost");
        let ready = |all: &[Competitor]| all.iter().filter(|one| one.state == State::Ready).count();
        match decision {
            Decision::Run { vcpu, until } => {
                assert!(until > self.now, "a slice of nothing");
                let running = self.queue.running.expect("it was just chosen");
                if before.map(|before| (before.vcpu, before.end)) != Some((vcpu, running.end)) {
                    self.chosen(before.map(|before| before.vcpu), vcpu);
                }
                self.payer = running.payer;
                self.running = Some((vcpu, until));
            }
            Decision::Idle { .. } => {
                assert_eq!(ready(&self.all), 0, "idle while somebody is ready");
                for one in &mut self.all {
                    (one.ideal, one.competes) = (one.had, false);
                }
                self.running = None;
            }
            Decision::AllStopped => {
                assert!(self.all.iter().all(|one| one.state == State::Stopped));
                self.running = None;
            }
        }
    }

    /// The queue has chosen `vcpu` after `before`.
    fn chosen(&mut self, before: Option<u16>, vcpu: u16) {
        if let Some(before) = before {
            self.all[usize::from(before)].waits_since = Some(self.now);
        }
        let one = self.all[usize::from(vcpu)];
        assert_eq!(one.state, State::Ready);
        // Only who is not ahead of its share may start, give or take a granule, or two if another one has just given up its turn.
        let least = -2.0 * self.slice(&one) / 15.0 - self.rounding(&one);
        let others: Vec<_> = self.all.iter().map(|o| (o.weight, o.lag(), o.state, o.competes)).collect();
        assert!(
            one.lag() >= least,
            "vCPU {vcpu} was chosen with a lag of {} {others:?} {:?} late {}",
            one.lag(),
            self.queue.calendar,
            self.late
        );
        self.all[usize::from(vcpu)].waits_since = None;
        self.all[usize::from(vcpu)].owed = false;
    }

    /// Its part of a slice, in ticks.
    fn slice(&self, one: &Competitor) -> f64 {
        self.slice * one.weight / self.heaviest
    }

    /// What rounding may have done to a lag, in ticks.
    fn rounding(&self, one: &Competitor) -> f64 {
        1e-3 + f64::from(self.looks) * (ROUNDING * one.weight + PACE_ROUNDING * self.slice)
    }

    /// What is promised, at any moment. A decision that is late adds to the debt of the one that ran, and so to what the others are owed.
    fn check(&self) {
        let total: f64 = self.all.iter().map(|one| one.weight).sum();
        let all_late = self.late * self.all.len() as f64;
        for (one, vcpu) in self.all.iter().zip(0..).filter(|(one, _)| one.state == State::Ready) {
            let bound = self.slice(one) + all_late + self.rounding(one);
            assert!(one.lag().abs() <= bound, "vCPU {vcpu} is {} ticks off its share", one.lag());
            let waited = one.waits_since.map_or(0, |since| self.now - since) as f64;
            let late = self.late * total / one.weight + all_late;
            let bound = 2.0 * self.slice * total / self.heaviest + late + 1.0;
            assert!(waited <= bound, "vCPU {vcpu} has waited {waited} of at most {bound}");
            assert_eq!(self.queue.state(vcpu), Some(State::Ready), "vCPU {vcpu} was forgotten");
        }
    }
}

/// How a guest behaves: what happens at a step, of 100.
struct Habits {
    halts: u64,
    wakes: u64,
    spins: u64,
    /// A decision comes up to so many slices too late; otherwise in time.
    late: u64,
    /// Nobody runs for less.
    least: u64,
}

fn run(weights: &[u32], habits: &Habits, slice: u64, steps: u32, seed: u64) -> Processor {
    let mut random = Random(seed);
    let mut processor = Processor::new(weights, 2, slice, habits.least);
    for _ in 0..steps {
        let chance = random.below(100);
        let (wakes, spins) = (habits.halts + habits.wakes, habits.halts + habits.wakes + habits.spins);
        let late = if chance.is_multiple_of(8) { habits.late * random.below(slice) } else { 0 };
        processor.pass(random.below(3 * slice / 2) + late, late);
        if chance < habits.halts {
            processor.left(if random.below(4) == 0 { State::WaitsForSipi } else { State::Halted });
        } else if chance < wakes {
            processor.wake(u16::try_from(random.below(weights.len() as u64)).unwrap());
        } else if chance < spins {
            processor.spin();
        } else if chance == 99 {
            processor.left(State::Ready);
        }
        if processor.running.is_none_or(|(_, until)| until <= processor.now) || random.below(4) > 0 {
            processor.decide();
        }
        processor.check();
    }
    processor
}

const KINDS: [Habits; 4] = [
    Habits { halts: 0, wakes: 0, spins: 0, late: 0, least: 1 },
    Habits { halts: 10, wakes: 20, spins: 0, late: 0, least: 1 },
    Habits { halts: 40, wakes: 45, spins: 0, late: 0, least: 1 },
    Habits { halts: 10, wakes: 15, spins: 30, late: 0, least: 1 },
];
const WEIGHTS: [&[u32]; 5] = [&[1, 2, 3], &[1, 1, 1, 1], &[1, 1000], &[7, 7, 7, 100, 100, 333, 1, 1, 1, 333], &[5; 64]];

/// Whoever is ready stays within its part of a slice of its share, and waits no longer than the documentation says, whatever the
/// others do: compute, halt and wake at any rate, spin. A million steps.
#[test]
fn shares_and_waits_are_bounded() {
    for (habits, seed) in KINDS.iter().zip(1..) {
        for weights in WEIGHTS {
            run(weights, habits, SLICE, 50_000, seed);
        }
    }
}

/// So it does with the longest slices, where all clocks wrap after a few hundred steps, and while nobody wakes for as long.
#[test]
fn clocks_wrap() {
    let seldom = Habits { halts: 1, wakes: 1, ..KINDS[0] };
    for (habits, seed) in KINDS.iter().chain([&seldom]).zip(1..) {
        for weights in WEIGHTS {
            run(weights, habits, 1 << 30, 10_000, seed);
        }
    }
}

/// A late decision costs the others as much as it is late, and no more.
#[test]
fn late_decisions_are_made_up_for() {
    for (habits, seed) in KINDS.iter().zip(1..) {
        for weights in WEIGHTS {
            for late in [1, 10, 1000] {
                run(weights, &Habits { late, ..*habits }, SLICE, 5_000, seed);
            }
            run(weights, &Habits { least: SLICE / 4, ..*habits }, SLICE, 5_000, seed);
            // As late and for as long as is charged.
            run(weights, &Habits { late: 14, ..*habits }, 1 << 26, 5_000, seed);
        }
    }
}

/// Three that compute, of weights 1, 2 and 3, get a sixth, a third and a half.
#[test]
fn three_that_compute_get_their_shares() {
    let mut processor = Processor::new(&[1, 2, 3], 1, SLICE, 1);
    while processor.now < 600 * SLICE {
        processor.pass(u64::MAX / 2, 0);
        processor.decide();
    }
    for (vcpu, share) in [(0, 100), (1, 200), (2, 300)] {
        let ran = processor.queue.counters(vcpu).ran;
        assert!(ran.abs_diff(share * SLICE) <= SLICE, "vCPU {vcpu} ran {ran} ticks");
    }
}
