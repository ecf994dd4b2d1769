//! One handler per kind of exit; each says what comes next.

mod apic;
mod control_register;
mod cpuid;
mod exception;
mod instruction;
pub(crate) mod l2;
mod lost_rip;
mod memory;
mod msr;
mod msr_list;
mod port;
mod vmx;
pub(crate) mod vmx_operand;

pub(crate) use exception::INTERCEPTED as INTERCEPTED_EXCEPTIONS;
pub(crate) use l2::synthesize;
pub(crate) use msr::MISC_ENABLE_RESET;
use vmcs::{Exit, ExitReason};

use crate::cpu::Cpu;
use crate::state::Vcpu;
use crate::stop::Stop;
use crate::world::World;

/// What comes after an exit was handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Straight back into the guest: nothing that decides about events changed.
    Resume,
    /// Back into the guest by way of the checks for events and timers.
    Attend,
    /// The VM must stop: [`Vcpu::stops`] keeps why.
    Stop,
}

impl Next {
    /// The same, but not without a look at events and timers.
    pub(crate) fn attending(self) -> Self {
        if self == Self::Resume { Self::Attend } else { self }
    }
}

/// Handles the exit that the VMCS describes.
///
/// The two exits that a guest waits for in vain, since they do nothing but answer, are told apart by the bare reason; all
/// others are decoded first. That keeps the path of the two free of what the others need.
#[inline(always)]
pub(crate) fn handle<C: Cpu, W: World>(vcpu: &mut Vcpu, cpu: &mut C, world: &W) -> Next {
    let reason = ExitReason::read(cpu.vmcs());
    vcpu.counters.count(reason);
    match reason {
        ExitReason::CPUID => cpuid::handle(vcpu, cpu),
        ExitReason::VMCALL => instruction::vmcall(vcpu, cpu),
        ExitReason::VMREAD => vmx::vmread(vcpu, cpu, world),
        ExitReason::VMWRITE => vmx::vmwrite(vcpu, cpu, world),
        ExitReason::VMRESUME => vmx::enter(vcpu, cpu, world, false),
        ExitReason::VMPTRST => vmx::vmptrst(vcpu, cpu, world),
        ExitReason::PREEMPTION_TIMER => timer(vcpu, cpu, world),
        _ => handle_decoded(vcpu, cpu, world, reason),
    }
}

/// Handles the exit of L2 that vmcs02 describes.
#[inline(always)]
pub(crate) fn handle_l2<C: Cpu, W: World>(vcpu: &mut Vcpu, cpu: &mut C, world: &W) -> Next {
    let reason = ExitReason::read(cpu.vmcs());
    vcpu.counters.count(reason);
    l2::handle(vcpu, cpu, world, reason)
}

/// Something is due: what, `attend` finds out.
#[inline]
fn timer<C: Cpu, W: World>(vcpu: &mut Vcpu, cpu: &mut C, world: &W) -> Next {
    lost_rip::restore(vcpu, cpu, world);
    Next::Attend
}

#[inline(never)]
fn handle_decoded<C: Cpu, W: World>(vcpu: &mut Vcpu, cpu: &mut C, world: &W, reason: ExitReason) -> Next {
    match Exit::decode(reason, cpu.vmcs()) {
        Exit::Rdmsr => msr::read(vcpu, cpu, world),
        Exit::Wrmsr => msr::write(vcpu, cpu, world),
        Exit::EptViolation(violation) => memory::handle(vcpu, cpu, world, violation),
        Exit::Io(access) => port::handle(vcpu, cpu, world, access),
        Exit::Hlt => instruction::hlt(vcpu, cpu),
        Exit::Pause => instruction::pause(vcpu, cpu),
        // The next thing to do is what `attend` does anyway.
        Exit::InterruptWindow | Exit::NmiWindow => Next::Attend,
        Exit::PreemptionTimer => timer(vcpu, cpu, world),
        Exit::ExternalInterrupt(vector) => {
            // "Acknowledge interrupt on exit" is on, so there is one.
            if let Some(vector) = vector {
                cpu.machine_interrupt(vector);
            }
            lost_rip::restore(vcpu, cpu, world);
            Next::Attend
        }
        Exit::ApicAccess(access) => apic::access(vcpu, cpu, world, access),
        Exit::ApicWrite { offset } => apic::written(vcpu, cpu, world, offset),
        Exit::VirtualizedEoi { vector } => apic::ended(vcpu, world, vector),
        // Which interrupts are pending now, `attend` finds out.
        Exit::TprBelowThreshold => Next::Attend,
        Exit::ControlRegister(access) => control_register::handle(vcpu, cpu, world, access),
        Exit::ExceptionOrNmi(info) => exception::handle(vcpu, cpu, world, info),
        Exit::Xsetbv => instruction::xsetbv(vcpu, cpu),
        Exit::Invd | Exit::Wbinvd => instruction::write_back(vcpu, cpu),
        Exit::Rdpmc => vcpu.inject_fault(cpu, arch::Fault::Gp(0)),
        Exit::Getsec | Exit::Monitor | Exit::Mwait { .. } | Exit::Rsm => vcpu.inject_fault(cpu, arch::Fault::Ud),
        Exit::Vmx(instruction) => vmx::handle(vcpu, cpu, world, instruction),
        Exit::TripleFault => vcpu.stops(Stop::TripleFault),
        Exit::TaskSwitch(_) => vcpu.stops(Stop::TaskSwitch),
        Exit::EntryFailed(_) => vcpu.stops(Stop::EntryFailed),
        // CPUID and VMCALL come here neither from L1, see `handle`, nor from L2, whose L1 gets them.
        other => vcpu.stops(Stop::UnexpectedExit(other.reason().0)),
    }
}
