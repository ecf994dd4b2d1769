//! A vCPU that spins lends its time to one that may hold the lock.

use crate::lines::Request;
use crate::member::{State, bit};
use crate::run_queue::{Mark, RunQueue};
use crate::{Counters, Migrant, Set};

impl RunQueue {
    /// The running vCPU has executed PAUSE in a loop: it waits for another vCPU of its VM. One of those that are ready
    /// here gets the processor for the rest of the request, at the spinning vCPU's expense, so that it costs nobody
    /// else anything; [`Self::next`] will name it. Those who do not spin themselves come first, and among equals all in
    /// turn.
    ///
    /// `false` when there is nobody: the vCPU has then only given up what it was owed.
    pub fn spins(&mut self, vcpu: u16, now: u64) -> bool {
        if !self.runs(vcpu) {
            return false;
        }
        self.charge(now);
        let vm = self.entry(vcpu).member.vm;
        self.entry_mut(vcpu).mark = Mark::Spun;
        let others = self.lines.everybody().iter().map(|other| self.entry(other));
        let others = others.filter(|other| other.member.vm == vm && other.member.vcpu != vcpu);
        let helped = others
            .map(|other| (other.mark == Mark::Spun, other.member.vcpu.wrapping_sub(vcpu + 1) & 63, other.member.vcpu));
        let Some((_, _, helped)) = helped.min() else {
            self.put_back();
            self.yields(vcpu);
            return false;
        };
        let Some(running) = &mut self.running else { return false };
        running.vcpu = helped;
        running.woken = false;
        self.ends(vcpu);
        self.starts(helped);
        true
    }

    /// A vCPU that stands in line lets those go first who may start.
    fn yields(&mut self, vcpu: u16) {
        self.lines.take(vcpu);
        let now = self.virtual_now.after(1);
        let start = self.lines.start_mut(vcpu);
        *start = (*start).max(now);
        self.stand_in_line(vcpu, Request::Early);
    }

    /// If `vcpu` has lent its request, it pays up to here, and who has the processor goes on at its own expense.
    pub(crate) fn call_back_loan(&mut self, vcpu: u16) {
        if self.running.is_some_and(|running| running.payer == vcpu && running.vcpu != vcpu) {
            self.put_back();
        }
    }

    /// Who waits here and may run on processor `there`: of several the one whose turn is next.
    #[must_use]
    pub fn candidate(&self, there: u16) -> Option<u16> {
        let busy = self.running.map_or(0, |running| bit(running.vcpu) | bit(running.payer));
        let waiting = Set(self.lines.everybody().0 & !busy).iter().map(|vcpu| self.entry(vcpu));
        let may_go = waiting.filter(|entry| entry.member.allowed.has(there));
        let next = may_go.min_by_key(|entry| self.lines.start(entry.member.vcpu).after(self.lines.length(entry.line)));
        Some(next?.member.vcpu)
    }

    /// Takes the [candidate](Self::candidate) for processor `there` away. What it owes here is remembered.
    pub fn take(&mut self, there: u16, now: u64) -> Option<Migrant> {
        self.charge(now);
        let vcpu = self.candidate(there)?;
        self.withdraw(vcpu);
        self.rests(vcpu);
        self.alive -= 1;
        let entry = self.entry_mut(vcpu);
        entry.state = None;
        entry.counters.migrations += 1;
        Some(Migrant { member: entry.member, counters: entry.counters })
    }

    /// Adds a vCPU that was taken from another queue. It may run here, so that there is room: no error but those of
    /// [`Self::add`], which it passed before.
    pub fn receive(&mut self, migrant: Migrant, now: u64) {
        if self.add(migrant.member, State::Ready, now).is_ok() {
            let waited = migrant.counters.waited.wrapping_sub(self.now);
            self.entry_mut(migrant.member.vcpu).counters = Counters { waited, ..migrant.counters };
        }
    }

    /// Whether somebody stands in line.
    #[inline]
    #[must_use]
    pub const fn has_waiting(&self) -> bool {
        !self.lines.are_empty()
    }
}
