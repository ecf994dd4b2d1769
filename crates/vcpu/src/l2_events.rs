//! Events while L2 is the guest: which of them L1 gets as an exit, and which go into L2.
//!
//! SDM 3C 26.2 "Other Causes of VM Exits", 27.7 "Special Features of VM Entry" and the order of SDM 3A table 6-2 "Priority
//! Among Concurrent Events": INIT, start-up IPI, the VMX-preemption timer, NMI, external interrupt. What L1 asked for when it
//! entered L2 decides; its own RFLAGS and its own window requests do not.

use nested::Synthesized;
use vmcs::controls::PrimaryBased;
use vmcs::{EventInfo, ExitReason};

use crate::blocking::{Blocking, interrupts_on};
use crate::cpu::Cpu;
use crate::exits::{Next, synthesize};
use crate::inject::write_injection;
use crate::run::Left;
use crate::state::{Activity, Injection, Vcpu};
use crate::stop::Stop;
use crate::world::World;

impl Vcpu {
    /// Whether something waits that L1's next entry must bring; the processor sees to what it delivers itself.
    #[inline(always)]
    pub(crate) fn has_event_for_l1(&self) -> bool {
        !self.is_calm() && (self.apic_waits_for_l0() || self.has_event_outside_apic())
    }

    /// Whether something waits that may end L2's run or change it. `requested`: L1's RVI was not 0.
    #[inline(always)]
    pub(crate) fn has_event_for_l2(&self, requested: bool) -> bool {
        requested || !self.is_calm() && (self.apic.has_pending() || self.has_event_outside_apic())
    }

    /// Whether nothing has changed since attention was paid and nothing waited, but for what the processor does. Handlers that
    /// change more than the APIC's registers make the run loop pay attention before the next entry.
    #[inline(always)]
    const fn is_calm(&self) -> bool {
        self.calm && self.apic.is_left_to_processor()
    }

    fn apic_waits_for_l0(&self) -> bool {
        !self.apic.is_delivered_by_processor() && (self.apic.has_pending() || !self.apic.is_lent())
    }

    /// Whether an event waits that is not the APIC's.
    #[inline(always)]
    pub(crate) fn has_event_outside_apic(&self) -> bool {
        self.pic_waits() || self.nmi_pending || self.init_latched || self.injection.is_some()
    }

    /// What has to happen before L2's next entry; `startup` is the vector of a start-up IPI that has just arrived.
    pub(crate) fn attend_l2<C: Cpu, W: World>(
        &mut self,
        cpu: &mut C,
        world: &W,
        now: u64,
        startup: Option<u8>,
    ) -> Option<Left> {
        self.leaves_l2_at_once = false;
        if let Some(exit) = self.exit_of_l2.take() {
            return self.exit_to_l1(cpu, world, exit);
        }
        let is_pending = self.nested.as_ref().is_some_and(|nested| nested.is_entry_pending());
        if is_pending || self.injection.is_some() {
            // The entry that L1 made, or the event on its way, comes first; what waits comes right after it.
            self.leaves_l2_at_once = self.interrupt_waits()
                || self.nmi_pending
                || self.init_latched
                || is_pending && self.injection.is_some();
            if let Some(injection) = self.injection.take_if(|_| !is_pending) {
                write_injection(cpu.vmcs(), injection);
            }
            return None;
        }
        if let Some(exit) = self.exit_for_event(cpu, world, now, startup) {
            return self.exit_to_l1(cpu, world, exit);
        }
        match self.activity {
            Activity::Active => {}
            Activity::Halted if self.wakes_l2(cpu, world) => self.activity = Activity::Active,
            Activity::Halted => {
                return Some(Left::Halted { deaf: self.is_l2_deaf(cpu) });
            }
            Activity::WaitForSipi => return Some(Left::WaitsForSipi),
        }
        self.inject_l2(cpu, world);
        None
    }

    /// L1 gets an exit that L0 made, and goes on.
    fn exit_to_l1<C: Cpu, W: World>(&mut self, cpu: &mut C, world: &W, exit: Synthesized) -> Option<Left> {
        match synthesize(self, cpu, world, exit) {
            Next::Stop => Some(Left::Stop(self.stopping.take().unwrap_or(Stop::UnexpectedExit(u16::MAX)))),
            Next::Resume | Next::Attend => self.attend(cpu, world),
        }
    }

