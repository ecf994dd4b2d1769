//! When those who halt want to be woken.

use crate::member::{MAX_VCPUS, small};
use crate::run_queue::RunQueue;

/// Those who sleep with an alarm, a ring in the order of their times: by vCPU, and behind them the place before the first and after the
/// last. So the next one is known at every decision, and one in the middle is soon cancelled.
#[derive(Clone, Debug)]
pub(crate) struct Alarms([Link; PLACES]);

/// Between whom one sleeps.
#[derive(Clone, Copy, Debug)]
struct Link {
    next: u8,
    previous: u8,
}

/// As many as a `u8` can name, so that no index is out of range.
const PLACES: usize = 1 << u8::BITS;
const OWN: u8 = small(MAX_VCPUS);

impl Alarms {
    /// Nobody sleeps.
    pub(crate) const fn new() -> Self {
        Self([Link { next: OWN, previous: OWN }; PLACES])
    }
}

impl RunQueue {
    /// `vcpu`, which has halted, is to be woken at `time`; `u64::MAX` for never.
    pub(crate) fn set_alarm(&mut self, vcpu: u16, time: u64) {
        self.entry_mut(vcpu).alarm = time;
        if time == u64::MAX {
            return;
        }
        let mut previous = self.alarms.0[usize::from(OWN)].previous;
        while previous != OWN && self.entry(previous.into()).alarm > time {
            previous = self.alarms.0[usize::from(previous)].previous;
        }
        let next = self.alarms.0[usize::from(previous)].next;
        self.alarms.0[usize::from(place(vcpu))] = Link { next, previous };
        self.alarms.0[usize::from(previous)].next = place(vcpu);
        self.alarms.0[usize::from(next)].previous = place(vcpu);
        self.next_alarm = self.next_alarm.min(time);
    }

    /// `vcpu` needs its alarm no more, if it has one.
    pub(crate) fn cancel_alarm(&mut self, vcpu: u16) {
        if core::mem::replace(&mut self.entry_mut(vcpu).alarm, u64::MAX) != u64::MAX {
            let Link { next, previous } = self.alarms.0[usize::from(place(vcpu))];
            self.alarms.0[usize::from(previous)].next = next;
            self.alarms.0[usize::from(next)].previous = previous;
            self.next_alarm = self.first_alarm().map_or(u64::MAX, |first| self.entry(first).alarm);
        }
    }

    /// Wakes all whose alarm has come.
    #[cold]
    #[inline(never)]
    pub(crate) fn ring(&mut self, now: u64) {
        while let Some(vcpu) = self.first_alarm()
            && self.entry(vcpu).alarm <= now
        {
            self.wake(vcpu, now);
        }
    }

    /// Whose alarm comes next.
    fn first_alarm(&self) -> Option<u16> {
        Some(self.alarms.0[usize::from(OWN)].next).filter(|&first| first != OWN).map(u16::from)
    }
}

/// The place of a vCPU.
const fn place(vcpu: u16) -> u8 {
    small(vcpu as usize % MAX_VCPUS)
}
