//! Who takes part in the competition for a processor, and how far it has come.

use crate::Set;
use crate::member::bit;
use crate::run_queue::{RunQueue, SHORT};
use crate::virtual_time::{Pace, VirtualTime};

/// More ticks than this at a time are not charged, and no slice is longer. A vCPU may have run alone for days, and nobody is there to
/// compare with.
const LONGEST: u64 = 1 << 30;
/// How far a sum of starts may grow before the clock's origin is moved. Sixty-four who are ahead by the longest slice and as much late
/// add twice that.
const FAR: i64 = 1 << 60;

/// What a queue's clock shows is the mean of the starts of all who compete, each counted as often as its weight. Whatever anybody uses
/// moves that mean at the right rate, so it need not be known before somebody joins.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    /// From where starts are measured.
    origin: VirtualTime,
    /// Those who are ready.
    ready: Sum,
    /// Those who are ready no more, but were when the clock was last read, or have had more than their share and were not yet seen to
    /// have paid for it.
    gone: Sum,
    pub(crate) debtors: u64,
    /// The last one of their starts, while there are any.
    last_debt: VirtualTime,
}

/// Some who compete.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Sum {
    /// Of starts from the origin on, each times its weight.
    starts: i64,
    weight: i64,
}

impl Sum {
    const NONE: Self = Self { starts: 0, weight: 0 };

    /// With one more, whose start is `offset` from the origin.
    const fn with(self, pace: Pace, offset: i64) -> Self {
        Self {
            starts: self.starts.wrapping_add(pace.weight().wrapping_mul(offset)),
            weight: self.weight + pace.weight(),
        }
    }

    const fn without(self, pace: Pace, offset: i64) -> Self {
        Self {
            starts: self.starts.wrapping_sub(pace.weight().wrapping_mul(offset)),
            weight: self.weight - pace.weight(),
        }
    }

    const fn and(self, other: Self) -> Self {
        Self { starts: self.starts.wrapping_add(other.starts), weight: self.weight + other.weight }
    }

    /// The same, from an origin that is `span` later.
    const fn moved(self, span: i64) -> Self {
        Self { starts: self.starts.wrapping_sub(self.weight.wrapping_mul(span)), ..self }
    }
}

impl Clock {
    /// Nobody competes.
    pub(crate) const NEW: Self =
        Self { origin: VirtualTime::ZERO, ready: Sum::NONE, gone: Sum::NONE, debtors: 0, last_debt: VirtualTime::ZERO };

    /// Of a start, from the origin on.
    const fn offset(&self, start: VirtualTime) -> i64 {
        start.since(self.origin).cast_signed()
    }

    const fn move_origin(&mut self, span: i64) {
        self.origin = self.origin.after(span.cast_unsigned());
        self.ready = self.ready.moved(span);
        self.gone = self.gone.moved(span);
    }

    /// Whether the origin must [come near](RunQueue::come_near) before somebody runs.
    #[inline]
    pub(crate) const fn is_far(&self) -> bool {
        self.ready.starts > FAR
    }

    /// Nobody who is gone owes anything.
    pub(crate) const fn forgive(&mut self) {
        self.gone = Sum::NONE;
        self.debtors = 0;
    }
}

impl RunQueue {
    /// It is `now`, or as late as it was when it was later: accounts for what has been used up to here, in the payer's service.
    #[inline]
    pub(crate) fn charge(&mut self, now: u64) {
        let before = self.now;
        self.now = before.max(now);
        let Some(running) = &self.running else { return };
        let used = self.now - before;
        let ran = &mut self.ran[running.vcpu as usize % crate::MAX_VCPUS];
        *ran = ran.wrapping_add(used);
        let pace = self.pace(running.payer);
        let span = pace.span(used.min(LONGEST));
        let start = self.calendar.start_mut(running.payer);
        *start = start.after(span);
        let starts = &mut self.clock.ready.starts;
        *starts = starts.wrapping_add(pace.weight().wrapping_mul(span.cast_signed()));
    }

    /// The clock's origin comes to where the calendar begins, unless somebody has a debt beyond that, which is soon paid.
    pub(crate) fn come_near(&mut self) {
        let begin = self.calendar.begin();
        if self.clock.last_debt <= begin {
            // All who are ready start there or later, and so the clock shows no less.
            self.clock.forgive();
        }
        if self.clock.debtors == 0 {
            self.clock.move_origin(self.clock.offset(begin));
        } else if self.clock.ready.starts > 2 * FAR {
            self.virtual_now();
        }
    }

    /// What the clock shows, which is from now on its origin: of those who are gone it has seen who has paid.
    ///
    /// Somebody who is gone has paid when the clock has come to its start. From then on it makes no difference whether it was
    /// still counted before, since the mean of some numbers and one that is equal to it is that of the others alone.
    #[inline(never)]
    pub(crate) fn virtual_now(&mut self) -> VirtualTime {
        loop {
            let Sum { starts, weight } = self.clock.ready.and(self.clock.gone);
            let Some(mean) = starts.checked_div_euclid(weight) else { return self.clock.origin };
            self.clock.move_origin(mean);
            let now = self.clock.origin;
            let debtors = Set(self.clock.debtors);
            let paid = debtors.iter().filter(|&vcpu| self.calendar.start(vcpu) <= now);
            let paid = Set(paid.fold(0, |paid, vcpu| paid | bit(vcpu)));
            if paid == Set::NONE {
                return now;
            }
            paid.iter().for_each(|vcpu| self.forget(vcpu));
        }
    }

