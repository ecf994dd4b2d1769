//! The operands of VMX instructions: where they are, and what is there.

use core::sync::atomic::{AtomicU64, Ordering};

use arch::control::Efer;
use arch::segment::{AccessRights, SegmentName};
use arch::{Fault, Gpr, GuestMemory, GuestRegs, Width};
use emulate::{Remembered, read_operand, write_operand};
use vmcs::fields::*;
use vmcs::{Access, InstructionInfo};

use crate::cpu::Cpu;
use crate::registers::{VmcsRegisters, kernel};
use crate::state::Vcpu;

/// A general register of the guest that ran last, all 64 bits of it.
#[inline(always)]
fn numbered(regs: &GuestRegs, vmcs: &impl Access, number: u32) -> u64 {
    if number == Gpr::Rsp as u32 { vmcs.read(GUEST_RSP) } else { regs.get_numbered(number) }
}

/// A register as the operand of a VMX instruction: 64 bits in 64-bit mode, 32 elsewhere, where the high half may hold anything.
#[inline(always)]
pub(super) fn register(regs: &GuestRegs, vmcs: &impl Access, number: u32) -> u64 {
    let value = numbered(regs, vmcs, number);
    if value >> 32 == 0 || is_64_bit(vmcs) { value } else { value & 0xffff_ffff }
}

/// The register operand of VMREAD, likewise.
#[inline(always)]
pub(super) fn put_into_register(regs: &mut GuestRegs, vmcs: &mut impl Access, info: InstructionInfo, value: u64) {
    let value = if value >> 32 == 0 || is_64_bit(vmcs) { value } else { value & 0xffff_ffff };
    let number = info.number_1();
    if number == Gpr::Rsp as u32 { vmcs.write(GUEST_RSP, value) } else { regs.set_numbered(number, value) }
}

/// Whether the guest that ran last is in 64-bit mode, where VMREAD and VMWRITE have 64-bit operands.
#[inline(always)]
pub(super) fn is_64_bit(vmcs: &impl Access) -> bool {
    AccessRights(vmcs.read(GUEST_CS_ACCESS_RIGHTS)).is_long() && vmcs.read(GUEST_IA32_EFER) & Efer::LMA.bits() != 0
}

/// What VMWRITE writes.
pub(super) fn take<C: Cpu>(
    vcpu: &mut Vcpu,
    cpu: &mut C,
    memory: &dyn GuestMemory,
    info: InstructionInfo,
) -> Result<u64, Fault> {
    if !info.is_register() {
        return take_from_memory(vcpu, cpu, memory, info);
    }
    Ok(register(&vcpu.regs, cpu.vmcs(), info.number_1()))
}

#[inline(never)]
fn take_from_memory<C: Cpu>(
    vcpu: &mut Vcpu,
    cpu: &mut C,
    memory: &dyn GuestMemory,
    info: InstructionInfo,
) -> Result<u64, Fault> {
    let bytes = if is_64_bit(cpu.vmcs()) { 8 } else { 4 };
    load(vcpu, cpu, memory, info, bytes).map(|[value, _]| value)
}

/// Where VMREAD puts what it read.
pub(super) fn put<C: Cpu>(
    vcpu: &mut Vcpu,
    cpu: &mut C,
    memory: &dyn GuestMemory,
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
    memory: &dyn GuestMemory,
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
pub(super) fn load<C: Cpu>(
    vcpu: &mut Vcpu,
    cpu: &mut C,
    memory: &dyn GuestMemory,
    info: InstructionInfo,
    bytes: usize,
) -> Result<[u64; 2], Fault> {
    let offset = offset(&vcpu.regs, cpu.vmcs(), info);
    if bytes >= 8
        && let Some(low) = word(vcpu, cpu, memory, info, offset)
    {
        let low = low.load(Ordering::Relaxed);
        if bytes == 8 {
            return Ok([low, 0]);
        }
        if let Some(high) = next_word(vcpu, cpu, memory, info, offset) {
            return Ok([low, high]);
        }
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

/// The second half of an operand of 128 bits, in the frequent case.
#[inline(never)]
fn next_word<C: Cpu>(
    vcpu: &mut Vcpu,
    cpu: &mut C,
    memory: &dyn GuestMemory,
    info: InstructionInfo,
    offset: u64,
) -> Option<u64> {
    word(vcpu, cpu, memory, info, offset.wrapping_add(8)).map(|word| word.load(Ordering::Relaxed))
}

/// Writes a memory operand of 64 bits.
#[inline(always)]
pub(crate) fn store<C: Cpu>(
    vcpu: &mut Vcpu,
    cpu: &mut C,
    memory: &dyn GuestMemory,
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

/// The operand at `offset`, 64 bits wide, in the frequent case: an aligned word that L1 may write as a 64-bit kernel. An L2
/// with the same CR3 is not meant: its memory is another one.
#[inline(always)]
fn word<C: Cpu>(
    vcpu: &mut Vcpu,
    cpu: &mut C,
    memory: &dyn GuestMemory,
    info: InstructionInfo,
    offset: u64,
) -> Option<&'static AtomicU64> {
    // In 64-bit mode only FS and GS have bases.
    if vcpu.in_l2 || offset & 7 != 0 || matches!(info.segment(), SegmentName::Fs | SegmentName::Gs) {
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
    VmcsRegisters::new(cpu.vmcs(), &mut vcpu.regs, &vcpu.cpuid, rip)
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
