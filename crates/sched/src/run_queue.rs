//! The run queue of one processor: who is next.

use crate::lines::{Line, Lines, Request};
use crate::member::{Counters, MAX_VCPUS, MAX_WEIGHT, Member, State};
use crate::virtual_time::{Pace, VirtualTime};

/// What the processor does next. Times in TSC ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Decision {
    /// Run this vCPU.
    Run {
        /// Whom.
        vcpu: u16,
        /// When to ask again at the latest: its slice is over, or a halted neighbour's alarm rings. `u64::MAX` for never.
        until: u64,
    },
    /// Nobody is ready: wait for a wake.
    Idle {
        /// When to ask again at the latest: an alarm rings. `u64::MAX` for never.
        until: u64,
    },
    /// Nobody here will ever run again. So too for a queue to which nobody was added yet.
    AllStopped,
}

/// Why a vCPU cannot be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Refused {
    /// Its number is not below [`MAX_VCPUS`].
    Number,
    /// Its weight is 0 or greater than [`MAX_WEIGHT`].
    Weight,
    /// More than [`crate::MAX_WEIGHTS`] different weights.
    Weights,
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

/// What a queue keeps of each vCPU of the machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) member: Member,
    /// `None` when it is not here.
    pub(crate) state: Option<State>,
    /// Where it waits with whole requests.
    pub(crate) line: Line,
    /// What happened to it since it last got the processor.
    pub(crate) mark: Mark,
    /// When it got the processor, lost it, or became ready.
    pub(crate) since: u64,
    /// When it must be woken, if it is halted.
    pub(crate) alarm: u64,
    pub(crate) counters: Counters,
}

/// What a vCPU has to tell when it gets the processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    None,
    Woken,
    /// It spun, and lent its time or gave it up.
    Spun,
}

/// Who has the processor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Running {
    pub(crate) vcpu: u16,
    /// Who pays: the vCPU itself, or one that spins and has lent it the rest of its request.
    pub(crate) payer: u16,
    /// Where the payer waits with whole requests.
    pub(crate) line: Line,
    /// When the request is over.
    pub(crate) end: u64,
    /// It was woken since it got the processor. What it was woken for may have come after it last looked, so it must
    /// not go to sleep.
    pub(crate) woken: bool,
}

/// The vCPUs of one processor.
#[derive(Clone, Debug)]
pub struct RunQueue {
    pub(crate) entries: [Entry; MAX_VCPUS],
    pub(crate) lines: Lines,
    pub(crate) running: Option<Running>,
    /// Those who are no longer ready and have had more than their share.
    pub(crate) debtors: u64,
    /// The weight of all who wait, run, pay or are in debt.
    pub(crate) competing: Pace,
    /// The latest time that the queue was told. All is accounted for up to here.
    pub(crate) now: u64,
    pub(crate) virtual_now: VirtualTime,
    /// No alarm of a halted vCPU rings before.
    pub(crate) next_alarm: u64,
}

impl RunQueue {
    /// A queue of nobody. The longest request is for `slice`, in TSC ticks, from 1 to 2^32.
    ///
    /// It is 8 KiB, and mostly zeros: a constant of it would weigh as much in the image.
    #[must_use]
    pub const fn new(slice: u64) -> Self {
        Self {
            entries: [Entry::NOBODY; MAX_VCPUS],
            lines: Lines::new(slice),
            running: None,
            debtors: 0,
            competing: Pace::NONE,
            now: 0,
            virtual_now: VirtualTime::ZERO,
            next_alarm: u64::MAX,
        }
    }

    /// Adds a vCPU. One that is already here stays as it is.
    ///
    /// # Errors
    /// Says why there is no room.
    pub fn add(&mut self, member: Member, state: State, now: u64) -> Result<(), Refused> {
        if member.weight == 0 || member.weight > MAX_WEIGHT {
            return Err(Refused::Weight);
        }
        if usize::from(member.vcpu) >= MAX_VCPUS {
            return Err(Refused::Number);
        }
        let line = self.lines.line_of(member.weight).ok_or(Refused::Weights)?;
        let entry = self.entry_mut(member.vcpu);
        if entry.state.is_none() {
            *entry = Entry { member, line, state: Some(state), ..Entry::NOBODY };
            if state == State::Ready {
                self.charge(now);
                self.compete(member.vcpu, Request::Whole);
            }
        }
        Ok(())
    }