    /// The exit that L1 gets because of something that waits.
    fn exit_for_event<C: Cpu, W: World>(
        &mut self,
        cpu: &mut C,
        world: &W,
        now: u64,
        startup: Option<u8>,
    ) -> Option<Synthesized> {
        let nested = self.nested.as_deref()?;
        let plain = |reason: ExitReason| Synthesized { reason: reason.0, ..Synthesized::default() };
        if self.init_latched {
            self.init_latched = false;
            return Some(plain(ExitReason::INIT));
        }
        if let Some(page) = startup
            && self.activity == Activity::WaitForSipi
        {
            return Some(Synthesized { qualification: page.into(), ..plain(ExitReason::SIPI) });
        }
        if self.activity == Activity::WaitForSipi {
            // Nothing else reaches a processor that waits for a start-up IPI.
            return None;
        }
        if nested.timer_deadline() <= now {
            return Some(plain(ExitReason::PREEMPTION_TIMER));
        }
        // A window that is open ends HLT (SDM 3C 27.7.5 "Interrupt-Window Exiting and Virtual-Interrupt Delivery", 27.7.6
        // "NMI-Window Exiting"); while L2 is active the processor sees to that.
        let is_halted = self.activity == Activity::Halted;
        let windows = if is_halted { nested.windows_of_l1() } else { PrimaryBased::empty() };
        if windows.contains(PrimaryBased::NMI_WINDOW_EXITING) && !Blocking::read(cpu.vmcs()).by_nmi() {
            return Some(plain(ExitReason::NMI_WINDOW));
        }
        if self.nmi_pending && nested.takes_nmis() && !Blocking::read(cpu.vmcs()).by_shadow() {
            self.nmi_pending = false;
            return Some(Synthesized { interruption: EventInfo::nmi(), ..plain(ExitReason::EXCEPTION_OR_NMI) });
        }
        if windows.contains(PrimaryBased::INTERRUPT_WINDOW_EXITING) && interrupts_on(cpu.vmcs()) {
            return Some(plain(ExitReason::INTERRUPT_WINDOW));
        }
        if !nested.takes_interrupts() {
            return None;
        }
        if !nested.acknowledges_interrupts() {
            return self.interrupt_waits().then(|| plain(ExitReason::EXTERNAL_INTERRUPT));
        }
        let interruption = EventInfo::external(self.take_interrupt_of_l1(cpu, world)?);
        Some(Synthesized { interruption, ..plain(ExitReason::EXTERNAL_INTERRUPT) })
    }

    /// Acknowledges what waits. A notification of interrupts posted for L2 ends here, and L2 gets those (SDM 3C 30.6
    /// "Posted-Interrupt Processing"); any other interrupt is L1's.
    fn take_interrupt_of_l1<C: Cpu, W: World>(&mut self, cpu: &mut C, world: &W) -> Option<u8> {
        while self.interrupt_waits() {
            let vector = self.take_interrupt(world);
            match self.nested.as_deref_mut() {
                Some(nested) if nested.is_notification(vector) => nested.process_posted(cpu, world.memory()),
                _ => return Some(vector),
            }
            self.apic.registers().end_of_interrupt(world);
        }
        None
    }

    /// A notification with this vector was sent while the processor was to act on it. It may have, and then nothing is left; where
    /// L2 ran no more, the notification is an interrupt of L1's.
    #[cold]
    #[inline(never)]
    pub(crate) fn notified_for_l2<C: Cpu, W: World>(&mut self, cpu: &mut C, world: &W, vector: u8) {
        match self.nested.as_deref_mut() {
            Some(nested) if self.in_l2 && self.activity != Activity::WaitForSipi && nested.is_notification(vector) => {
                nested.process_posted(cpu, world.memory());
            }
            _ => {
                world.mailbox().post(vector, false);
            }
        }
    }

    /// Whether L1 gets external interrupts as exits, whatever L2's RFLAGS.IF.
    fn l1_takes_interrupts(&self) -> bool {
        self.nested.as_ref().is_some_and(|nested| nested.takes_interrupts())
    }

    /// Whether nothing but an NMI or INIT can end L2's HLT.
    fn is_l2_deaf(&self, cpu: &mut impl Cpu) -> bool {
        let has_timer = self.nested.as_ref().is_some_and(|nested| nested.timer_deadline() != u64::MAX);
        !has_timer && !self.l1_takes_interrupts() && !interrupts_on(cpu.vmcs())
    }

    /// Whether L2 in HLT has something to wake for that it takes itself.
    fn wakes_l2(&self, cpu: &mut impl Cpu, world: &impl World) -> bool {
        if self.nmi_pending || !interrupts_on(cpu.vmcs()) {
            return self.nmi_pending;
        }
        let nested = self.nested.as_deref();
        self.interrupt_waits() || nested.is_some_and(|nested| nested.has_virtual_interrupt(cpu.vmcs(), world.memory()))
    }

    /// Events that L1 lets L2 take directly.
    fn inject_l2(&mut self, cpu: &mut impl Cpu, world: &impl World) {
        let mut windows = PrimaryBased::empty();
        let mut occupied = false;
        if self.nmi_pending {
            let blocking = Blocking::read(cpu.vmcs());
            if blocking.by_shadow() || blocking.by_nmi() {
                windows |= PrimaryBased::NMI_WINDOW_EXITING;
            } else {
                self.nmi_pending = false;
                occupied = true;
                write_injection(cpu.vmcs(), Injection::without_details(EventInfo::nmi()));
            }
        }
        if self.interrupt_waits() {
            if !occupied && interrupts_on(cpu.vmcs()) && !Blocking::read(cpu.vmcs()).by_shadow() {
                let vector = self.take_interrupt(world);
                write_injection(cpu.vmcs(), Injection::without_details(EventInfo::external(vector)));
            }
            if self.interrupt_waits() {
                windows |= PrimaryBased::INTERRUPT_WINDOW_EXITING;
            }
        }
        if let Some(nested) = &mut self.nested {
            nested.set_windows(cpu, windows);
        }
    }
}
