//! The run loop of one vCPU.

use vlapic::Events;
use vmcs::Access;
use vmcs::fields::*;

use crate::blocking::interrupts_on;
use crate::cpu::Cpu;
use crate::exits::{self, Next};
use crate::state::{Activity, Vcpu};
use crate::stop::Stop;
use crate::world::World;

/// Why a vCPU gave the processor back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Left {
    /// It waits for an interrupt. `deaf` when interrupts are off: only an NMI or INIT could still wake it.
    Halted {
        /// RFLAGS.IF was clear.
        deaf: bool,
    },
    /// It waits for a start-up IPI.
    WaitsForSipi,
    /// Its slice is over, or somebody else may want the processor.
    SliceOver,
    /// It spins, and waits for another vCPU of its VM.
    Spins,
    /// The VM must stop.
    Stop(Stop),
}

/// The timer value that stands for "never": at the slowest rate of any machine some minutes, then an exit for nothing.
const TIMER_NEVER: u32 = u32::MAX;

impl Vcpu {
    /// Runs the guest until it has to leave the processor. Its VMCS is current on `cpu`.
    pub fn run<C: Cpu, W: World>(&mut self, cpu: &mut C, world: &W, slice_end: u64) -> Left {
        self.slice_end = slice_end;
        self.spins = false;
        // Whatever happened while the vCPU was away is looked at once.
        self.attention = true;
        loop {
            if self.attention || !world.mailbox().is_empty() {
                // Whoever runs on later looks at all else then.
                if (cpu.tsc() >= self.slice_end || world.wanted_elsewhere()) && self.activity == Activity::Active {
                    self.attention = true;
                    return Left::SliceOver;
                }
                if let Some(left) = self.attend(cpu, world) {
                    return left;
                }
                self.lend_apic(cpu, world);
                if cpu.take_late_kick() {
                    // Whoever sent it had not seen in the page what was lent just now.
                    self.attention = true;
                    continue;
                }
                self.calm = !self.has_event_outside_apic();
            }
            let next = if self.in_l2 {
                self.arm_timer_for_l2(cpu, world);
                if cpu.enter(&mut self.regs, self.launched02).is_err() {
                    exits::l2::refused(self, cpu, world)
                } else {
                    self.launched02 = true;
                    exits::handle_l2(self, cpu, world)
                }
            } else {
                self.arm_timer(cpu, world);
                if cpu.enter(&mut self.regs, self.launched).is_err() {
                    return Left::Stop(Stop::EntryFailed);
                }
                self.launched = true;
                exits::handle(self, cpu, world)
            };
            match next {
                Next::Resume => {}
                Next::Attend => self.attention = true,
                Next::Stop => return Left::Stop(self.stopping.take().unwrap_or(Stop::UnexpectedExit(u16::MAX))),
            }
        }
    }

    /// Everything that may have to happen before an entry. `Some` when there is none.
    pub(crate) fn attend<C: Cpu, W: World>(&mut self, cpu: &mut C, world: &W) -> Option<Left> {
        self.attention = false;
        let now = cpu.tsc();
        if now >= world.deadline() {
            world.tick(now);
        }
        if now >= self.deadline {
            self.apic.registers().tick(now.wrapping_add(self.tsc_offset));
        }
        let mut startup = None;
        if self.init_latched || !world.mailbox().is_empty() || cpu.take_late_kick() {
            startup = match self.take_mail(cpu, world) {
                Ok(startup) => startup,
                Err(left) => return Some(left),
            };
            // A kick that was taken late may have been for this.
            if self.activity == Activity::Active && world.wanted_elsewhere() {
                self.attention = true;
                return Some(Left::SliceOver);
            }
        }
        if let Some(stop) = world.stop() {
            return Some(Left::Stop(stop));
        }
        self.deadline = self.machine_time(now, self.apic.settings().deadline());
        self.sample_pic(world);
        if self.in_l2 {
            return self.attend_l2(cpu, world, now, startup);
        }
        match self.activity {
            Activity::Active => {}
            Activity::WaitForSipi => {
                self.attention = true;
                return Some(Left::WaitsForSipi);
            }
            Activity::Halted if self.wakes(cpu) => self.activity = Activity::Active,
            Activity::Halted => {
                return Some(Left::Halted { deaf: !interrupts_on(cpu.vmcs()) });
            }
        }
        if self.spins {
            self.attention = true;
            return Some(Left::Spins);
        }
        // With delivery by the processor there is less to inject.
        self.lend_apic(cpu, world);
        self.inject(cpu, world);
        None
    }

