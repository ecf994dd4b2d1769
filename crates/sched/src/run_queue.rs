//! The run queue of one processor: who is next.

use crate::alarms::Alarms;
use crate::calendar::Calendar;
use crate::compete::Clock;
use crate::member::{Counters, MAX_VCPUS, Member, Set, State, bit};
use crate::virtual_time::{Pace, VirtualTime};

/// Why a vCPU cannot be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Refused {
    /// Its number is not below [`MAX_VCPUS`].
    Number,
    /// Its weight is 0, or greater than the queue was told to expect.
    Weight,
}

/// What came of a wake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Wake {
    /// It is ready from now on: ask [`RunQueue::next`].
    Ready,
    /// It is ready already and will look when its turn comes, or it runs and will not go to sleep before it has run
    /// again, or it is stopped.
    Noted,
    /// It is not here: it has moved, pass the wake on.
    Elsewhere,
}

/// What a queue keeps of each vCPU of the machine and does not need for a decision.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) member: Member,
    /// `None` when it is not here.
    pub(crate) state: Option<State>,
    /// When it was last woken.
    pub(crate) woken_at: u64,
    /// When it must be woken, if it is halted.
    pub(crate) alarm: u64,
    /// For how long it was ready; while it is, less by the time at which that began.
    pub(crate) ready: u64,
    /// Without `ran`, `waited` and `switches`.
    pub(crate) counters: Counters,
}

/// A note of a vCPU: it asks for a short request.
pub(crate) const SHORT: u8 = 1;
/// It was woken since it last got the processor.
pub(crate) const WOKEN: u8 = 2;
/// It has spun since then, and lent its time or given it up.
pub(crate) const SPUN: u8 = 4;

/// Who has the processor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Running {
    pub(crate) vcpu: u16,
    /// Who pays: the vCPU itself, or one that spins and has lent it the rest of its request.
    pub(crate) payer: u16,
    /// It was woken since it got the processor. What it was woken for may have come after it last looked, so it must
    /// not go to sleep.
    pub(crate) woken: bool,
    /// Where the slot begins in which the payer waited.
    pub(crate) turn: VirtualTime,
    /// When the request is over.
    pub(crate) end: u64,
}

/// The vCPUs of one processor.
#[derive(Clone, Debug)]
pub struct RunQueue {
    /// The latest time that the queue was told. All is accounted for up to here.
    pub(crate) now: u64,
    /// When the first of `alarms` rings.
    pub(crate) next_alarm: u64,
    pub(crate) running: Option<Running>,
    /// Those of whom there may be notes.
    pub(crate) noted: u64,
    pub(crate) clock: Clock,
    pub(crate) calendar: Calendar,
    /// By vCPU; `ran` and `switches` as in [`Counters`].
    pub(crate) paces: [Pace; MAX_VCPUS],
    pub(crate) ran: [u64; MAX_VCPUS],
    pub(crate) switches: [u64; MAX_VCPUS],
    /// Ticks of a request.
    pub(crate) requests: [u64; MAX_VCPUS],
    /// What is to be seen to when it gets the processor.
    pub(crate) notes: [u8; MAX_VCPUS],
    /// How many are here that have not stopped.
    pub(crate) alive: u8,
    heaviest: u32,
    /// Ticks of the shortest request.
    pub(crate) least: u64,
    pub(crate) alarms: Alarms,
    pub(crate) entries: [Entry; MAX_VCPUS],
}

impl RunQueue {
    /// A queue of nobody. A share is kept to within `slice`, in TSC ticks, from 1 to 2^30. Nobody will come who weighs more than
    /// `heaviest`, from 1 to [`crate::MAX_WEIGHT`]. Who weighs that much runs for nearly a slice at a time, others as much shorter as
    /// they weigh less.
    ///
    /// But nobody runs for less than `least`, so that a switch is worth its time: by as much as a request would be shorter the decision after
    /// it comes late, and all that is said of late decisions applies.
    ///
    /// It is 11 KiB, and mostly zeros: a constant of it would weigh as much in the image.
    #[must_use]
    pub const fn new(slice: u64, heaviest: u32, least: u64) -> Self {
        Self {
            now: 0,
            next_alarm: u64::MAX,
            running: None,
            noted: 0,
            notes: [0; MAX_VCPUS],
            clock: Clock::NEW,
            calendar: Calendar::new(Pace::new(heaviest).span(slice)),
            paces: [Pace::NONE; MAX_VCPUS],
            ran: [0; MAX_VCPUS],
            switches: [0; MAX_VCPUS],
            requests: [0; MAX_VCPUS],
            alive: 0,
            heaviest,
            least,
            alarms: Alarms::new(),
            entries: [Entry::NOBODY; MAX_VCPUS],
        }
    }

    /// Adds a vCPU. One that is already here stays as it is.
    ///
    /// # Errors
    /// Says why there is no room.
    pub fn add(&mut self, member: Member, state: State, now: u64) -> Result<(), Refused> {
        if member.weight == 0 || member.weight > self.heaviest {
            return Err(Refused::Weight);
        }
        let number = usize::from(member.vcpu);
        if number >= MAX_VCPUS {
            return Err(Refused::Number);
        }
        if self.entries[number].state.is_none() {
            self.entries[number] = Entry { member, state: Some(state), ..Entry::NOBODY };
            self.paces[number] = Pace::new(member.weight);
            self.requests[number] = self.paces[number].ticks(self.calendar.length()).max(self.least);
            (self.ran[number], self.switches[number]) = (0, 0);
            self.notes[number] = 0;
            self.alive += u8::from(state != State::Stopped);
            if state == State::Ready {
                self.charge(now);
                self.compete(member.vcpu, false);
            }
        }
        Ok(())
    }

