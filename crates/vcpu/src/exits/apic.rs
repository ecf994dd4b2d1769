//! Accesses to the APIC that the processor recognized and did not finish.
//!
//! SDM 3C 30.4 "Virtualizing Memory-Mapped APIC Accesses" and 30.1.4 "EOI Virtualization".

use arch::apic::Register;
use arch::{GuestPhys, Msr, Width};
use vlapic::Mode;
use vmcs::qualification::{ApicAccess, ApicAccessKind};

use crate::cpu::Cpu;
use crate::exits::{Next, memory};
use crate::state::Vcpu;
use crate::stop::Stop;
use crate::world::World;

/// An access to the register page that has not happened: L0 executes the instruction, as it does where the page is not there.
#[inline]
pub(super) fn access<C: Cpu, W: World>(vcpu: &mut Vcpu, cpu: &mut C, world: &W, access: ApicAccess) -> Next {
    let at = GuestPhys(arch::apic::DEFAULT_BASE).add(u64::from(access.offset));
    match access.kind {
        ApicAccessKind::LinearRead | ApicAccessKind::LinearWrite => memory::emulate(vcpu, cpu, world, at),
        ApicAccessKind::LinearFetch => memory::fetch(vcpu, cpu, world, at),
        ApicAccessKind::LinearEventDelivery | ApicAccessKind::PhysicalEventDelivery => {
            vcpu.stops(Stop::DeliveryOutsideMemory(at))
        }
        ApicAccessKind::PhysicalInstruction | ApicAccessKind::Reserved(_) => {
            vcpu.stops(Stop::PageTablesOutsideMemory(at))
        }
    }
}

/// A write that has happened in the virtual-APIC page, after its instruction: L0 does what the register does.
#[inline]
pub(super) fn written<C: Cpu, W: World>(vcpu: &mut Vcpu, cpu: &mut C, world: &W, offset: u16) -> Next {
    let register = Register(offset & 0xff0);
    let Some(value) = vcpu.apic.pages().map(|pages| pages.virtual_apic.read(register)) else { return Next::Attend };
    let now = cpu.tsc().wrapping_add(vcpu.tsc_offset);
    let apic = vcpu.apic.registers();
    if apic.mode() == Mode::X2apic {
        // The processor has checked the value; all that is left is a self-IPI with a vector below 16.
        let _ = apic.write_msr(Msr(Msr::X2APIC_FIRST.0 + u32::from(register.0 >> 4)), value.into(), now, world);
    } else {
        apic.write_mmio(register.0, Width::Dword, value.into(), now, world);
    }
    Next::Attend
}

/// The processor has ended the service of a level-triggered interrupt.
pub(super) fn ended<W: World>(vcpu: &mut Vcpu, world: &W, vector: u8) -> Next {
    vcpu.apic.registers().ended_by_processor(vector, world);
    Next::Attend
}
