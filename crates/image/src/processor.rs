//! What one processor does once the guests are made: runs the vCPUs in its queue, gives those away that another one has room
//! for, and halts when none can run.

use hw::lock::Lock;
use hw::vmx::CurrentVmcs;
use hw::{apic, halt, tsc};
use sched::{Decision, RunQueue, Wake};
use vcpu::{Left, Stop};

use crate::resident::Resident;
use crate::scheduler::{Scheduler, here, signals};
use crate::{console, dump, end, run};

/// One processor at work.
struct Processor {
    all: &'static Scheduler,
    queue: &'static Lock<RunQueue>,
    number: u16,
    /// What the others were told of its queue: somebody stands in line.
    has_waiting: bool,
    /// The vCPU whose registers and VMCS are in this processor.
    loaded: Option<u16>,
}

/// Runs what is in this processor's queue until the last virtual machine has ended.
pub(crate) fn run(all: &'static Scheduler) -> ! {
    let mut processor = Processor { all, queue: all.queue(here()), number: here(), has_waiting: false, loaded: None };
    while !end::is_ending() {
        processor.look();
        let decision = processor.decide();
        match decision {
            Decision::Run { vcpu, until } => processor.run(vcpu, until),
            Decision::Idle { until } => processor.idle(until),
            Decision::AllStopped => processor.idle(u64::MAX),
        }
        let deadline = console::deadline();
        if deadline != u64::MAX && deadline <= tsc::now() {
            console::pump();
        }
    }
    halt::forever()
}

impl Processor {
    /// Sees to those who were woken.
    fn look(&self) {
        // The kick first: one that comes later belongs to bits that are not taken yet.
        halt::take();
        if !signals().has_woken(self.number) {
            return;
        }
        for vcpu in signals().take_woken(self.number).iter() {
            let woken = self.queue.lock().wake(vcpu, tsc::now());
            if woken == Wake::Elsewhere {
                crate::scheduler::wake(vcpu);
            } else if crate::scheduler::take_asked(vcpu) {
                // SAFETY: it is in this processor's queue.
                let resident = unsafe { self.all.resident(vcpu) };
                if let Some(resident) = resident.filter(|resident| resident.guest.vm.stop().is_none()) {
                    let counters = self.all.queue(self.number).lock().counters(vcpu);
                    resident.account(self.all.guests.len() > 1, &counters);
                }
            }
        }
    }

    /// Who is next; who must wait for that goes to an idle processor, if there is one.
    fn decide(&mut self) -> Decision {
        let mut queue = self.queue.lock();
        let decision = queue.next(tsc::now());
        let waiting = queue.has_waiting();
        if waiting != self.has_waiting {
            self.has_waiting = waiting;
            signals().set_waiting(self.number, waiting);
        }
        drop(queue);
        if waiting {
            for idle in signals().idle().iter() {
                self.give(idle);
            }
        }
        decision
    }

    /// Gives a vCPU that waits here to the processor `to`, if there is one that may run there.
    #[cold]
    fn give(&mut self, to: u16) {
        let mut queue = self.queue.lock();
        let Some(migrant) = queue.take(to, tsc::now()) else { return };
        self.has_waiting = queue.has_waiting();
        signals().set_waiting(self.number, self.has_waiting);
        drop(queue);
        let vcpu = migrant.member.vcpu;
        // SAFETY: it was just taken out of this processor's queue.
        if let Some(resident) = unsafe { self.all.resident(vcpu) } {
            // SAFETY: nobody else was loaded since it ran here.
            unsafe { resident.leave_processor(self.loaded == Some(vcpu)) };
        }
        if self.loaded == Some(vcpu) {
            self.loaded = None;
        }
        self.all.queue(to).lock().receive(migrant, tsc::now());
        signals().moves(vcpu, to);
        apic::kick(to.into());
    }

    /// Runs `vcpu` until it gives the processor back, at the latest at `until`.
    fn run(&mut self, vcpu: u16, until: u64) {
        // SAFETY: it is in this processor's queue.
        let Some(resident) = (unsafe { self.all.resident(vcpu) }) else { return };
        let is_loaded = self.loaded == Some(vcpu);
        let mut has_saved = false;
        if !is_loaded {
            // SAFETY: as above, and it is another one: `loaded` is only set for vCPUs of this queue.
            if let Some(before) = self.loaded.and_then(|before| unsafe { self.all.resident(before) }) {
                // SAFETY: its registers are still in this processor: nobody else was loaded since.
                unsafe { before.save() };
                has_saved = true;
            }
            self.loaded = Some(vcpu);
        }
        // The boot processor sees to the console and to the watchdog.
        let until = if self.number == 0 { until.min(console::deadline()) } else { until };
        let left = resident.run(!is_loaded, has_saved, until);
        if left == Left::SliceOver {
            // The queue says who runs on when it is asked.
            return;
        }
        let now = tsc::now();
        let queue = self.queue;
        match left {
            Left::SliceOver => {}
            Left::Spins => _ = queue.lock().spins(vcpu, now),
            Left::Halted { deaf } => {
                resident.leave_place();
                queue.lock().halted(vcpu, resident.deadline(), now);
                if resident.waits(deaf) {
                    // SAFETY: the VMCS that just ran is still current, and no other value for it lives.
                    dump::guest(&resident.vcpu, &unsafe { CurrentVmcs::assume() });
                }
                self.look_again(resident, vcpu);
            }
            Left::WaitsForSipi => {
                resident.leave_place();
                queue.lock().waits_for_sipi(vcpu, now);
                resident.waits(true);
                self.look_again(resident, vcpu);
            }
            Left::Stop(stop) => self.stopped(resident, vcpu, stop),
        }
    }

    /// Now that the queue and all who wake know that `vcpu` sleeps: what came before they did?
    fn look_again(&self, resident: &Resident, vcpu: u16) {
        if resident.has_reason_to_wake() {
            self.queue.lock().wake(vcpu, tsc::now());
        }
    }

    /// `vcpu` never runs again.
    #[cold]
    fn stopped(&mut self, resident: &mut Resident, vcpu: u16, stop: Stop) {
        let guest = resident.guest;
        guest.vm.end(stop);
        self.queue.lock().stopped(vcpu, tsc::now());
        resident.account(self.all.guests.len() > 1, &self.queue.lock().counters(vcpu));
        // SAFETY: it was the last one to run here. Its registers are of no use any more.
        unsafe { resident.leave_processor(false) };
        self.loaded = None;
        if guest.vm.vcpu_stopped() {
            run::virtual_machine_ended(self.all, guest);
        }
    }

    /// Halts until something may have happened: a kick, or the next deadline of a vCPU or of the console.
    fn idle(&self, until: u64) {
        signals().set_idle(self.number, true);
        for other in signals().waiting().iter().filter(|&other| other != self.number) {
            let candidate = self.all.queue(other).lock().candidate(self.number);
            // It can only be cleared where it is: that processor hands it over.
            if let Some(vcpu) = candidate
                && signals().wake(vcpu, other)
            {
                apic::kick(other.into());
            }
        }
        let deadline = until.min(console::deadline());
        if deadline > tsc::now() {
            if deadline != u64::MAX {
                apic::arm(deadline);
            }
            halt::wait();
            if deadline != u64::MAX {
                apic::disarm();
            }
        }
        signals().set_idle(self.number, false);
    }
}
