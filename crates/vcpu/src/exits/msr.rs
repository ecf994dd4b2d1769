//! RDMSR and WRMSR of registers that L0 keeps.

use arch::{Fault, GuestMemory, Msr};
use vlapic::Mode;
use vmcs::Access;
use vmcs::fields::*;

use crate::cpu::Cpu;
use crate::exits::Next;
use crate::exits::instruction::privilege_level;
use crate::skip::skip_instruction;
use crate::state::Vcpu;
use crate::stop::Stop;
use crate::world::{Report, World};

/// MCG_CAP: no bank, nothing optional. Machine checks are L0's; L1 sees a machine that never had one.
const MCG_CAP: u64 = 0;

/// Registers that only inform, read from the machine where it has them.
const INFORMATIVE: [Msr; 2] = [Msr::PLATFORM_INFO, Msr::PERF_STATUS];

/// Architectural since the P6 family, and read by kernels and hypervisors before they can take a fault: 0 where the
/// machine, an emulated one, lacks them.
const ARCHITECTURAL: [Msr; 2] = [Msr::PLATFORM_ID, Msr::BIOS_SIGN_ID];

/// IA32_MISC_ENABLE as L1 finds it: fast strings on (bit 0), neither branch trace storage (bit 11) nor event-based sampling
/// (bit 12). Kernels read it without a fault handler, before they have one, so it is there on every machine.
pub(crate) const MISC_ENABLE_RESET: u64 = 1 << 0 | 1 << 11 | 1 << 12;
/// Its bits that say what is unavailable: read-only.
const MISC_ENABLE_FIXED: u64 = 1 << 11 | 1 << 12;
/// Its bits that exist (SDM 4 2.1 "Architectural MSRs"): fast strings, thermal control, performance monitoring, SpeedStep,
/// MONITOR, CPUID limit, xTPR messages, XD disable.
const MISC_ENABLE_DEFINED: u64 = 0x4_00c5_1889;

#[inline]
pub(super) fn read<C: Cpu, W: World>(vcpu: &mut Vcpu, cpu: &mut C, world: &W) -> Next {
    let msr = Msr(vcpu.regs.ecx());
    match read_value(vcpu, cpu, msr) {
        Ok(value) => {
            vcpu.regs.set_edx_eax(value);
            let next = skip_instruction(vcpu, cpu);
            // The registers of the APIC go back to the processor that had them.
            if vcpu.apic.is_lent() { next } else { next.attending() }
        }
        Err(fault) => refuse(vcpu, cpu, world, Report::UnknownMsr { msr, write: false }, fault),
    }
}

#[inline]
pub(super) fn write<C: Cpu, W: World>(vcpu: &mut Vcpu, cpu: &mut C, world: &W) -> Next {
    let msr = Msr(vcpu.regs.ecx());
    let value = vcpu.regs.edx_eax();
    match write_value(vcpu, cpu, world, msr, value) {
        Ok(()) if msr == Msr::APIC_BASE && is_over_memory(vcpu, world) => {
            vcpu.stops(Stop::ApicOverMemory(vcpu.apic.settings().base()))
        }
        // Timers, priorities or the TSC may have moved.
        Ok(()) => skip_instruction(vcpu, cpu).attending(),
        Err(fault) => refuse(vcpu, cpu, world, Report::UnknownMsr { msr, write: true }, fault),
    }
}

/// Whether the APIC's register page lies where RAM is (SDM 3A 11.4.5 "Relocating the Local APIC Registers").
fn is_over_memory(vcpu: &Vcpu, world: &impl World) -> bool {
    let apic = vcpu.apic.settings();
    apic.mode() == Mode::Xapic && world.memory().read(apic.base(), &mut [0]).is_ok()
}

/// The fault, with a line in the log when the kernel of a guest made it: user code is stopped before the exit.
fn refuse<C: Cpu, W: World>(vcpu: &mut Vcpu, cpu: &mut C, world: &W, report: Report, fault: Fault) -> Next {
    if privilege_level(cpu.vmcs()) == 0 {
        world.report(report);
    }
    vcpu.inject_fault(cpu, fault)
}

