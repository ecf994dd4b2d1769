//! VMX instructions that L1 executes: what they come to, and where L1 goes on.

use arch::Fault;
use arch::control::{Cr0, Efer};
use nested::{Entry, L1Processor, Nested, Outcome, Permission, Posted, Refusal};
use vmcs::fields::*;
use vmcs::instruction_info::InstructionOperand;
use vmcs::{Access, InstructionError, InstructionInfo, VmxInstruction};

use super::vmx_operand::{is_64_bit, load, put, put_into_register, register, store, take};
use crate::control_registers::CR0_OWNED;
use crate::cpu::Cpu;
use crate::exits::Next;
use crate::exits::instruction::privilege_level;
use crate::exits::msr_list::ListedMsrs;
use crate::skip::skip_with_flags;
use crate::state::{Activity, Vcpu};
use crate::stop::Stop;
use crate::world::{Report, World};

/// All but the most frequent ones.
#[inline(never)]
pub(super) fn handle<C: Cpu, W: World>(vcpu: &mut Vcpu, cpu: &mut C, world: &W, instruction: VmxInstruction) -> Next {
    if vcpu.nested.is_none() {
        return vcpu.inject_fault(cpu, Fault::Ud);
    }
    match execute(vcpu, cpu, world, instruction) {
        Ok(next) => next,
        Err(fault) => vcpu.inject_fault(cpu, fault),
    }
}

fn execute<C: Cpu, W: World>(
    vcpu: &mut Vcpu,
    cpu: &mut C,
    world: &W,
    instruction: VmxInstruction,
) -> Result<Next, Fault> {
    let cpl = privilege_level(cpu.vmcs());
    let outcome = match instruction {
        VmxInstruction::Vmread(operand) => return Ok(field_access_slowly(vcpu, cpu, world, operand.info, true)),
        VmxInstruction::Vmwrite(operand) => return Ok(field_access_slowly(vcpu, cpu, world, operand.info, false)),
        VmxInstruction::Vmlaunch => return Ok(enter(vcpu, cpu, world, true)),
        VmxInstruction::Vmresume => return Ok(enter(vcpu, cpu, world, false)),
        VmxInstruction::Vmxon(operand) => return vmxon(vcpu, cpu, world, operand),
        VmxInstruction::Vmxoff => return vmxoff(vcpu, cpu, world),
        VmxInstruction::Vmptrst(_) => return Ok(vmptrst(vcpu, cpu, world)),
        VmxInstruction::Vmclear(operand) => {
            admitted(vcpu, cpl)?;
            let [pointer, _] = load(vcpu, cpu, world.memory(), operand.info, 8)?;
            admitted(vcpu, cpl)?.vmclear(cpu, world.memory(), pointer)
        }
        VmxInstruction::Vmptrld(operand) => {
            admitted(vcpu, cpl)?;
            let [pointer, _] = load(vcpu, cpu, world.memory(), operand.info, 8)?;
            admitted(vcpu, cpl)?.vmptrld(cpu, world.memory(), pointer)
        }
        VmxInstruction::Invept(operand) => {
            admitted(vcpu, cpl)?;
            let [eptp, _] = load(vcpu, cpu, world.memory(), operand.info, 16)?;
            let kind = register(&vcpu.regs, cpu.vmcs(), operand.info.number_2());
            admitted(vcpu, cpl)?.invept(cpu, kind, eptp)
        }
        VmxInstruction::Invvpid(operand) => {
            admitted(vcpu, cpl)?;
            let descriptor = load(vcpu, cpu, world.memory(), operand.info, 16)?;
            let kind = register(&vcpu.regs, cpu.vmcs(), operand.info.number_2());
            admitted(vcpu, cpl)?.invvpid(cpu, kind, descriptor)
        }
    };
    Ok(finish(vcpu, cpu, outcome))
}

/// The vCPU's VMX, if the instruction may be executed.
#[inline(always)]
fn admitted(vcpu: &mut Vcpu, cpl: u32) -> Result<&mut Nested, Fault> {
    let nested = vcpu.nested.as_mut().ok_or(Fault::Ud)?;
    nested.may_execute(cpl)?;
    Ok(nested)
}

/// RFLAGS as the instruction leaves them, and on behind it.
#[inline(always)]
fn finish(vcpu: &mut Vcpu, cpu: &mut impl Cpu, outcome: Outcome) -> Next {
    skip_with_flags(vcpu, cpu, |before| outcome.flags(before))
}