    pub(crate) const fn note(&mut self, vcpu: u16, note: u8) {
        self.notes[vcpu as usize % MAX_VCPUS] |= note;
        self.noted |= bit(vcpu);
    }

    /// The vCPU was noted to be so, and is no more. Whether it was.
    pub(crate) const fn strike(&mut self, vcpu: u16, note: u8) -> bool {
        let notes = &mut self.notes[vcpu as usize % MAX_VCPUS];
        let was = *notes & note != 0;
        *notes &= !note;
        was
    }

    pub(crate) const fn is_noted(&self, vcpu: u16, note: u8) -> bool {
        self.notes[vcpu as usize % MAX_VCPUS] & note != 0
    }

    /// The running vCPU waits for an interrupt, or for `alarm`, in TSC ticks, when its timers want it. If it was woken
    /// while it ran, it is ready instead. Of a vCPU that is not running here, this says nothing.
    pub fn halted(&mut self, vcpu: u16, alarm: u64, now: u64) {
        self.leave(vcpu, State::Halted, alarm, now);
    }

    /// The running vCPU waits for a start-up IPI; otherwise as [`Self::halted`].
    pub fn waits_for_sipi(&mut self, vcpu: u16, now: u64) {
        self.leave(vcpu, State::WaitsForSipi, u64::MAX, now);
    }

    /// The running vCPU has left the processor although it could go on. Of a vCPU that is not running here, this says nothing.
    pub fn preempted(&mut self, vcpu: u16, now: u64) {
        if self.runs(vcpu) {
            self.charge(now);
            self.put_back();
        }
    }

    /// The vCPU, running or not, never runs again.
    pub fn stopped(&mut self, vcpu: u16, now: u64) {
        let state = self.state(vcpu);
        if state.is_none_or(|state| state == State::Stopped) {
            return;
        }
        self.charge(now);
        self.call_back_loan(vcpu);
        if self.runs(vcpu) {
            self.put_back();
        }
        self.cancel_alarm(vcpu);
        if state == Some(State::Ready) {
            self.withdraw(vcpu);
        }
        self.entry_mut(vcpu).state = Some(State::Stopped);
        self.alive -= 1;
    }

    /// Something has happened that the vCPU must look at, whatever it is up to at the moment.
    pub fn wake(&mut self, vcpu: u16, now: u64) -> Wake {
        match self.state(vcpu) {
            None => Wake::Elsewhere,
            Some(State::Halted | State::WaitsForSipi) => {
                self.charge(now);
                self.cancel_alarm(vcpu);
                let now = self.now;
                let entry = self.entry_mut(vcpu);
                entry.state = Some(State::Ready);
                entry.woken_at = now;
                entry.counters.wakes += 1;
                self.note(vcpu, WOKEN);
                self.compete(vcpu, true);
                Wake::Ready
            }
            Some(State::Ready | State::Stopped) => {
                if let Some(running) = self.running.as_mut().filter(|running| running.vcpu == vcpu) {
                    running.woken = true;
                }
                Wake::Noted
            }
        }
    }

    /// What `vcpu` is up to; `None` when it is not here.
    #[must_use]
    pub fn state(&self, vcpu: u16) -> Option<State> {
        self.entries.get(usize::from(vcpu))?.state
    }

    /// The vCPU that has the processor.
    #[must_use]
    pub fn running(&self) -> Option<u16> {
        self.running.map(|running| running.vcpu)
    }

    /// What became of `vcpu` here and before; zeros when it is not here.
    #[must_use]
    pub fn counters(&self, vcpu: u16) -> Counters {
        let number = usize::from(vcpu);
        let Some(entry) = self.entries.get(number) else { return Counters::default() };
        let open = match entry.state {
            None => return Counters::default(),
            Some(State::Ready) => self.now,
            Some(_) => 0,
        };
        let (ran, switches) = (self.ran[number], self.switches[number]);
        Counters { ran, switches, waited: entry.ready.wrapping_add(open).wrapping_sub(ran), ..entry.counters }
    }

    pub(crate) fn runs(&self, vcpu: u16) -> bool {
        self.running() == Some(vcpu)
    }

    #[inline]
    pub(crate) const fn entry(&self, vcpu: u16) -> &Entry {
        &self.entries[vcpu as usize % MAX_VCPUS]
    }

    #[inline]
    pub(crate) const fn entry_mut(&mut self, vcpu: u16) -> &mut Entry {
        &mut self.entries[vcpu as usize % MAX_VCPUS]
    }

    /// The running vCPU leaves the processor in `state`, or ready if it was woken.
    fn leave(&mut self, vcpu: u16, state: State, alarm: u64, now: u64) {
        let Some(running) = self.running.filter(|running| running.vcpu == vcpu) else { return };
        self.charge(now);
        if running.woken {
            return self.put_back();
        }
        if running.payer == vcpu {
            self.running = None;
            self.retire(vcpu);
        } else {
            self.put_back();
            self.withdraw(vcpu);
        }
        let entry = self.entry_mut(vcpu);
        entry.state = Some(state);
        self.set_alarm(vcpu, alarm);
    }
}

impl Entry {
    const NOBODY: Self = Self {
        member: Member { vcpu: 0, vm: 0, weight: 1, allowed: Set::NONE },
        state: None,
        woken_at: 0,
        alarm: u64::MAX,
        ready: 0,
        counters: Counters {
            ran: 0,
            waited: 0,
            wakes: 0,
            wake_latency: 0,
            longest_wake: 0,
            switches: 0,
            migrations: 0,
        },
    };
}