pub(super) fn read_value(vcpu: &mut Vcpu, cpu: &mut impl Cpu, msr: Msr) -> Result<u64, Fault> {
    let now = cpu.tsc().wrapping_add(vcpu.tsc_offset);
    match msr {
        Msr::APIC_BASE => Ok(vcpu.apic.settings().apic_base()),
        Msr::TSC_DEADLINE => vcpu.apic.timer(now).read_msr(msr, now),
        Msr(0x800..=0x8ff) => vcpu.apic.registers().read_msr(msr, now),
        Msr::TSC_ADJUST => Ok(vcpu.tsc_adjust),
        Msr(0x480..=0x493) => vcpu.nested.as_ref().and_then(|nested| nested.msrs().read(msr)).ok_or(Fault::Gp(0)),
        // Locked, with VMX on outside SMX.
        Msr::FEATURE_CONTROL if vcpu.nested.is_some() => Ok(0b101),
        Msr::DEBUGCTL => Ok(cpu.vmcs().read(GUEST_IA32_DEBUGCTL)),
        Msr::MISC_ENABLE => Ok(vcpu.misc_enable),
        Msr::MCG_CAP => Ok(MCG_CAP),
        Msr::MCG_STATUS => Ok(vcpu.mcg_status),
        Msr::P5_MC_ADDR | Msr::P5_MC_TYPE => Ok(0),
        Msr::XSS if vcpu.cpuid.lookup(0xd, 1).0.eax & 8 != 0 => Ok(0),
        _ if ARCHITECTURAL.contains(&msr) => Ok(cpu.machine_msr(msr).unwrap_or(0)),
        _ if INFORMATIVE.contains(&msr) => cpu.machine_msr(msr).ok_or(Fault::Gp(0)),
        _ => vcpu.mtrrs.read(msr).ok_or(Fault::Gp(0)),
    }
}

pub(super) fn write_value<C: Cpu, W: World>(
    vcpu: &mut Vcpu,
    cpu: &mut C,
    world: &W,
    msr: Msr,
    value: u64,
) -> Result<(), Fault> {
    let tsc = cpu.tsc();
    match msr {
        Msr::TSC_DEADLINE => {
            let now = tsc.wrapping_add(vcpu.tsc_offset);
            vcpu.apic.timer(now).write_msr(msr, value, now, world)
        }
        Msr::APIC_BASE | Msr(0x800..=0x8ff) => {
            vcpu.apic.registers().write_msr(msr, value, tsc.wrapping_add(vcpu.tsc_offset), world)
        }
        // Writing either register moves both (SDM 3B 18.17.3 "Time-Stamp Counter Adjustment").
        Msr::TSC => {
            move_tsc(vcpu, cpu, value.wrapping_sub(tsc.wrapping_add(vcpu.tsc_offset)));
            Ok(())
        }
        // Last-branch records and branch stepping; the rest is not offered.
        Msr::DEBUGCTL if value & !0b11 == 0 => {
            cpu.vmcs().write(GUEST_IA32_DEBUGCTL, value);
            Ok(())
        }
        Msr::TSC_ADJUST => {
            move_tsc(vcpu, cpu, value.wrapping_sub(vcpu.tsc_adjust));
            Ok(())
        }
        Msr::MCG_STATUS if value <= 0b111 => {
            vcpu.mcg_status = value;
            Ok(())
        }
        Msr::P5_MC_ADDR | Msr::P5_MC_TYPE => Ok(()),
        // A microcode update has no effect; its trigger and its signature register are written before it is read.
        Msr::BIOS_SIGN_ID => Ok(()),
        // No supervisor state component is offered.
        Msr::XSS if value == 0 && vcpu.cpuid.lookup(0xd, 1).0.eax & 8 != 0 => Ok(()),
        // Kept, without effect: what the bits switch, L1 either does not have or cannot do without.
        Msr::MISC_ENABLE if value & !MISC_ENABLE_DEFINED == 0 => {
            vcpu.misc_enable = value | MISC_ENABLE_FIXED;
            Ok(())
        }
        _ => vcpu.mtrrs.write(msr, value).unwrap_or(Err(Fault::Gp(0))),
    }
}

/// The guest's TSC jumps by `by`.
fn move_tsc(vcpu: &mut Vcpu, cpu: &mut impl Cpu, by: u64) {
    let before = cpu.tsc().wrapping_add(vcpu.tsc_offset);
    vcpu.tsc_offset = vcpu.tsc_offset.wrapping_add(by);
    vcpu.tsc_adjust = vcpu.tsc_adjust.wrapping_add(by);
    vcpu.apic.registers().tsc_written(before, before.wrapping_add(by));
    match &mut vcpu.nested {
        Some(nested) if nested.in_l2() => nested.move_tsc(cpu, vcpu.tsc_offset),
        _ => cpu.vmcs().write(TSC_OFFSET, vcpu.tsc_offset),
    }
}
