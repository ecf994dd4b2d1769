//! VMX instructions that L1 executes: their operands, and where L1 goes on.

use core::sync::atomic::{AtomicU64, Ordering};

use arch::control::{Cr0, Efer};
use arch::segment::{AccessRights, SegmentName};
use arch::{Fault, Gpr, GuestRegs, Width};
use emulate::{Remembered, read_operand, write_operand};
use nested::{Entry, L1Processor, Nested, Outcome, Permission, Refusal};
use vmcs::fields::*;
use vmcs::instruction_info::InstructionOperand;
use vmcs::{Access, InstructionError, InstructionInfo, VmxInstruction};

use crate::control_registers::CR0_OWNED;
use crate::cpu::Cpu;
use crate::exits::Next;
use crate::exits::instruction::privilege_level;
use crate::exits::msr_list::ListedMsrs;
use crate::registers::{VmcsRegisters, kernel};
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
        VmxInstruction::Vmread(_) => return Ok(vmread(vcpu, cpu, world)),
        VmxInstruction::Vmwrite(_) => return Ok(vmwrite(vcpu, cpu, world)),
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
            let kind = register(vcpu, cpu, operand.info.register_2());
            admitted(vcpu, cpl)?.invept(cpu, kind, eptp)
        }
        VmxInstruction::Invvpid(operand) => {
            admitted(vcpu, cpl)?;
            let descriptor = load(vcpu, cpu, world.memory(), operand.info, 16)?;
            let kind = register(vcpu, cpu, operand.info.register_2());
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
            let encoding = numbered(&vcpu.regs, cpu.vmcs(), info.number_2());
            match nested.vmread_at_hand(encoding) {
                Some(value) => {
                    put_into_register(&mut vcpu.regs, cpu.vmcs(), info, value);
                    finish(vcpu, cpu, Outcome::Succeed)
                }
                None => field_access_slowly(vcpu, cpu, world, cpl, info, true),
            }
        }
        _ => field_access_slowly(vcpu, cpu, world, cpl, info, true),
    }
}

/// VMWRITE from a register; other operands and failures go the long way.
#[inline(always)]
pub(super) fn vmwrite<C: Cpu, W: World>(vcpu: &mut Vcpu, cpu: &mut C, world: &W) -> Next {
    let cpl = privilege_level(cpu.vmcs());
    let info = InstructionInfo(cpu.vmcs().read(VM_EXIT_INSTRUCTION_INFO));
    match &mut vcpu.nested {
        Some(nested) if nested.may_execute(cpl).is_ok() && nested.has_current() && info.is_register() => {
            let encoding = numbered(&vcpu.regs, cpu.vmcs(), info.number_2());
            let value = take_from_register(&vcpu.regs, cpu.vmcs(), info);
            let outcome = nested.vmwrite(cpu, encoding, value);
            finish(vcpu, cpu, outcome)
        }
        _ => field_access_slowly(vcpu, cpu, world, cpl, info, false),
    }
}

/// VMREAD or VMWRITE, whatever comes of it.
#[inline(never)]
fn field_access_slowly<C: Cpu, W: World>(
    vcpu: &mut Vcpu,
    cpu: &mut C,
    world: &W,
    cpl: u32,
    info: InstructionInfo,
    reads: bool,
) -> Next {
    match field_access(vcpu, cpu, world, cpl, info, reads) {
        Ok(outcome) => finish(vcpu, cpu, outcome),
        Err(fault) => vcpu.inject_fault(cpu, fault),
    }
}

fn field_access<C: Cpu, W: World>(
    vcpu: &mut Vcpu,
    cpu: &mut C,
    world: &W,
    cpl: u32,
    info: InstructionInfo,
    reads: bool,
) -> Result<Outcome, Fault> {
    if !admitted(vcpu, cpl)?.has_current() {
        return Ok(Outcome::FailInvalid);
    }
    let encoding = numbered(&vcpu.regs, cpu.vmcs(), info.number_2());
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
    let Some(nested) = vcpu.nested.take() else { return Next::Resume };
    let l1 = L1Processor { tsc_offset: vcpu.tsc_offset, has_sgx: false, has_rtm: vcpu.cpuid.has_rtm() };
    let mut refused = |refusal: Refusal<'_>| report(world, refusal);
    let entry = nested.enter(cpu, world.memory(), &mut ListedMsrs { vcpu, world }, launch, &l1, &mut refused);
    if vcpu.tsc_offset != l1.tsc_offset && nested.in_l2() {
        nested.move_tsc(cpu, vcpu.tsc_offset);
    }
    vcpu.nested = Some(nested);
    match entry {
        Entry::Failed(outcome) => finish(vcpu, cpu, outcome),
        Entry::Entered { activity } => entered(vcpu, activity),
        Entry::Exited => Next::Attend,
        Entry::Aborted(abort) => vcpu.stops(Stop::VmxAbort(abort)),
    }
}

