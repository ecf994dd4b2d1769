//! What goes into the guest at the next entry: at most one event, in the order of priority.
//!
//! SDM 3A table 6-2 "Priority Among Concurrent Events"; SDM 3C 27.6 "Event Injection".

use vlapic::Pin;
use vmcs::controls::PrimaryBased;
use vmcs::fields::*;
use vmcs::{Access, EventInfo, EventKind};

use crate::blocking::{Blocking, interrupts_on};
use crate::cpu::Cpu;
use crate::state::{Injection, Vcpu};
use crate::world::World;

impl Vcpu {
    /// Writes the event for the next entry, and asks for a window exit when one has to wait.
    #[inline]
    pub(crate) fn inject(&mut self, cpu: &mut impl Cpu, world: &impl World) {
        let waits = self.injection.is_some() || self.nmi_pending || self.interrupt_waits_for_injection();
        if waits || !self.windows.is_empty() {
            self.inject_what_waits(cpu, world);
        }
    }

    #[inline(never)]
    fn inject_what_waits(&mut self, cpu: &mut impl Cpu, world: &impl World) {
        let mut occupied = false;
        if let Some(injection) = self.injection.take() {
            write_injection(cpu.vmcs(), injection);
            occupied = true;
        }
        let mut windows = PrimaryBased::empty();
        if self.nmi_pending {
            let blocking = Blocking::read(cpu.vmcs());
            if occupied || blocking.by_shadow() || blocking.by_nmi() {
                windows |= PrimaryBased::NMI_WINDOW_EXITING;
            } else {
                self.nmi_pending = false;
                write_injection(cpu.vmcs(), Injection::without_details(EventInfo::nmi()));
                occupied = true;
            }
        }
        if self.interrupt_waits_for_injection() {
            if !occupied && interrupts_on(cpu.vmcs()) && !Blocking::read(cpu.vmcs()).by_shadow() {
                let vector = self.take_interrupt(world);
                write_injection(cpu.vmcs(), Injection::without_details(EventInfo::external(vector)));
            }
            if self.interrupt_waits_for_injection() {
                windows |= PrimaryBased::INTERRUPT_WINDOW_EXITING;
            }
        }
        self.set_windows(cpu, windows);
    }

    /// Whether one waits that L0 must inject into L1: where the processor delivers, only the PIC's.
    #[inline(always)]
    fn interrupt_waits_for_injection(&self) -> bool {
        !self.apic.is_delivered_by_processor() && self.apic.has_pending() || self.pic_waits()
    }

    /// Whether an interrupt waits for the guest: the PIC's, or one whose priority is above the processor's.
    #[inline(always)]
    pub(crate) fn interrupt_waits(&self) -> bool {
        self.apic.has_pending() || self.pic_waits()
    }

    /// Whether an interrupt of the PIC's waits.
    #[inline(always)]
    pub(crate) fn pic_waits(&self) -> bool {
        self.apic.settings().extint_pending() || self.extint_message
    }

    /// Acknowledges the interrupt that comes first: the PIC's, which bypasses the APIC's priorities, or the APIC's.
    pub(crate) fn take_interrupt(&mut self, world: &impl World) -> u8 {
        if self.pic_waits() {
            self.extint_message = false;
            let vector = world.pic_acknowledge();
            self.sample_pic(world);
            return vector;
        }
        // The caller has seen that an interrupt is pending; the vector stands for "none" and is never delivered.
        self.apic.registers().acknowledge().map_or(SPURIOUS, |vector| vector.0)
    }

    /// The PIC's output drives LINT0 of the bootstrap processor (virtual-wire mode).
    pub(crate) fn sample_pic(&mut self, world: &impl World) {
        if !self.bootstrap {
            return;
        }
        let asserted = world.pic_asserted();
        if self.apic.settings().is_asserted(Pin::Lint0) != asserted {
            let events = self.apic.registers().lint(Pin::Lint0, asserted);
            self.nmi_pending |= events.nmi;
        }
    }

    /// Writes the window-exiting controls where they changed.
    fn set_windows(&mut self, cpu: &mut impl Cpu, windows: PrimaryBased) {
        if windows != self.windows {
            self.windows = windows;
            cpu.vmcs().write(CPU_BASED_VM_EXEC_CONTROL, (self.primary | windows).bits());
        }
    }

    /// Whether a halted vCPU has something to wake for (SDM 2A "HLT—Halt").
    pub(crate) fn wakes(&self, cpu: &mut impl Cpu) -> bool {
        if self.nmi_pending || self.injection.is_some() {
            return true;
        }
        self.interrupt_waits() && interrupts_on(cpu.vmcs())
    }

    /// An exit cut short the delivery of an event (IDT-vectoring information): it goes in again at the next entry.
    ///
    /// SDM 3C 28.2.4 "Information for VM Exits During Event Delivery". Called only for exits that can happen then.
    pub(crate) fn requeue_cut_short(&mut self, vmcs: &mut impl Access) {
        let info = match self.nested.as_deref() {
            Some(nested) if self.in_l2 => nested.vectoring(vmcs),
            _ => EventInfo(vmcs.read(IDT_VECTORING_INFO)),
        };
        if !info.is_valid() {
            return;
        }
        let info = info.for_injection();
        let error_code = if info.has_error_code() { vmcs.read(IDT_VECTORING_ERROR_CODE) } else { 0 };
        let instruction_length = if info.kind().is_software() { vmcs.read(VM_EXIT_INSTRUCTION_LEN) } else { 0 };
        if info.is(EventKind::Nmi) {
            // Delivery had begun, so blocking by NMI is on; injecting it again with the bit set would fail the entry.
            Blocking::read(vmcs).without_nmi().write(vmcs);
        }
        self.injection = Some(Injection { info, error_code, instruction_length });
    }
}

/// What [`Vcpu::take_interrupt`] gives when the interrupt went away: the APIC's spurious vector after reset.
const SPURIOUS: u8 = 0xff;

/// Writes VM-entry interruption information and what belongs to it.
pub(crate) fn write_injection(vmcs: &mut impl Access, injection: Injection) {
    vmcs.write(VM_ENTRY_INTERRUPTION_INFO, injection.info.0);
    if injection.info.has_error_code() {
        vmcs.write(VM_ENTRY_EXCEPTION_ERROR_CODE, injection.error_code);
    }
    if injection.info.kind().is_software() {
        vmcs.write(VM_ENTRY_INSTRUCTION_LEN, injection.instruction_length);
    }
}
