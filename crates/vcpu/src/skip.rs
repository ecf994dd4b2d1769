//! Past the instruction that exited: RIP, and what the end of an instruction means for events.

use arch::Fault;
use arch::control::Rflags;
use arch::segment::AccessRights;
use vmcs::Access;
use vmcs::fields::*;

use crate::blocking::Blocking;
use crate::cpu::Cpu;
use crate::exits::Next;
use crate::state::Vcpu;

/// DR6.BS: the trap came from single-stepping. The same bit of the pending debug exceptions.
const DR6_SINGLE_STEP: u64 = 1 << 14;

/// Moves RIP past the instruction that caused the exit.
///
/// Ends blocking by STI and MOV SS, and raises the single-step trap that a completed instruction owes when RFLAGS.TF
/// is set (SDM 3B 18.3.1.4 "Single-Step Exception Condition").
#[inline(always)]
pub(crate) fn skip_instruction(vcpu: &mut Vcpu, cpu: &mut impl Cpu) -> Next {
    let length = cpu.vmcs().read(VM_EXIT_INSTRUCTION_LEN);
    let from = cpu.vmcs().read(GUEST_RIP);
    finish_at(vcpu, cpu, from, from.wrapping_add(u64::from(length)))
}

/// The same for an instruction that the emulator has executed and that ends at `to`.
#[inline(always)]
pub(crate) fn finish_at(vcpu: &mut Vcpu, cpu: &mut impl Cpu, from: u64, to: u64) -> Next {
    let to = if (from ^ to) >> 31 == 0 { to } else { wrapped(cpu, to) };
    cpu.vmcs().write(GUEST_RIP, to);
    if Blocking::read(cpu.vmcs()).by_shadow() || cpu.vmcs().read(GUEST_RFLAGS) & (Rflags::TF | Rflags::RF).bits() != 0 {
        return end_blocking(vcpu, cpu);
    }
    Next::Resume
}

/// What the end of an instruction ends beside it: blocking by STI and MOV SS, RF, and the single step.
#[inline(never)]
fn end_blocking(vcpu: &mut Vcpu, cpu: &mut impl Cpu) -> Next {
    let blocking = Blocking::read(cpu.vmcs());
    let mut next = Next::Resume;
    if blocking.by_shadow() {
        blocking.without_shadow().write(cpu.vmcs());
        next = Next::Attend;
    }
    let flags = Rflags::from_bits_retain(cpu.vmcs().read(GUEST_RFLAGS));
    if flags.intersects(Rflags::TF | Rflags::RF) {
        // RF has held breakpoints back for this one instruction.
        cpu.vmcs().write(GUEST_RFLAGS, flags.difference(Rflags::RF).bits());
        if flags.contains(Rflags::TF) {
            return single_step(vcpu, cpu);
        }
    }
    next
}

/// [`skip_instruction`] in one place.
#[inline(never)]
fn skip_slowly(vcpu: &mut Vcpu, cpu: &mut impl Cpu) -> Next {
    skip_instruction(vcpu, cpu)
}

/// Past an instruction that leaves RFLAGS as `flags` says, given those before it.
#[inline(always)]
pub(crate) fn skip_with_flags(vcpu: &mut Vcpu, cpu: &mut impl Cpu, flags: impl FnOnce(u64) -> u64) -> Next {
    let vmcs = cpu.vmcs();
    let before = vmcs.read(GUEST_RFLAGS);
    vmcs.write(GUEST_RFLAGS, flags(before));
    if before & (Rflags::TF | Rflags::RF).bits() != 0 {
        return skip_slowly(vcpu, cpu);
    }
    let length = vmcs.read(VM_EXIT_INSTRUCTION_LEN);
    let from = vmcs.read(GUEST_RIP);
    let to = from.wrapping_add(u64::from(length));
    let to = if (from ^ to) >> 31 == 0 { to } else { wrapped(cpu, to) };
    let vmcs = cpu.vmcs();
    vmcs.write(GUEST_RIP, to);
    let blocking = Blocking::read(vmcs);
    if blocking.by_shadow() {
        blocking.without_shadow().write(vmcs);
        return Next::Attend;
    }
    Next::Resume
}

/// Between two iterations of a string instruction with REP, the emulator having executed some: RIP stays.
///
/// An iteration ends blocking by STI and MOV SS and owes the single-step trap like an instruction. The rest of the
/// instruction is not its beginning, so breakpoints at RIP are held back by RF, which is also what an event finds
/// that arrives here (SDM 3B 18.3.1.1 "Instruction-Breakpoint Exception Condition").
pub(crate) fn pause_between_iterations(vcpu: &mut Vcpu, cpu: &mut impl Cpu) -> Next {
    Blocking::read(cpu.vmcs()).without_shadow().write(cpu.vmcs());
    let flags = Rflags::from_bits_retain(cpu.vmcs().read(GUEST_RFLAGS));
    cpu.vmcs().write(GUEST_RFLAGS, flags.union(Rflags::RF).bits());
    if flags.contains(Rflags::TF) {
        return single_step(vcpu, cpu);
    }
    Next::Attend
}

/// The single-step trap that a completed instruction owes. L2's is left pending for the processor to raise: L1 may intercept
/// it, and an exit of the monitor trap flag comes before it.
#[cold]
fn single_step(vcpu: &mut Vcpu, cpu: &mut impl Cpu) -> Next {
    if !vcpu.in_l2 {
        return vcpu.inject_fault(cpu, Fault::Db(DR6_SINGLE_STEP));
    }
    let pending = cpu.vmcs().read(GUEST_PENDING_DBG_EXCEPTIONS);
    cpu.vmcs().write(GUEST_PENDING_DBG_EXCEPTIONS, pending | DR6_SINGLE_STEP);
    Next::Attend
}

/// RIP after it crossed bit 31: outside 64-bit mode it has 32 bits.
#[cold]
fn wrapped(cpu: &mut impl Cpu, rip: u64) -> u64 {
    let long_mode = cpu.vmcs().read(GUEST_IA32_EFER) & arch::control::Efer::LMA.bits() != 0;
    if long_mode && AccessRights(cpu.vmcs().read(GUEST_CS_ACCESS_RIGHTS)).is_long() { rip } else { rip & 0xffff_ffff }
}