/// L2 is the guest from here on.
#[inline(always)]
fn entered(vcpu: &mut Vcpu, activity: u32) -> Next {
    vcpu.in_l2 = true;
    if activity != 0 {
        // It does not run, so that there is no entry to wait for.
        vcpu.activity = if activity == 3 { Activity::WaitForSipi } else { Activity::Halted };
        if let Some(nested) = &mut vcpu.nested {
            nested.entered();
        }
        return Next::Attend;
    }
    if vcpu.has_event_for_l2() { Next::Attend } else { Next::Resume }
}

#[cold]
fn report(world: &impl World, refusal: Refusal<'_>) {
    world.report(Report::EntryOfL1Failed(refusal.explanation()));
}

/// A general register of the guest that ran last.
#[inline(always)]
pub(super) fn register(vcpu: &Vcpu, cpu: &mut impl Cpu, gpr: Gpr) -> u64 {
    if gpr == Gpr::Rsp { cpu.vmcs().read(GUEST_RSP) } else { vcpu.regs.get(gpr) }
}

/// The same by number.
#[inline(always)]
fn numbered(regs: &GuestRegs, vmcs: &impl Access, number: u32) -> u64 {
    if number == Gpr::Rsp as u32 { vmcs.read(GUEST_RSP) } else { regs.get_numbered(number) }
}

/// The register operand of VMWRITE: 64 bits in 64-bit mode, 32 elsewhere.
#[inline(always)]
fn take_from_register(regs: &GuestRegs, vmcs: &impl Access, info: InstructionInfo) -> u64 {
    let value = numbered(regs, vmcs, info.number_1());
    if value >> 32 == 0 || is_64_bit(vmcs) { value } else { value & 0xffff_ffff }
}

/// The register operand of VMREAD, likewise.
#[inline(always)]
fn put_into_register(regs: &mut GuestRegs, vmcs: &mut impl Access, info: InstructionInfo, value: u64) {
    let value = if value >> 32 == 0 || is_64_bit(vmcs) { value } else { value & 0xffff_ffff };
    let number = info.number_1();
    if number == Gpr::Rsp as u32 { vmcs.write(GUEST_RSP, value) } else { regs.set_numbered(number, value) }
}

/// Whether the guest that ran last is in 64-bit mode, where VMREAD and VMWRITE have 64-bit operands.
#[inline(always)]
fn is_64_bit(vmcs: &impl Access) -> bool {
    AccessRights(vmcs.read(GUEST_CS_ACCESS_RIGHTS)).is_long() && vmcs.read(GUEST_IA32_EFER) & Efer::LMA.bits() != 0
}

/// What VMWRITE writes.
pub(super) fn take<C: Cpu>(
    vcpu: &mut Vcpu,
    cpu: &mut C,
    memory: &impl arch::GuestMemory,
    info: InstructionInfo,
) -> Result<u64, Fault> {
    if !info.is_register() {
        return take_from_memory(vcpu, cpu, memory, info);
    }
    Ok(take_from_register(&vcpu.regs, cpu.vmcs(), info))
}

#[inline(never)]
fn take_from_memory<C: Cpu>(
    vcpu: &mut Vcpu,
    cpu: &mut C,
    memory: &impl arch::GuestMemory,
    info: InstructionInfo,
) -> Result<u64, Fault> {
    let bytes = if is_64_bit(cpu.vmcs()) { 8 } else { 4 };
    load(vcpu, cpu, memory, info, bytes).map(|[value, _]| value)
}

/// Where VMREAD puts what it read.
pub(super) fn put<C: Cpu>(
    vcpu: &mut Vcpu,
    cpu: &mut C,
    memory: &impl arch::GuestMemory,
    info: InstructionInfo,
    value: u64,
) -> Result<(), Fault> {
    if !info.is_register() {
        return put_into_memory(vcpu, cpu, memory, info, value);
    }
    put_into_register(&mut vcpu.regs, cpu.vmcs(), info, value);
    Ok(())
}