fn vmxon<C: Cpu, W: World>(
    vcpu: &mut Vcpu,
    cpu: &mut C,
    world: &W,
    operand: InstructionOperand,
) -> Result<Next, Fault> {
    let cr4_owned = crate::control_registers::cr4_owned(vcpu.cr4_offered);
    let vmcs = cpu.vmcs();
    let cr0 = vmcs.read(GUEST_CR0) & !CR0_OWNED.bits() | vmcs.read(CR0_READ_SHADOW) & CR0_OWNED.bits();
    let cr4 = vmcs.read(GUEST_CR4) & !cr4_owned | vmcs.read(CR4_READ_SHADOW) & cr4_owned;
    let permission = Permission { cr0, cr4, cpl: privilege_level(vmcs) };
    vcpu.nested.as_ref().ok_or(Fault::Ud)?.may_vmxon(permission)?;
    let [pointer, _] = load(vcpu, cpu, world.memory(), operand.info, 8)?;
    let nested = vcpu.nested.as_mut().ok_or(Fault::Ud)?;
    let was_outside = !nested.in_vmx_operation();
    let outcome = nested.vmxon(cpu, world.memory(), pointer);
    if was_outside && outcome == Outcome::Succeed {
        // PE and PG cannot be cleared from now on: L0 has to see it when L1 tries.
        let kept = (Cr0::PE | Cr0::PG).bits();
        let vmcs = cpu.vmcs();
        vmcs.write(CR0_READ_SHADOW, cr0 | kept);
        vmcs.write(CR0_GUEST_HOST_MASK, CR0_OWNED.bits() | kept);
        world.becomes_hypervisor();
    }
    Ok(finish(vcpu, cpu, outcome))
}

/// VMCALL in VMX root operation: without the dual-monitor treatment of SMIs it fails (SDM 3C 31.3 "VMCALL—Call to VM Monitor").
#[cold]
pub(super) fn vmcall_in_root(vcpu: &mut Vcpu, cpu: &mut impl Cpu) -> Next {
    let vmcs = cpu.vmcs();
    let compatibility = vmcs.read(GUEST_IA32_EFER) & Efer::LMA.bits() != 0 && !is_64_bit(vmcs);
    let fault = if compatibility { Err(Fault::Ud) } else { Ok(()) };
    let cpl = privilege_level(cpu.vmcs());
    match fault.and_then(|()| admitted(vcpu, cpl)) {
        Ok(nested) => {
            let outcome = nested.fail(InstructionError::VMCALL_IN_VMX_ROOT);
            finish(vcpu, cpu, outcome)
        }
        Err(fault) => vcpu.inject_fault(cpu, fault),
    }
}

fn vmxoff<C: Cpu, W: World>(vcpu: &mut Vcpu, cpu: &mut C, world: &W) -> Result<Next, Fault> {
    let cpl = privilege_level(cpu.vmcs());
    let outcome = admitted(vcpu, cpl)?.vmxoff(cpu, world.memory());
    cpu.vmcs().write(CR0_GUEST_HOST_MASK, CR0_OWNED.bits());
    // An INIT that was blocked comes now.
    Ok(finish(vcpu, cpu, outcome).attending())
}

/// VMPTRST.
#[inline(never)]
pub(super) fn vmptrst<C: Cpu, W: World>(vcpu: &mut Vcpu, cpu: &mut C, world: &W) -> Next {
    let cpl = privilege_level(cpu.vmcs());
    let stored = admitted(vcpu, cpl).map(|nested| nested.vmptrst()).and_then(|pointer| {
        let info = InstructionInfo(cpu.vmcs().read(VM_EXIT_INSTRUCTION_INFO));
        store(vcpu, cpu, world.memory(), info, pointer)
    });
    match stored {
        Ok(()) => finish(vcpu, cpu, Outcome::Succeed),
        Err(fault) => vcpu.inject_fault(cpu, fault),
    }
}

/// VMREAD into a register; other operands and failures go the long way.
#[inline(always)]
pub(super) fn vmread<C: Cpu, W: World>(vcpu: &mut Vcpu, cpu: &mut C, world: &W) -> Next {
    let cpl = privilege_level(cpu.vmcs());
    let info = InstructionInfo(cpu.vmcs().read(VM_EXIT_INSTRUCTION_INFO));
    match &mut vcpu.nested {
        Some(nested) if nested.may_execute(cpl).is_ok() && nested.has_current() && info.is_register() => {
            let encoding = register(&vcpu.regs, cpu.vmcs(), info.number_2());
            match nested.vmread_at_hand(encoding) {
                Some(value) => {
                    put_into_register(&mut vcpu.regs, cpu.vmcs(), info, value);
                    finish(vcpu, cpu, Outcome::Succeed)
                }
                None => field_access_slowly(vcpu, cpu, world, info, true),
            }
        }
        _ => field_access_slowly(vcpu, cpu, world, info, true),
    }
}

/// VMWRITE from a register; other operands and failures go the long way.
#[inline(always)]
pub(super) fn vmwrite<C: Cpu, W: World>(vcpu: &mut Vcpu, cpu: &mut C, world: &W) -> Next {
    let cpl = privilege_level(cpu.vmcs());
    let info = InstructionInfo(cpu.vmcs().read(VM_EXIT_INSTRUCTION_INFO));
    match &mut vcpu.nested {
        Some(nested) if nested.may_execute(cpl).is_ok() && nested.has_current() && info.is_register() => {
            let encoding = register(&vcpu.regs, cpu.vmcs(), info.number_2());
            let value = register(&vcpu.regs, cpu.vmcs(), info.number_1());
            let outcome = nested.vmwrite(cpu, encoding, value);
            finish(vcpu, cpu, outcome)
        }
        _ => field_access_slowly(vcpu, cpu, world, info, false),
    }
}

