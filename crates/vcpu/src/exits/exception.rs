//! Exceptions and NMIs that exit.
//!
//! L0 takes #MC, which is the machine's, and #DB and #AC, which a guest could otherwise raise for ever within one
//! instruction, out of the reach of every interrupt. The guest gets the latter two back.

use arch::Fault;
use arch::control::Rflags;
use vmcs::exit::ExceptionExit;
use vmcs::fields::*;
use vmcs::{Access, EventKind};

use crate::blocking::Blocking;
use crate::cpu::Cpu;
use crate::exits::{Next, lost_rip};
use crate::state::{Injection, Vcpu};
use crate::world::World;

/// The exception bitmap: #DB, #AC, #MC.
pub(crate) const INTERCEPTED: u32 = 1 << 1 | 1 << 17 | 1 << 18;

/// IA32_DEBUGCTL.BTF: RFLAGS.TF steps branches.
const DEBUGCTL_BTF: u64 = 1 << 1;
/// Pending debug exceptions: BS, a single step.
const PENDING_SINGLE_STEP: u64 = 1 << 14;
/// DR7.GD: MOV to a debug register raises #DB.
const DR7_GENERAL_DETECT: u64 = 1 << 13;

pub(super) fn handle<C: Cpu, W: World>(vcpu: &mut Vcpu, cpu: &mut C, world: &W, exit: ExceptionExit) -> Next {
    if exit.info.is(EventKind::Nmi) {
        cpu.machine_nmi();
        lost_rip::restore(vcpu, cpu, world);
        // It may have been a kick.
        return Next::Attend;
    }
    vcpu.requeue_cut_short(cpu.vmcs());
    match exit.info.vector().0 {
        1 => {
            // Delivery clears DR7.GD; an exit in its place does not (SDM 3C 28.1 "Architectural State Before a VM Exit").
            let dr7 = cpu.vmcs().read(GUEST_DR7);
            if dr7 & DR7_GENERAL_DETECT != 0 {
                cpu.vmcs().write(GUEST_DR7, dr7 & !DR7_GENERAL_DETECT);
            }
            keep_entry_consistent(cpu.vmcs());
            let next = vcpu.inject_fault(cpu, Fault::Db(exit.qualification));
            if exit.info.is(EventKind::PrivilegedSoftwareException) {
                // INT1 is injected as what it was, so that the saved RIP points behind it.
                let instruction_length = cpu.vmcs().read(VM_EXIT_INSTRUCTION_LEN);
                vcpu.injection = Some(Injection { info: exit.info.for_injection(), error_code: 0, instruction_length });
            }
            next
        }
        17 => vcpu.inject_fault(cpu, Fault::Ac),
        _ => {
            cpu.machine_check();
            Next::Resume
        }
    }
}

/// An exit by a debug exception stores no pending ones, not even the single step that blocking by STI or MOV SS still
/// holds back; but an entry with such blocking and RFLAGS.TF must have it (SDM 3C 27.3.1.5 "Checks on Guest Non-Register
/// State"). Without this a guest could make an entry of ours fail.
fn keep_entry_consistent(vmcs: &mut impl Access) {
    let steps = vmcs.read(GUEST_RFLAGS) & Rflags::TF.bits() != 0 && vmcs.read(GUEST_IA32_DEBUGCTL) & DEBUGCTL_BTF == 0;
    if steps && Blocking::read(vmcs).by_shadow() {
        let pending = vmcs.read(GUEST_PENDING_DBG_EXCEPTIONS);
        vmcs.write(GUEST_PENDING_DBG_EXCEPTIONS, pending | PENDING_SINGLE_STEP);
    }
}