#[inline(never)]
fn put_into_memory<C: Cpu>(
    vcpu: &mut Vcpu,
    cpu: &mut C,
    memory: &impl arch::GuestMemory,
    info: InstructionInfo,
    value: u64,
) -> Result<(), Fault> {
    if is_64_bit(cpu.vmcs()) {
        return store(vcpu, cpu, memory, info, value);
    }
    let offset = offset(&vcpu.regs, cpu.vmcs(), info);
    write_operand(&registers(vcpu, cpu), memory, info.segment(), offset, &value.to_le_bytes()[..4])
}

/// Reads the memory operand of an instruction that has one: up to 16 bytes, as words.
fn load<C: Cpu>(
    vcpu: &mut Vcpu,
    cpu: &mut C,
    memory: &impl arch::GuestMemory,
    info: InstructionInfo,
    bytes: usize,
) -> Result<[u64; 2], Fault> {
    let offset = offset(&vcpu.regs, cpu.vmcs(), info);
    if bytes == 8
        && let Some(word) = word(vcpu, cpu, memory, info, offset)
    {
        return Ok([word.load(Ordering::Relaxed), 0]);
    }
    let mut value = [0; 16];
    read_operand(&registers(vcpu, cpu), memory, info.segment(), offset, &mut value[..bytes])?;
    let [low, high] = [0, 8].map(|at| {
        let mut word = [0; 8];
        word.copy_from_slice(&value[at..at + 8]);
        u64::from_le_bytes(word)
    });
    Ok([low, high])
}

/// Writes a memory operand of 64 bits.
#[inline(always)]
fn store<C: Cpu>(
    vcpu: &mut Vcpu,
    cpu: &mut C,
    memory: &impl arch::GuestMemory,
    info: InstructionInfo,
    value: u64,
) -> Result<(), Fault> {
    let offset = offset(&vcpu.regs, cpu.vmcs(), info);
    match word(vcpu, cpu, memory, info, offset) {
        Some(word) => {
            word.store(value, Ordering::Relaxed);
            Ok(())
        }
        None => write_operand(&registers(vcpu, cpu), memory, info.segment(), offset, &value.to_le_bytes()),
    }
}

/// The operand at `offset`, 64 bits wide, in the frequent case: an aligned word that a 64-bit kernel may write.
#[inline(always)]
fn word<C: Cpu>(
    vcpu: &mut Vcpu,
    cpu: &mut C,
    memory: &impl arch::GuestMemory,
    info: InstructionInfo,
    offset: u64,
) -> Option<&'static AtomicU64> {
    // In 64-bit mode only FS and GS have bases.
    if offset & 7 != 0 || matches!(info.segment(), SegmentName::Fs | SegmentName::Gs) {
        return None;
    }
    let kernel = kernel(cpu.vmcs(), vcpu.cpuid.physical_address_bits())?;
    if let Some(remembered) = &vcpu.operand
        && let Some(word) = remembered.word(kernel, offset)
    {
        return Some(word);
    }
    vcpu.operand = Remembered::walk(memory, kernel, offset);
    vcpu.operand.as_ref()?.word(kernel, offset)
}

fn registers<'a, C: Cpu>(vcpu: &'a mut Vcpu, cpu: &'a mut C) -> VmcsRegisters<'a, C::Vmcs> {
    let rip = cpu.vmcs().read(GUEST_RIP);
    VmcsRegisters {
        vmcs: cpu.vmcs(),
        regs: &mut vcpu.regs,
        rip,
        physical_width: vcpu.cpuid.physical_address_bits(),
        gigabyte_pages: vcpu.cpuid.has_gigabyte_pages(),
    }
}

/// The effective address of the memory operand, as wide as the instruction's addresses are.
#[inline(always)]
fn offset(regs: &GuestRegs, vmcs: &impl Access, info: InstructionInfo) -> u64 {
    let mut sum = vmcs.read(EXIT_QUALIFICATION);
    if let Some(base) = info.base_number() {
        sum = sum.wrapping_add(numbered(regs, vmcs, base));
    }
    if let Some(index) = info.index_number() {
        sum = sum.wrapping_add(numbered(regs, vmcs, index) << info.index_shift());
    }
    match info.address_size() {
        Width::Qword => sum,
        Width::Dword => sum & 0xffff_ffff,
        _ => sum & 0xffff,
    }
}
