//! The run queue of one processor: who is next.

use crate::alarms::Alarms;
use crate::lines::{Line, Lines, Request};
use crate::member::{Counters, MAX_VCPUS, MAX_WEIGHT, Member, Set, State};
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
    /// When that was, if [`Mark::Woken`].
    pub(crate) woken_at: u64,
    /// When it must be woken, if it is halted.
    pub(crate) alarm: u64,
    /// While it runs `ran`, and while it waits `waited`, is less by the time at which that began.
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
    /// Where the payer waited.
    pub(crate) line: Line,
    /// When the request is over.
    pub(crate) end: u64,
    /// It was woken since it got the processor. What it was woken for may have come after it last looked, so it must
    /// not go to sleep.
    pub(crate) woken: bool,
}

/// The vCPUs of one processor. `lines` is at its beginning, so that a decision reaches what it needs from one address.
#[derive(Clone, Debug)]
#[repr(C)]
pub struct RunQueue {
    pub(crate) lines: Lines,
    pub(crate) running: Option<Running>,
    /// Those who are no longer ready and have had more than their share.
    pub(crate) debtors: u64,
    /// The weight of all who wait, run, pay or are in debt.
    pub(crate) competing: Pace,
    /// The latest time that the queue was told. All is accounted for up to here.
    pub(crate) now: u64,
    pub(crate) virtual_now: VirtualTime,
    /// When the first of `alarms` rings.
    pub(crate) next_alarm: u64,
    /// How many are here that have not stopped.
    pub(crate) alive: u8,
    pub(crate) alarms: Alarms,
    pub(crate) entries: [Entry; MAX_VCPUS],
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
            alarms: Alarms::new(),
            alive: 0,
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
            self.alive += u8::from(state != State::Stopped);
            if state == State::Ready {
                self.charge(now);
                self.compete(member.vcpu, Request::Early);
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
            let line = if self.now >= running.end {
                self.lines.after(running.line)
            } else if let Some(line) = self.line_when_beaten() {
                line
            } else {
                return self.go_on();
            };
            let Some(running) = &self.running else { return self.choose() };
            let (vcpu, payer) = (running.vcpu, running.payer);
            self.ends(vcpu);
            self.lines.put(payer, line);
        }
        self.choose()
    }

    /// Where the next request of the running vCPU waits if a woken one has an earlier deadline now. Apart from the rest, as for `pay_debts`.
    #[inline(never)]
    fn line_when_beaten(&self) -> Option<Line> {
        let running = self.running.as_ref()?;
        let left = running.end.saturating_sub(self.now);
        let deadline = self.lines.start(running.payer).after(self.lines.pace(running.line).span(left));
        let is_beaten = self.lines.has_short_before(deadline, self.virtual_now);
        is_beaten.then(|| self.lines.after_cut(running.line, left))
    }

    /// The running vCPU runs on.
    #[cold]
    #[inline(never)]
    fn go_on(&self) -> Decision {
        let (vcpu, end) = self.running.as_ref().map_or((0, 0), |running| (running.vcpu, running.end));
        Decision::Run { vcpu, until: self.until(end) }
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
        self.withdraw(vcpu);
        self.cancel_alarm(vcpu);
        if state == Some(State::Ready) {
            self.rests(vcpu);
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
        let Some(entry) = self.entries.get(usize::from(vcpu)) else { return Counters::default() };
        let mut counters = entry.counters;
        if entry.state == Some(State::Ready) {
            let open = if self.runs(vcpu) { &mut counters.ran } else { &mut counters.waited };
            *open = open.wrapping_add(self.now);
        }
        counters
    }

    pub(crate) fn runs(&self, vcpu: u16) -> bool {
        self.running() == Some(vcpu)
    }

    /// Takes who has the earliest deadline among those who may start.
    #[inline]
    fn choose(&mut self) -> Decision {
        let Some((vcpu, line, ticks)) = self.lines.take_first(self.virtual_now) else { return self.catch_up() };
        self.starts(vcpu);
        let end = self.now.wrapping_add(ticks);
        self.running = Some(Running { vcpu, payer: vcpu, line, end, woken: false });
        Decision::Run { vcpu, until: self.until(end) }
    }

    /// Nobody may start yet: those who were owed time have gone without it, so the clock has nothing to wait for.
    #[cold]
    #[inline(never)]
    fn catch_up(&mut self) -> Decision {
        self.running = None;
        let Some(start) = self.lines.first_start() else { return self.nobody_ready() };
        self.skip_to(start);
        self.next(self.now)
    }

    /// When to ask again while somebody runs whose request ends at `end`.
    #[inline]
    fn until(&self, end: u64) -> u64 {
        let end = if self.lines.are_empty() { self.end_alone(end) } else { end };
        end.min(self.next_alarm)
    }

    /// The same for one who is alone: never, unless others pay their debts meanwhile.
    #[cold]
    const fn end_alone(&self, end: u64) -> u64 {
        if self.debtors == 0 { u64::MAX } else { end }
    }

    #[cold]
    fn nobody_ready(&mut self) -> Decision {
        // Nobody is left to whom anything is owed.
        self.debtors = 0;
        self.lines.forgive();
        self.competing = Pace::NONE;
        if self.alive == 0 { Decision::AllStopped } else { Decision::Idle { until: self.next_alarm } }
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
        self.rests(vcpu);
        let entry = self.entry_mut(vcpu);
        entry.state = Some(state);
        self.set_alarm(vcpu, alarm);
    }
}

impl Entry {
    const NOBODY: Self = Self {
        member: Member { vcpu: 0, vm: 0, weight: 1, allowed: Set::NONE },
        state: None,
        line: 0,
        mark: Mark::None,
        woken_at: 0,
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
