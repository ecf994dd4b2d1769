//! A vCPU that spins lends its time to one that may hold the lock.

use crate::member::State;
use crate::run_queue::{RunQueue, SPUN, WOKEN};
use crate::{MAX_VCPUS, Migrant};

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
        self.note(vcpu, SPUN);
        let others =
            self.calendar.everybody().iter().filter(|&other| other != vcpu && self.entry(other).member.vm == vm);
        let helped = others.map(|other| (self.is_noted(other, SPUN), other.wrapping_sub(vcpu + 1) & 63, other));
        let Some((_, _, helped)) = helped.min() else {
            self.put_back();
            self.yields(vcpu);
            return false;
        };
        let Some(running) = &mut self.running else { return false };
        running.vcpu = helped;
        running.woken = false;
        self.switches[usize::from(helped) % MAX_VCPUS] += 1;
        self.strike(helped, SPUN);
        if self.strike(helped, WOKEN) {
            self.first_turn(helped);
        }
        true
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
        let runs = self.running();
        let mut waiting = self.calendar.in_order().filter(|&vcpu| Some(vcpu) != runs);
        waiting.find(|&vcpu| self.entry(vcpu).member.allowed.has(there))
    }

    /// Takes the [candidate](Self::candidate) for processor `there` away. What it owes here is remembered.
    pub fn take(&mut self, there: u16, now: u64) -> Option<Migrant> {
        self.charge(now);
        let vcpu = self.candidate(there)?;
        self.entry_mut(vcpu).counters.migrations += 1;
        let counters = self.counters(vcpu);
        let woken_at = self.strike(vcpu, WOKEN).then_some(self.entry(vcpu).woken_at);
        self.withdraw(vcpu);
        self.alive -= 1;
        let entry = self.entry_mut(vcpu);
        entry.state = None;
        Some(Migrant { member: entry.member, counters, woken_at })
    }

    /// Adds a vCPU that was taken from another queue. It may run here, so that there is room: no error but those of
    /// [`Self::add`], which it passed before. One that is already here stays as it is.
    pub fn receive(&mut self, migrant: Migrant, now: u64) {
        let Migrant { member, counters, woken_at } = migrant;
        if self.state(member.vcpu).is_some() || self.add(member, State::Ready, now).is_err() {
            return;
        }
        let (number, now) = (usize::from(member.vcpu) % MAX_VCPUS, self.now);
        (self.ran[number], self.switches[number]) = (counters.ran, counters.switches);
        let entry = self.entry_mut(member.vcpu);
        entry.ready = counters.ran.wrapping_add(counters.waited).wrapping_sub(now);
        entry.counters = counters;
        if let Some(woken_at) = woken_at {
            entry.woken_at = woken_at;
            self.note(member.vcpu, WOKEN);
        }
    }

    /// Whether somebody waits for the processor.
    #[inline]
    #[must_use]
    pub const fn has_waiting(&self) -> bool {
        !self.calendar.is_empty()
    }
}
