//! Interrupts through the APIC: accepted, pending, acknowledged, ended.

use arch::apic::{Register, Shorthand};
use arch::{Fault, Vector};

use crate::bus::Bus;
use crate::errors::{RECEIVE_ILLEGAL_VECTOR, SEND_ILLEGAL_VECTOR};
use crate::events::Events;
use crate::icr;
use crate::identity::Mode;
use crate::local_apic::{LocalApic, SUPPRESS_BROADCAST};
use crate::lvt::Source;
use crate::mailbox::Mailbox;
use crate::priority::FIRST_VECTOR;

impl LocalApic {
    /// Takes an interrupt message in: IRR and TMR record it. A disabled APIC drops it, a software-disabled one too
    /// (SDM 3A 11.4.7.2 "Local APIC State After It Has Been Software Disabled"); a vector below 16 is the
    /// receive-illegal-vector error.
    pub fn accept(&mut self, vector: u8, level_triggered: bool) {
        if self.mode == Mode::Disabled {
            return;
        }
        if vector < FIRST_VECTOR {
            self.error(RECEIVE_ILLEGAL_VECTOR);
        } else if self.is_software_enabled() {
            self.request(vector, level_triggered);
        }
    }

    fn request(&mut self, vector: u8, level_triggered: bool) {
        self.priorities.request(vector, level_triggered);
        self.stale.insert(Register::IRR);
        self.stale.insert(Register::TMR);
    }

    /// Moves what others posted into the APIC and returns what is not the APIC's to keep. One load when the mailbox
    /// is empty.
    #[inline]
    pub fn drain(&mut self, mailbox: &Mailbox) -> Events {
        if mailbox.is_empty() { Events::NONE } else { self.drain_mail(mailbox) }
    }

    fn drain_mail(&mut self, mailbox: &Mailbox) -> Events {
        let mail = mailbox.take();
        if self.mode != Mode::Disabled {
            if self.is_software_enabled() {
                self.priorities.request_all(&mail.edge, &mail.level);
                self.stale.insert(Register::IRR);
                self.stale.insert(Register::TMR);
            }
            if mail.illegal_vector {
                self.error(RECEIVE_ILLEGAL_VECTOR);
            }
        }
        mail.events
    }

    /// Whether an interrupt is pending, in a few instructions.
    #[inline(always)]
    pub fn may_have_pending(&self) -> bool {
        self.priorities.is_pending()
    }

    /// The interrupt that the processor should take: the highest in IRR, if its class is above the processor
    /// priority's. Software-disabling does not hold back what IRR already has ("Pending interrupts in the IRR and ISR
    /// registers are held and require masking or handling by the CPU").
    #[inline(always)]
    pub fn pending(&self) -> Option<Vector> {
        self.priorities.pending().map(Vector)
    }

    /// The processor takes the pending interrupt: it goes from IRR to ISR.
    pub fn acknowledge(&mut self) -> Option<Vector> {
        let vector = self.priorities.acknowledge()?;
        self.stale.insert(Register::IRR);
        self.stale.insert(Register::ISR);
        Some(Vector(vector))
    }

    /// The highest vector in IRR, pending or not.
    #[inline(always)]
    pub fn highest_requested(&self) -> Option<Vector> {
        self.priorities.highest_requested().map(Vector)
    }

    /// The highest vector in ISR.
    #[inline(always)]
    pub fn highest_in_service(&self) -> Option<Vector> {
        self.priorities.highest_in_service().map(Vector)
    }

    /// The processor-priority register.
    #[inline(always)]
    pub fn ppr(&self) -> u8 {
        self.priorities.ppr()
    }

    /// The priority class, 1 to 15, below which the guest's task priority must fall for the highest request to
    /// become pending; 0 when no request waits, or when it waits for something else. It is never above the class that
    /// TPR has now.
    pub fn tpr_threshold(&self) -> u8 {
        self.priorities.tpr_threshold()
    }

    /// CR8: bits 7:4 of the task priority (SDM 3A 11.8.6.1 "Interaction of Task Priorities between CR8 and APIC").
    #[inline(always)]
    pub fn cr8(&self) -> u64 {
        u64::from(self.priorities.tpr() >> 4)
    }