    /// A point of the guest's time in machine TSC, seen from `now`; what has passed is due at once.
    fn machine_time(&self, now: u64, guest_time: u64) -> u64 {
        let guest_now = now.wrapping_add(self.tsc_offset);
        if guest_time == u64::MAX { u64::MAX } else { now.saturating_add(guest_time.saturating_sub(guest_now)) }
    }

    /// What others posted: interrupts into the APIC, NMI, INIT and start-up IPIs. A start-up IPI that L2 may have to meet is
    /// returned.
    #[inline(never)]
    fn take_mail<C: Cpu, W: World>(&mut self, cpu: &mut C, world: &W) -> Result<Option<u8>, Left> {
        let mailbox = world.mailbox();
        if let Some(vector) = mailbox.take_for_l2() {
            self.notified_for_l2(cpu, world, vector);
        }
        let mut events = if mailbox.is_empty() { Events::NONE } else { self.apic.registers().drain(mailbox) };
        while cpu.take_late_kick() {
            // What it was for is looked at after this, but for mail.
            events = events.then(self.apic.registers().drain(mailbox));
        }
        self.nmi_pending |= events.nmi;
        self.extint_message |= events.extint;
        self.init_latched |= events.init;
        // VMX root operation blocks INIT until VMXOFF, and L2 meets it as an exit (SDM 3C 24.8 "Restrictions on VMX Operation").
        if self.init_latched && !self.nested.as_ref().is_some_and(|nested| nested.in_vmx_operation()) {
            self.init_latched = false;
            if self.bootstrap {
                return Err(Left::Stop(Stop::BootstrapInit));
            }
            self.init(cpu);
            world.published(self.apic.settings().identity());
        }
        if self.activity == Activity::WaitForSipi
            && !self.in_l2
            && let Some(page) = events.startup
        {
            self.start_at_page(cpu, page);
        }
        Ok(events.startup)
    }

    /// Makes the VMX-preemption timer end the guest's run at the next deadline.
    ///
    /// The field is loaded anew at every entry, so while something is due it is written before every entry.
    #[inline(always)]
    fn arm_timer<C: Cpu, W: World>(&mut self, cpu: &mut C, world: &W) {
        let deadline = self.own_deadline(cpu, world);
        if deadline == u64::MAX {
            if self.timer_armed {
                self.timer_armed = false;
                cpu.vmcs().write(VMX_PREEMPTION_TIMER_VALUE, TIMER_NEVER);
            }
            return;
        }
        self.timer_armed = true;
        // The timer ticks when bit `timer_shift` of the TSC changes, so one more tick than fits is never early.
        let ticks = (deadline.saturating_sub(cpu.tsc()) >> self.timer_shift) + 1;
        #[expect(clippy::cast_possible_truncation, reason = "bounded by the line before")]
        let ticks = ticks.min(u64::from(TIMER_NEVER)) as u32;
        cpu.vmcs().write(VMX_PREEMPTION_TIMER_VALUE, ticks);
    }
}

impl Vcpu {
    /// When L0 wants the processor back.
    #[inline(always)]
    fn own_deadline<C: Cpu, W: World>(&self, cpu: &mut C, world: &W) -> u64 {
        let deadline = self.deadline.min(world.deadline()).min(self.slice_end);
        match self.kick_patience {
            None => deadline,
            Some(patience) => deadline.min(cpu.tsc().saturating_add(patience)),
        }
    }

    /// The same for vmcs02, whose timer is L0's and L1's: L1's ends to the tick, and at once when it begins at 0.
    fn arm_timer_for_l2<C: Cpu, W: World>(&mut self, cpu: &mut C, world: &W) {
        let own = self.own_deadline(cpu, world);
        let l1 = self.nested.as_ref().map_or(u64::MAX, |nested| nested.timer_deadline());
        if own == u64::MAX && l1 == u64::MAX && !self.leaves_l2_at_once {
            if self.timer02_armed {
                self.timer02_armed = false;
                cpu.vmcs().write(VMX_PREEMPTION_TIMER_VALUE, TIMER_NEVER);
            }
            return;
        }
        self.timer02_armed = true;
        let now = cpu.tsc();
        let own = (own.saturating_sub(now) >> self.timer_shift) + 1;
        let l1 = (l1 >> self.timer_shift).saturating_sub(now >> self.timer_shift);
        let ticks = if self.leaves_l2_at_once { 0 } else { own.min(l1) };
        #[expect(clippy::cast_possible_truncation, reason = "bounded by the line before")]
        let ticks = ticks.min(u64::from(TIMER_NEVER)) as u32;
        cpu.vmcs().write(VMX_PREEMPTION_TIMER_VALUE, ticks);
    }
}