    /// What to do at time `now`, in TSC ticks.
    ///
    /// May also be asked while a vCPU runs of which nothing has been said yet, and must be when a wake made another one
    /// ready: the answer is then the same vCPU and the end of its slice, or another one.
    #[inline(never)]
    pub fn next(&mut self, now: u64) -> Decision {
        if now >= self.next_alarm {
            self.ring(now);
        }
        self.charge(now);
        if let Some(running) = &self.running {
            if self.now < running.end && !self.is_beaten(running) {
                return Decision::Run { vcpu: running.vcpu, until: self.until(running) };
            }
            self.put_back();
        }
        self.choose()
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
        if self.state(vcpu).is_none_or(|state| state == State::Stopped) {
            return;
        }
        self.charge(now);
        self.call_back_loan(vcpu);
        if self.runs(vcpu) {
            self.put_back();
        }
        self.withdraw(vcpu);
        self.entry_mut(vcpu).state = Some(State::Stopped);
    }

    /// Something has happened that the vCPU must look at, whatever it is up to at the moment.
    pub fn wake(&mut self, vcpu: u16, now: u64) -> Wake {
        match self.state(vcpu) {
            None => Wake::Elsewhere,
            Some(State::Halted | State::WaitsForSipi) => {
                self.charge(now);
                let entry = self.entry_mut(vcpu);
                entry.state = Some(State::Ready);
                entry.mark = Mark::Woken;
                entry.counters.wakes += 1;
                self.compete(vcpu, Request::Short);
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
        self.entries.get(usize::from(vcpu)).map_or(Counters::default(), |entry| entry.counters)
    }

    pub(crate) fn runs(&self, vcpu: u16) -> bool {
        self.running() == Some(vcpu)
    }

    /// Takes who has the earliest deadline among those who may start.
    #[inline]
    fn choose(&mut self) -> Decision {
        let line = match self.lines.first_deadline(self.virtual_now) {
            Some(line) => line,
            None => match self.catch_up() {
                Some(line) => line,
                None => return self.nobody_ready(),
            },
        };
        let vcpu = self.lines.take_head(line);
        self.starts(vcpu);
        let end = self.now.wrapping_add(self.lines.ticks(line));
        let running = Running { vcpu, payer: vcpu, line: line & !1, end, woken: false };
        self.running = Some(running);
        Decision::Run { vcpu, until: self.until(&running) }
    }

    /// The line of who is next when nobody may start yet: those who were owed time have gone without it, so the clock has
    /// nothing to wait for.
    #[cold]
    fn catch_up(&mut self) -> Option<Line> {
        let start = self.lines.first_start()?;
        self.skip_to(start);
        self.lines.first_deadline(start)
    }

    /// Whether a woken vCPU has an earlier deadline than `running`. Apart from the rest, as for `advance`.
    #[inline(never)]
    fn is_beaten(&self, running: &Running) -> bool {
        self.lines.first_short_deadline(self.virtual_now).is_some_and(|deadline| {
            let left = self.lines.pace(running.line).span(running.end.saturating_sub(self.now));
            deadline < self.lines.start(running.payer).after(left)
        })
    }

    /// When to ask again while `running` runs.
    #[inline]
    fn until(&self, running: &Running) -> u64 {
        let is_alone = self.lines.are_empty() && self.debtors == 0;
        if is_alone { self.next_alarm } else { running.end.min(self.next_alarm) }
    }

    #[cold]
    fn nobody_ready(&mut self) -> Decision {
        // Nobody is left to whom anything is owed.
        self.debtors = 0;
        self.competing = Pace::NONE;
        let mut states = self.entries.iter().filter_map(|entry| entry.state);
        if states.all(|state| state == State::Stopped) {
            Decision::AllStopped
        } else {
            Decision::Idle { until: self.next_alarm }
        }
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
            self.ends(vcpu);
            self.retire(vcpu);
        } else {
            self.put_back();
            self.withdraw(vcpu);
        }
        let entry = self.entry_mut(vcpu);
        entry.state = Some(state);
        entry.alarm = alarm;
        self.next_alarm = self.next_alarm.min(alarm);
    }

    /// Wakes all whose alarm has come.
    #[cold]
    fn ring(&mut self, now: u64) {
        self.next_alarm = u64::MAX;
        for vcpu in (0..).take(MAX_VCPUS) {
            let entry = self.entry(vcpu);
            if entry.state != Some(State::Halted) {
                continue;
            }
            if entry.alarm <= now {
                self.wake(vcpu, now);
            } else {
                self.next_alarm = self.next_alarm.min(entry.alarm);
            }
        }
    }
}

impl Entry {
    const NOBODY: Self = Self {
        member: Member { vcpu: 0, vm: 0, weight: 1, allowed: crate::Set::NONE },
        state: None,
        line: 0,
        mark: Mark::None,
        since: 0,
        alarm: u64::MAX,
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