    /// A write to CR8: bits 3:0 of the task priority become 0. #GP(0) for a value above 15.
    pub fn set_cr8(&mut self, value: u64, bus: &impl Bus) -> Result<(), Fault> {
        if value > 15 {
            return Err(Fault::Gp(0));
        }
        self.set_tpr((value & 15) as u8 * 16, bus);
        Ok(())
    }

    pub(crate) fn set_tpr(&mut self, tpr: u8, bus: &impl Bus) {
        if tpr != self.priorities.tpr() {
            self.priorities.set_tpr(tpr);
            bus.published(self.identity());
        }
    }

    /// Ends the service of the highest interrupt in ISR: what a write to EOI does.
    pub fn end_of_interrupt(&mut self, bus: &impl Bus) {
        let Some((vector, level_triggered)) = self.priorities.end_of_interrupt() else { return };
        self.stale.insert(Register::ISR);
        if level_triggered {
            self.ended_by_processor(vector, bus);
        }
    }

    /// The processor has taken `vector` out of ISR for an EOI, and the EOI-exit bitmap had its bit: the rest of what
    /// [`Self::end_of_interrupt`] does (SDM 3C 30.1.4 "EOI Virtualization").
    pub fn ended_by_processor(&mut self, vector: u8, bus: &impl Bus) {
        if self.spurious & SUPPRESS_BROADCAST == 0 {
            bus.end_of_interrupt(vector);
        }
        self.lint0_ended(vector);
    }

    /// Sends what ICR says.
    pub(crate) fn command(&mut self, bus: &impl Bus) {
        let xapic = self.mode == Mode::Xapic;
        let destination = if xapic { self.icr_high >> 24 } else { self.icr_high };
        let Some(message) = icr::decode(self.icr_low, destination, xapic) else { return };
        if message.shorthand == Shorthand::Myself {
            return self.self_ipi(message.vector);
        }
        if icr::has_vector(message.mode) && message.vector < FIRST_VECTOR {
            self.error(SEND_ILLEGAL_VECTOR);
        }
        bus.send(message);
    }

    /// A fixed, edge-triggered interrupt from this APIC to itself.
    pub(crate) fn self_ipi(&mut self, vector: u8) {
        if vector < FIRST_VECTOR {
            self.error(SEND_ILLEGAL_VECTOR);
        }
        self.accept(vector, false);
    }

    /// Records errors and raises the error interrupt, once between two writes to ESR.
    pub(crate) fn error(&mut self, errors: u32) {
        self.errors.gather(errors);
        let entry = self.lvt.get(Source::Error);
        if entry.is_masked() || !self.errors.signal() {
            return;
        }
        if entry.vector() < FIRST_VECTOR {
            self.errors.gather(RECEIVE_ILLEGAL_VECTOR);
        } else {
            self.request(entry.vector(), false);
        }
    }

    /// Fires the timer if it is due at `now`, the guest's TSC.
    #[inline(always)]
    pub fn tick(&mut self, now: u64) {
        if self.timer.fire(now) {
            self.timer_expired();
        }
    }

    fn timer_expired(&mut self) {
        let entry = self.lvt.get(Source::Timer);
        if !entry.is_masked() {
            self.accept(entry.vector(), false);
        }
    }

    /// The guest's TSC at which [`Self::tick`] has something to do; `u64::MAX` for never. A masked timer has no
    /// deadline: its expiry shows only in registers, and accesses to these compute it.
    #[inline(always)]
    pub fn deadline(&self) -> u64 {
        if self.lvt.get(Source::Timer).is_masked() { u64::MAX } else { self.timer.next() }
    }

    /// The guest's TSC was set from `old` to `new` (a write to IA32_TSC or IA32_TSC_ADJUST). The counting modes go on
    /// as if nothing had happened; a TSC deadline is compared with the new value from now on.
    pub fn tsc_written(&mut self, old: u64, new: u64) {
        self.tick(old);
        self.timer.tsc_written(old, new);
    }
}
