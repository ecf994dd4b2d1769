//! Who takes part in the competition for a processor, and what its clock shows.

use crate::Set;
use crate::lines::Request;
use crate::member::bit;
use crate::run_queue::{Entry, Mark, RunQueue};
use crate::virtual_time::{Pace, VirtualTime, Work};

impl RunQueue {
    /// It is `now`, or as late as it was when it was later: accounts for what has been used up to here, in the payer's
    /// service and in the clock that all are measured by.
    #[inline]
    pub(crate) fn charge(&mut self, now: u64) {
        let before = self.now;
        self.now = before.max(now);
        let Some(running) = &self.running else { return };
        let used = self.now - before;
        let pace = self.lines.pace(running.line);
        let start = self.lines.start_mut(running.payer);
        *start = start.after(pace.span(used));
        if self.debtors == 0 {
            self.virtual_now = self.virtual_now.after(self.competing.span(used));
        } else {
            self.advance(used);
        }
    }

    /// Lets the clock go on for `used` ticks of the processor, while some are in debt. Whose debt is paid on the way
    /// leaves there. Apart from the rest, so that a decision without debtors keeps no registers for it.
    #[cold]
    #[inline(never)]
    fn advance(&mut self, used: u64) {
        let mut left = Work::of(used);
        while let Some((vcpu, paid)) = self.first_debt() {
            let until_paid = self.competing.work(paid.ahead_of(self.virtual_now));
            let Some(after) = left.without(until_paid) else { break };
            left = after;
            self.virtual_now = self.virtual_now.max(paid);
            self.debtors &= !bit(vcpu);
            self.compete_less(vcpu);
        }
        self.virtual_now = self.virtual_now.after(self.competing.span_of(left));
    }

    fn compete_less(&mut self, vcpu: u16) {
        self.competing = Pace::new(self.competing.weight() - u64::from(self.entry(vcpu).member.weight));
    }

    /// Lets the clock jump to where somebody may start.
    #[cold]
    pub(crate) fn skip_to(&mut self, time: VirtualTime) {
        self.virtual_now = time;
        self.advance(0);
    }

    /// The vCPU stands in line from now on, up to which time is charged: with what it still owes, without what it was owed.
    pub(crate) fn compete(&mut self, vcpu: u16, request: Request) {
        self.entry_mut(vcpu).since = self.now;
        if self.debtors & bit(vcpu) == 0 {
            *self.lines.start_mut(vcpu) = self.virtual_now;
            self.competing = Pace::new(self.competing.weight() + u64::from(self.entry(vcpu).member.weight));
            self.stand_in_line(vcpu, request);
        } else {
            self.debtors &= !bit(vcpu);
            self.stand_in_line(vcpu, Request::Whole);
        }
    }

    /// Takes a vCPU out of its line, if it stands in one, and out of the competition.
    pub(crate) fn withdraw(&mut self, vcpu: u16) {
        if self.lines.everybody().has(vcpu) {
            self.lines.take(vcpu);
            self.retire(vcpu);
        }
    }

    /// The vCPU, which stands in no line, competes no more; whoever is in debt stays until that is paid.
    #[inline]
    pub(crate) fn retire(&mut self, vcpu: u16) {
        if self.lines.start(vcpu) > self.virtual_now {
            self.debtors |= bit(vcpu);
        } else {
            self.compete_less(vcpu);
        }
    }

    /// Ends the turn of the running vCPU: whose request it was stands in line again.
    #[inline]
    pub(crate) fn put_back(&mut self) {
        let Some(running) = self.running.take() else { return };
        self.ends(running.vcpu);
        self.lines.put(running.payer, running.line);
    }

    pub(crate) fn stand_in_line(&mut self, vcpu: u16, request: Request) {
        let line = self.entry(vcpu).line;
        self.lines.put(vcpu, line + u8::from(request == Request::Short));
    }

    /// The vCPU gets the processor.
    #[inline]
    pub(crate) fn starts(&mut self, vcpu: u16) {
        let now = self.now;
        let entry = self.entry_mut(vcpu);
        let waited = now - entry.since;
        entry.since = now;
        entry.counters.waited += waited;
        entry.counters.switches += 1;
        if entry.mark != Mark::None {
            entry.first_turn(waited);
        }
    }

    /// The vCPU loses the processor.
    #[inline]
    pub(crate) fn ends(&mut self, vcpu: u16) {
        let now = self.now;
        let entry = self.entry_mut(vcpu);
        entry.counters.ran += now - entry.since;
        entry.since = now;
    }

    /// Who in debt will have paid first, and when that is.
    fn first_debt(&self) -> Option<(u16, VirtualTime)> {
        let mut debts = Set(self.debtors).iter().map(|vcpu| (vcpu, self.lines.start(vcpu)));
        let first = debts.next()?;
        Some(debts.fold(first, |first, other| if other.1 < first.1 { other } else { first }))
    }

    #[inline]
    pub(crate) const fn entry(&self, vcpu: u16) -> &Entry {
        &self.entries[vcpu as usize % crate::MAX_VCPUS]
    }

    #[inline]
    pub(crate) const fn entry_mut(&mut self, vcpu: u16) -> &mut Entry {
        &mut self.entries[vcpu as usize % crate::MAX_VCPUS]
    }
}

impl Entry {
    #[cold]
    fn first_turn(&mut self, waited: u64) {
        if core::mem::replace(&mut self.mark, Mark::None) == Mark::Woken {
            self.counters.wake_latency += waited;
            self.counters.longest_wake = self.counters.longest_wake.max(waited);
        }
    }
}
