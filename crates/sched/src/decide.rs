//! The decision: who has the processor next.

use crate::MAX_VCPUS;
use crate::calendar::First;
use crate::member::bit;
use crate::run_queue::{RunQueue, Running, SHORT, WOKEN};

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

impl RunQueue {
    /// What to do at time `now`, in TSC ticks.
    ///
    /// May also be asked while a vCPU runs of which nothing has been said yet, and must be when a wake made another one
    /// ready: the answer is then the same vCPU and the end of its slice, or another one.
    #[inline(never)]
    pub fn next(&mut self, now: u64) -> Decision {
        if now >= self.next_alarm {
            return self.next_after_alarms(now);
        }
        self.charge(now);
        if self.clock.is_far() {
            return self.next_with_near_clock();
        }
        self.decide()
    }

    // What follows is apart, and is where a decision ends, so that it saves no registers when none of this happens.
    #[cold]
    #[inline(never)]
    fn next_after_alarms(&mut self, now: u64) -> Decision {
        // Who wakes charges.
        self.ring(now);
        self.decide_apart()
    }

    #[cold]
    #[inline(never)]
    fn next_with_near_clock(&mut self) -> Decision {
        self.come_near();
        self.decide_apart()
    }

    #[inline(never)]
    fn decide_apart(&mut self) -> Decision {
        self.decide()
    }

    /// What to do now, up to which time is charged.
    #[inline]
    fn decide(&mut self) -> Decision {
        if let Some(running) = &self.running {
            if self.now < running.end && !self.calendar.has_before(running.turn) {
                return self.run_until(running.vcpu, running.end);
            }
            if !self.calendar.put_inside(running.payer, self.calendar.start(running.payer)) {
                return self.choose_outside();
            }
        }
        self.choose()
    }

    /// Nobody else waits, or the running vCPU has had far more than it asked for.
    #[cold]
    #[inline(never)]
    fn choose_outside(&mut self) -> Decision {
        if let Some(running) = self.running {
            if self.calendar.is_empty() {
                self.calendar.begin_at(self.calendar.start(running.payer));
                return self.run(running.payer, self.request(running.payer));
            }
            self.calendar.put_at(running.payer, self.calendar.start(running.payer));
        }
        self.choose()
    }

    /// Lets the one run whose turn is next.
    #[inline]
    fn choose(&mut self) -> Decision {
        let vcpu = match self.calendar.take_first() {
            First::Vcpu(vcpu) => vcpu,
            First::Nobody => return self.nobody_ready(),
            First::Far => return self.choose_from_far(),
        };
        if self.noted & bit(vcpu) != 0 {
            return self.run_noted(vcpu);
        }
        self.run(vcpu, self.request(vcpu))
    }

    /// Those who had far more than they asked for were put aside, and it may be their turn.
    #[cold]
    #[inline(never)]
    fn choose_from_far(&mut self) -> Decision {
        self.calendar.bring_nearer();
        self.choose()
    }

    #[cold]
    #[inline(never)]
    fn run_noted(&mut self, vcpu: u16) -> Decision {
        self.noted &= !bit(vcpu);
        let notes = core::mem::take(&mut self.notes[usize::from(vcpu) % MAX_VCPUS]);
        let request = self.request(vcpu);
        let request = if notes & SHORT != 0 { (request / 8).max(self.least) } else { request };
        if notes & WOKEN != 0 {
            self.first_turn(vcpu);
        }
        self.run(vcpu, request)
    }

    /// The ticks of a whole request.
    #[inline]
    const fn request(&self, vcpu: u16) -> u64 {
        self.requests[vcpu as usize % MAX_VCPUS]
    }

    /// The vCPU gets the processor for so many ticks.
    #[inline]
    fn run(&mut self, vcpu: u16, ticks: u64) -> Decision {
        let has_it = self.running.is_some_and(|running| running.vcpu == vcpu);
        self.switches[usize::from(vcpu) % MAX_VCPUS] += u64::from(!has_it);
        let end = self.now.wrapping_add(ticks);
        self.running = Some(Running { vcpu, payer: vcpu, woken: false, turn: self.calendar.begin(), end });
        self.run_until(vcpu, end)
    }

    /// The running vCPU, whose request ends at `end`, runs on.
    #[inline]
    fn run_until(&mut self, vcpu: u16, end: u64) -> Decision {
        // Who is alone need not ask again, unless others pay their debts meanwhile.
        let end = if self.calendar.is_empty() && !self.is_watched() { u64::MAX } else { end };
        Decision::Run { vcpu, until: end.min(self.next_alarm) }
    }

    #[cold]
    fn nobody_ready(&mut self) -> Decision {
        // Nobody is left to whom anything is owed: the clock, a mean of debtors only, would find out with more work.
        self.running = None;
        self.clock.forgive();
        if self.alive == 0 { Decision::AllStopped } else { Decision::Idle { until: self.next_alarm } }
    }

    /// The vCPU gets the processor, for the first time since it was woken.
    #[inline]
    pub(crate) fn first_turn(&mut self, vcpu: u16) {
        let now = self.now;
        let entry = self.entry_mut(vcpu);
        let waited = now.saturating_sub(entry.woken_at);
        entry.counters.wake_latency += waited;
        entry.counters.longest_wake = entry.counters.longest_wake.max(waited);
    }
}