    /// One who is gone is not counted any more.
    fn forget(&mut self, vcpu: u16) {
        let offset = self.clock.offset(self.calendar.start(vcpu));
        self.clock.gone = self.clock.gone.without(self.pace(vcpu), offset);
        self.clock.debtors &= !bit(vcpu);
    }

    /// The vCPU is ready from now on, up to which time is charged, and waits: with what it still owes, or else for a short request if
    /// `is_woken`.
    pub(crate) fn compete(&mut self, vcpu: u16, is_woken: bool) {
        let now = self.now;
        let entry = self.entry_mut(vcpu);
        entry.ready = entry.ready.wrapping_sub(now);
        let virtual_now = self.virtual_now();
        let is_in_debt = self.clock.debtors & bit(vcpu) != 0;
        if is_in_debt {
            self.forget(vcpu);
        } else {
            *self.calendar.start_mut(vcpu) = virtual_now;
        }
        let start = self.calendar.start(vcpu);
        self.clock.ready = self.clock.ready.with(self.pace(vcpu), self.clock.offset(start));
        let is_short = is_woken && !is_in_debt;
        let turn = if is_short { self.calendar.turn_of_short(start) } else { start };
        if is_short {
            self.note(vcpu, SHORT);
        }
        self.wait(vcpu, turn);
    }

    /// The vCPU waits for its turn at `turn`.
    fn wait(&mut self, vcpu: u16, turn: VirtualTime) {
        if self.calendar.is_empty() {
            // Whoever runs will wait there too.
            let other = self.running.as_ref().map_or(turn, |running| self.calendar.start(running.payer));
            self.calendar.begin_at(turn.min(other));
        }
        self.calendar.put_at(vcpu, turn);
    }

    /// Takes a vCPU, which is ready and does not pay for who is running, out of the competition.
    pub(crate) fn withdraw(&mut self, vcpu: u16) {
        self.calendar.take(vcpu);
        self.strike(vcpu, SHORT);
        self.retire(vcpu);
    }

    /// The vCPU, which was ready and does not wait, is ready no more. What it owes is remembered; what it was owed is gone.
    pub(crate) fn retire(&mut self, vcpu: u16) {
        let now = self.now;
        let entry = self.entry_mut(vcpu);
        entry.ready = entry.ready.wrapping_add(now);
        let (pace, start) = (self.pace(vcpu), self.calendar.start(vcpu));
        let clock = &mut self.clock;
        let offset = clock.offset(start);
        clock.ready = clock.ready.without(pace, offset);
        clock.gone = clock.gone.with(pace, offset);
        clock.last_debt = if clock.debtors == 0 { start } else { clock.last_debt.max(start) };
        clock.debtors |= bit(vcpu);
        if clock.gone.starts > FAR {
            self.virtual_now();
        }
    }

    /// Ends the turn of the running vCPU: whose request it was waits again.
    #[inline]
    pub(crate) fn put_back(&mut self) {
        if let Some(running) = self.running.take() {
            self.wait(running.payer, self.calendar.start(running.payer));
        }
    }

    /// One who waits lets those go first who may start.
    pub(crate) fn yields(&mut self, vcpu: u16) {
        self.calendar.take(vcpu);
        self.strike(vcpu, SHORT);
        let now = self.virtual_now();
        let start = self.calendar.start(vcpu);
        if start < now {
            let given_up = self.pace(vcpu).weight().wrapping_mul(now.since(start).cast_signed());
            self.clock.ready.starts = self.clock.ready.starts.wrapping_add(given_up);
            *self.calendar.start_mut(vcpu) = now;
        }
        self.wait(vcpu, self.calendar.start(vcpu).max(self.calendar.turn_after(now)));
    }

    /// Nobody waits beside the running vCPU, which pays for itself: whether anybody has debts to pay meanwhile.
    pub(crate) fn is_watched(&mut self) -> bool {
        let Some(running) = &self.running else { return false };
        // The clock shows its start, or more.
        if self.clock.debtors != 0 && self.clock.last_debt <= self.calendar.start(running.payer) {
            self.clock.forgive();
        }
        self.clock.debtors != 0
    }

    #[inline]
    pub(crate) const fn pace(&self, vcpu: u16) -> Pace {
        self.paces[vcpu as usize % crate::MAX_VCPUS]
    }

    /// The sums are those of the ready and of the debtors, and who waits is ready.
    #[cfg(test)]
    pub(crate) fn check(&self) {
        self.calendar.check();
        let all = || (0..).take(crate::MAX_VCPUS);
        let is_ready = |vcpu: &u16| self.state(*vcpu) == Some(crate::State::Ready);
        let sum = |vcpus: &mut dyn Iterator<Item = u16>| {
            vcpus.fold(Sum::NONE, |sum, vcpu| sum.with(self.pace(vcpu), self.clock.offset(self.calendar.start(vcpu))))
        };
        assert_eq!(sum(&mut all().filter(is_ready)), self.clock.ready);
        assert_eq!(sum(&mut Set(self.clock.debtors).iter()), self.clock.gone);
        assert!(Set(self.clock.debtors).iter().all(|vcpu| !is_ready(&vcpu)));
        let payer = self.running.map(|running| running.payer);
        let waiting = all().filter(is_ready).filter(|&vcpu| Some(vcpu) != payer);
        assert_eq!(waiting.fold(0, |all, vcpu| all | bit(vcpu)), self.calendar.everybody().0);
        let alarms = all().filter(|&vcpu| self.state(vcpu) == Some(crate::State::Halted));
        assert_eq!(alarms.map(|vcpu| self.entry(vcpu).alarm).min().unwrap_or(u64::MAX), self.next_alarm);
    }
}
