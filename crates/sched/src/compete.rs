//! Who takes part in the competition for a processor, and what its clock shows.

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
        let virtual_now = self.virtual_now.after(self.competing.span(used));
        match self.lines.first_debtor() {
            Some(debtor) if self.lines.start(debtor) <= virtual_now => self.pay_debts(used),
            _ => self.virtual_now = virtual_now,
        }
    }

    /// Lets the clock go on for `used` ticks of the processor, in which debts are paid: from each of them on there is
    /// less weight. Apart from the rest, so that a decision without debts keeps no registers for it.
    #[cold]
    #[inline(never)]
    fn pay_debts(&mut self, used: u64) {
        let mut left = Work::of(used);
        while let Some(vcpu) = self.lines.first_debtor() {
            let paid = self.lines.start(vcpu);
            let until_paid = self.competing.work(paid.ahead_of(self.virtual_now));
            let Some(after) = left.without(until_paid) else { break };
            left = after;
            self.virtual_now = self.virtual_now.max(paid);
            self.debtors &= !bit(vcpu);
            self.lines.owes_nothing(vcpu);
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
        self.pay_debts(0);
    }

    /// The vCPU stands in line from now on, up to which time is charged: with what it still owes, without what it was owed.
    pub(crate) fn compete(&mut self, vcpu: u16, request: Request) {
        let now = self.now;
        let entry = self.entry_mut(vcpu);
        entry.counters.waited = entry.counters.waited.wrapping_sub(now);
        if self.debtors & bit(vcpu) == 0 {
            *self.lines.start_mut(vcpu) = self.virtual_now;
            self.competing = Pace::new(self.competing.weight() + u64::from(self.entry(vcpu).member.weight));
            self.stand_in_line(vcpu, request);
        } else {
            self.debtors &= !bit(vcpu);
            self.lines.owes_nothing(vcpu);
            self.stand_in_line(vcpu, Request::Late);
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
            self.lines.owes(vcpu);
        } else {
            self.compete_less(vcpu);
        }
    }

    /// Ends the turn of the running vCPU, before its request is used up: whose request it was stands in line again.
    pub(crate) fn put_back(&mut self) {
        if let Some(running) = self.running.take() {
            self.ends(running.vcpu);
            let left = running.end.saturating_sub(self.now);
            self.lines.put(running.payer, self.lines.after_cut(running.line, left));
        }
    }

    pub(crate) fn stand_in_line(&mut self, vcpu: u16, request: Request) {
        let line = self.entry(vcpu).line;
        self.lines.put(vcpu, line | request as u8);
    }

    /// The vCPU, which is ready, gets the processor.
    #[inline]
    pub(crate) fn starts(&mut self, vcpu: u16) {
        let now = self.now;
        let entry = self.entry_mut(vcpu);
        entry.counters.waited = entry.counters.waited.wrapping_add(now);
        entry.counters.ran = entry.counters.ran.wrapping_sub(now);
        entry.counters.switches += 1;
        if entry.mark != Mark::None {
            entry.first_turn(now);
        }
    }

    /// The vCPU loses the processor, and is ready.
    #[inline]
    pub(crate) fn ends(&mut self, vcpu: u16) {
        let now = self.now;
        let entry = self.entry_mut(vcpu);
        entry.counters.ran = entry.counters.ran.wrapping_add(now);
        entry.counters.waited = entry.counters.waited.wrapping_sub(now);
    }

    /// The vCPU, which is ready and does not run, is ready no more.
    #[inline]
    pub(crate) fn rests(&mut self, vcpu: u16) {
        let now = self.now;
        let entry = self.entry_mut(vcpu);
        entry.counters.waited = entry.counters.waited.wrapping_add(now);
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
    fn first_turn(&mut self, now: u64) {
        if core::mem::replace(&mut self.mark, Mark::None) == Mark::Woken {
            let waited = now - self.woken_at;
            self.counters.wake_latency += waited;
            self.counters.longest_wake = self.counters.longest_wake.max(waited);
        }
    }
}
