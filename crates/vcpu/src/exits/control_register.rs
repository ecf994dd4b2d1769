//! MOV to CR0 and CR4 that changes a bit of L0's, and CR8.

use arch::control::{Cr0, Cr4, Efer};
use arch::segment::AccessRights;
use arch::{Fault, Gpr};
use vmcs::Access;
use vmcs::fields::*;
use vmcs::qualification::CrAccess;

use crate::control_registers::{CR0_OWNED, cr0_is_legal, cr4_owned};
use crate::cpu::Cpu;
use crate::exits::Next;
use crate::skip::skip_instruction;
use crate::state::Vcpu;
use crate::stop::Stop;
use crate::world::World;

pub(super) fn handle<C: Cpu, W: World>(vcpu: &mut Vcpu, cpu: &mut C, world: &W, access: CrAccess) -> Next {
    match access {
        CrAccess::MovTo { register: 0, source } => mov_to_cr0(vcpu, cpu, source),
        CrAccess::MovTo { register: 4, source } => mov_to_cr4(vcpu, cpu, source),
        CrAccess::MovTo { register: 8, source } => mov_to_cr8(vcpu, cpu, world, source),
        CrAccess::MovFrom { register: 8, destination } => {
            let value = vcpu.apic.registers().cr8();
            write_gpr(vcpu, cpu, destination, value);
            skip_instruction(vcpu, cpu).attending()
        }
        // CLTS and LMSW change only bits that the guest owns; CR3 does not exit.
        _ => vcpu.stops(Stop::UnexpectedExit(28)),
    }
}

/// The owned bits go into the read shadow (in VMX operation of L1's, PE and PG are owned too: they stay); then the guest executes its MOV again, and no owned bit differs.
fn mov_to_cr0(vcpu: &mut Vcpu, cpu: &mut impl Cpu, source: Gpr) -> Next {
    let cr4 = Cr4::from_bits_retain(cpu.vmcs().read(GUEST_CR4));
    let efer = Efer::from_bits_retain(cpu.vmcs().read(GUEST_IA32_EFER));
    let long = AccessRights(cpu.vmcs().read(GUEST_CS_ACCESS_RIGHTS)).is_long();
    let value = read_operand(vcpu, cpu, source);
    let fits = vcpu.fits_vmx_operation(|offered| offered.cr0.permits(value));
    if !fits || !cr0_is_legal(value, cr4, efer, long && efer.contains(Efer::LMA)) {
        return vcpu.inject_fault(cpu, Fault::Gp(0));
    }
    let owned = CR0_OWNED.bits();
    let shadow = cpu.vmcs().read(CR0_READ_SHADOW);
    cpu.vmcs().write(CR0_READ_SHADOW, shadow & !owned | value & owned | Cr0::ET.bits());
    Next::Resume
}

fn mov_to_cr4(vcpu: &mut Vcpu, cpu: &mut impl Cpu, source: Gpr) -> Next {
    let value = read_operand(vcpu, cpu, source);
    let fits = vcpu.fits_vmx_operation(|offered| offered.cr4.permits(value));
    if !fits || value & !vcpu.cr4_offered.bits() != 0 {
        return vcpu.inject_fault(cpu, Fault::Gp(0));
    }
    let owned = cr4_owned(vcpu.cr4_offered);
    let shadow = cpu.vmcs().read(CR4_READ_SHADOW);
    cpu.vmcs().write(CR4_READ_SHADOW, shadow & !owned | value & owned);
    Next::Resume
}

pub(super) fn mov_to_cr8(vcpu: &mut Vcpu, cpu: &mut impl Cpu, world: &impl World, source: Gpr) -> Next {
    let value = read_gpr(vcpu, cpu, source);
    if let Err(fault) = vcpu.apic.registers().set_cr8(value, world) {
        return vcpu.inject_fault(cpu, fault);
    }
    skip_instruction(vcpu, cpu).attending()
}

/// The source of a MOV to a control register: 64 bits in 64-bit mode, 32 bits elsewhere.
pub(super) fn read_operand(vcpu: &Vcpu, cpu: &mut impl Cpu, register: Gpr) -> u64 {
    let value = read_gpr(vcpu, cpu, register);
    let in_long_mode = cpu.vmcs().read(GUEST_IA32_EFER) & Efer::LMA.bits() != 0;
    if in_long_mode && AccessRights(cpu.vmcs().read(GUEST_CS_ACCESS_RIGHTS)).is_long() {
        value
    } else {
        value & 0xffff_ffff
    }
}

fn read_gpr(vcpu: &Vcpu, cpu: &mut impl Cpu, register: Gpr) -> u64 {
    if register == Gpr::Rsp { cpu.vmcs().read(GUEST_RSP) } else { vcpu.regs.get(register) }
}

fn write_gpr(vcpu: &mut Vcpu, cpu: &mut impl Cpu, register: Gpr, value: u64) {
    if register == Gpr::Rsp { cpu.vmcs().write(GUEST_RSP, value) } else { vcpu.regs.set(register, value) }
}
