//! EPT violations: device memory, and addresses where nothing is.
//!
//! L1's RAM is mapped whole, so every violation is an access outside of it. Device registers are emulated instruction
//! by instruction; where no device answers, a machine reads all ones and loses what is written.

use arch::{Fault, GuestPhys, Linear, Width};
use emulate::{Device, Done, Failure};
use nested::L1Apic;
use vlapic::Mode;
use vmcs::fields::*;
use vmcs::qualification::{EptQualification, EptViolation};
use vmcs::{Access, EventInfo};

use crate::cpu::Cpu;
use crate::exits::Next;
use crate::registers::VmcsRegisters;
use crate::skip::{finish_at, pause_between_iterations};
use crate::state::Vcpu;
use crate::stop::Stop;
use crate::world::{Report, World};

#[inline]
pub(super) fn handle<C: Cpu, W: World>(vcpu: &mut Vcpu, cpu: &mut C, world: &W, violation: EptViolation) -> Next {
    if let Some(stop) = out_of_reach(cpu.vmcs(), &violation) {
        return vcpu.stops(stop);
    }
    if violation.qualification.contains(EptQualification::FETCH) {
        return fetch(vcpu, cpu, world, violation.guest_physical);
    }
    emulate(vcpu, cpu, world, violation.guest_physical)
}

/// Executes the instruction that accesses `at`.
#[inline]
pub(super) fn emulate<C: Cpu, W: World>(vcpu: &mut Vcpu, cpu: &mut C, world: &W, at: GuestPhys) -> Next {
    let now = cpu.tsc();
    let from = cpu.vmcs().read(GUEST_RIP);
    let mut device = Devices { apic: &mut vcpu.apic, world, now, guest_now: now.wrapping_add(vcpu.tsc_offset) };
    let mut registers = VmcsRegisters::new(cpu.vmcs(), &mut vcpu.regs, &vcpu.cpuid, from);
    let outcome = emulate::access(&mut registers, world.memory(), &mut device, at);
    let to = registers.rip;
    match outcome {
        Ok(Done::Complete) => finish_at(vcpu, cpu, from, to).attending(),
        Ok(Done::Repeating) => pause_between_iterations(vcpu, cpu),
        Err(Failure::NotDevice) => Next::Resume,
        Err(Failure::Fault(fault)) => vcpu.inject_fault(cpu, fault),
        Err(Failure::Unsupported { bytes, .. }) => vcpu.stops(Stop::UnknownInstruction { rip: Linear(from), bytes }),
    }
}

/// An instruction fetch outside of RAM. Where nothing is, the bus gives ones, and FF FF is an undefined instruction.
#[cold]
pub(super) fn fetch<C: Cpu, W: World>(vcpu: &mut Vcpu, cpu: &mut C, world: &W, at: GuestPhys) -> Next {
    let is_apic = {
        let apic = vcpu.apic.settings();
        apic.mode() == Mode::Xapic && at.page() == apic.base()
    };
    if is_apic || world.mmio_read(at.page(), Width::Dword, cpu.tsc()).is_some() {
        return vcpu.stops(Stop::FetchFromDevice(at));
    }
    world.report(Report::FetchFromNothing { at });
    vcpu.inject_fault(cpu, Fault::Ud)
}

/// What cannot be emulated because no instruction's operand is at the address.
#[inline]
pub(super) fn out_of_reach(vmcs: &impl Access, violation: &EptViolation) -> Option<Stop> {
    let at = violation.guest_physical;
    let qualification = violation.qualification;
    if EventInfo(vmcs.read(IDT_VECTORING_INFO)).is_valid() {
        Some(Stop::DeliveryOutsideMemory(at))
    } else if qualification.contains(EptQualification::LINEAR_VALID)
        && !qualification.contains(EptQualification::TRANSLATED)
    {
        Some(Stop::PageTablesOutsideMemory(at))
    } else {
        None
    }
}

/// Everything outside of RAM: the vCPU's own APIC, the VM's devices, and nothing.
pub(super) struct Devices<'a, W> {
    pub(super) apic: &'a mut L1Apic,
    pub(super) world: &'a W,
    /// The machine's TSC, the devices' clock.
    pub(super) now: u64,
    /// The guest's TSC, the APIC's clock.
    pub(super) guest_now: u64,
}

impl<W: World> Devices<'_, W> {
    /// The offset of `at` in the APIC's register page, if the page is there.
    #[inline]
    fn apic_offset(&self, at: GuestPhys) -> Option<u16> {
        let apic = self.apic.settings();
        let here = apic.mode() == Mode::Xapic && at.page() == apic.base();
        #[expect(clippy::cast_possible_truncation, reason = "an offset within a page has 12 bits")]
        here.then_some(at.page_offset() as u16)
    }
}

impl<W: World> Device for Devices<'_, W> {
    #[inline]
    fn read(&mut self, at: GuestPhys, width: Width) -> u64 {
        if let Some(offset) = self.apic_offset(at) {
            return self.apic.registers().read_mmio(offset, width, self.guest_now);
        }
        self.world.mmio_read(at, width, self.now).unwrap_or_else(|| {
            self.world.report(Report::NothingThere { at, write: false });
            width.mask()
        })
    }

    #[inline]
    fn write(&mut self, at: GuestPhys, width: Width, value: u64) {
        if let Some(offset) = self.apic_offset(at) {
            return self.apic.registers().write_mmio(offset, width, value, self.guest_now, self.world);
        }
        if !self.world.mmio_write(at, width, value, self.now) {
            self.world.report(Report::NothingThere { at, write: true });
        }
    }
}