/// VMREAD or VMWRITE, whatever comes of it.
#[inline(never)]
fn field_access_slowly<C: Cpu, W: World>(
    vcpu: &mut Vcpu,
    cpu: &mut C,
    world: &W,
    info: InstructionInfo,
    reads: bool,
) -> Next {
    match field_access(vcpu, cpu, world, info, reads) {
        Ok(outcome) => finish(vcpu, cpu, outcome),
        Err(fault) => vcpu.inject_fault(cpu, fault),
    }
}

fn field_access<C: Cpu, W: World>(
    vcpu: &mut Vcpu,
    cpu: &mut C,
    world: &W,
    info: InstructionInfo,
    reads: bool,
) -> Result<Outcome, Fault> {
    let cpl = privilege_level(cpu.vmcs());
    if !admitted(vcpu, cpl)?.has_current() {
        return Ok(Outcome::FailInvalid);
    }
    let encoding = register(&vcpu.regs, cpu.vmcs(), info.number_2());
    if reads {
        match admitted(vcpu, cpl)?.vmread(cpu, encoding) {
            Ok(value) => put(vcpu, cpu, world.memory(), info, value).map(|()| Outcome::Succeed),
            Err(outcome) => Ok(outcome),
        }
    } else {
        let value = take(vcpu, cpu, world.memory(), info)?;
        Ok(admitted(vcpu, cpl)?.vmwrite(cpu, encoding, value))
    }
}

/// VMLAUNCH and VMRESUME.
#[inline(always)]
pub(super) fn enter<C: Cpu, W: World>(vcpu: &mut Vcpu, cpu: &mut C, world: &W, launch: bool) -> Next {
    let cpl = privilege_level(cpu.vmcs());
    if let Err(fault) = admitted(vcpu, cpl) {
        return vcpu.inject_fault(cpu, fault);
    }
    let [requested, _] =
        if vcpu.apic.is_left_to_processor() { cpu.vmcs().read(GUEST_INTERRUPT_STATUS).to_le_bytes() } else { [0; 2] };
    let Some(nested) = vcpu.nested.take() else { return Next::Resume };
    let l1 = L1Processor { tsc_offset: vcpu.tsc_offset, has_sgx: false, has_rtm: vcpu.cpuid.has_rtm() };
    let mut refused = |refusal: Refusal<'_>| report(world, refusal);
    let entry = nested.enter(cpu, world.memory(), &mut ListedMsrs { vcpu, world }, launch, &l1, &mut refused);
    if vcpu.tsc_offset != l1.tsc_offset && nested.in_l2() {
        nested.move_tsc(cpu, vcpu.tsc_offset);
    }
    vcpu.nested = Some(nested);
    match entry {
        Entry::Entered { activity } => entered(vcpu, world, activity, requested != 0),
        other => not_entered(vcpu, cpu, other),
    }
}

#[inline(never)]
fn not_entered(vcpu: &mut Vcpu, cpu: &mut impl Cpu, entry: Entry) -> Next {
    match entry {
        Entry::Failed(outcome) => finish(vcpu, cpu, outcome),
        Entry::Exited | Entry::Entered { .. } => Next::Attend,
        Entry::Aborted(abort) => vcpu.stops(Stop::VmxAbort(abort)),
    }
}

/// L2 is the guest from here on. `requested`: the processor had an interrupt for L1.
#[inline(always)]
fn entered<W: World>(vcpu: &mut Vcpu, world: &W, activity: u32, requested: bool) -> Next {
    vcpu.in_l2 = true;
    if let Some(posted) = vcpu.nested.as_ref().and_then(|nested| nested.posted()) {
        l2_takes_posts(vcpu, world, posted);
    }
    if activity != 0 {
        // It does not run, so that there is no entry to wait for.
        vcpu.activity = if activity == 3 { Activity::WaitForSipi } else { Activity::Halted };
        if let Some(nested) = &mut vcpu.nested {
            nested.entered();
        }
        return Next::Attend;
    }
    if vcpu.has_event_for_l2(requested) { Next::Attend } else { Next::Resume }
}

/// Notifications that the APIC would hold back are L0's.
#[cold]
#[inline(never)]
fn l2_takes_posts<W: World>(vcpu: &Vcpu, world: &W, posted: &Posted) {
    world.l2_takes_posts(Some(posted).filter(|posted| vcpu.apic.would_take(posted.notification)));
}

#[cold]
fn report(world: &impl World, refusal: Refusal<'_>) {
    world.report(Report::EntryOfL1Failed(refusal.explanation()));
}
