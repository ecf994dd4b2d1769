//! IN and OUT, INS and OUTS.

use arch::{Gpr, GuestMemory, Linear, Width};
use emulate::{Done, Failure, IoString, Ports};
use vmcs::fields::*;
use vmcs::qualification::IoAccess;
use vmcs::{Access, InstructionInfo};

use crate::cpu::Cpu;
use crate::exits::Next;
use crate::registers::VmcsRegisters;
use crate::skip::{finish_at, pause_between_iterations, skip_instruction};
use crate::state::Vcpu;
use crate::stop::Stop;
use crate::world::World;

#[inline]
pub(super) fn handle<C: Cpu, W: World>(vcpu: &mut Vcpu, cpu: &mut C, world: &W, access: IoAccess) -> Next {
    if access.string {
        return string(vcpu, cpu, world, access);
    }
    let now = cpu.tsc();
    let rax = vcpu.regs.get(Gpr::Rax);
    if access.input {
        let value = u64::from(world.port_in(access.port, access.width, now)) & access.width.mask();
        // A 32-bit result clears the upper half of RAX, narrower ones leave the rest alone.
        let kept = if access.width == Width::Dword { 0 } else { rax & !access.width.mask() };
        vcpu.regs.set(Gpr::Rax, kept | value);
    } else {
        #[expect(clippy::cast_possible_truncation, reason = "masked to at most 32 bits")]
        let value = (rax & access.width.mask()) as u32;
        world.port_out(access.port, access.width, value, now);
    }
    // A device may have raised or dropped its line.
    skip_instruction(vcpu, cpu).attending()
}

/// INS and OUTS: the operand in memory is the emulator's business.
#[cold]
fn string<C: Cpu, W: World>(vcpu: &mut Vcpu, cpu: &mut C, world: &W, access: IoAccess) -> Next {
    let from = cpu.vmcs().read(GUEST_RIP);
    let (outcome, to) = transfer(vcpu, cpu, world, world.memory(), access);
    finish(vcpu, cpu, outcome, from, to)
}

/// Executes INS or OUTS with the operand in `memory`. Also returns where the instruction ends.
pub(super) fn transfer<C: Cpu, W: World>(
    vcpu: &mut Vcpu,
    cpu: &mut C,
    world: &W,
    memory: &dyn GuestMemory,
    access: IoAccess,
) -> (Result<Done, Failure>, u64) {
    let now = cpu.tsc();
    let from = cpu.vmcs().read(GUEST_RIP);
    let info = InstructionInfo(cpu.vmcs().read(VM_EXIT_INSTRUCTION_INFO));
    let length = cpu.vmcs().read(VM_EXIT_INSTRUCTION_LEN);
    let io = IoString {
        input: access.input,
        port: access.port,
        width: access.width,
        segment: info.segment(),
        address_width: info.address_size(),
        repeat: access.rep,
        // An instruction has at most 15 bytes.
        length: (length & 0xf) as u8,
    };
    let mut registers = VmcsRegisters::new(cpu.vmcs(), &mut vcpu.regs, &vcpu.cpuid, from);
    let outcome = emulate::string_io(&mut registers, memory, &mut WorldPorts { world, now }, &io);
    (outcome, registers.rip)
}

/// What came of it: the guest goes on behind it, at the rest of it, or in the handler of a fault.
pub(super) fn finish(vcpu: &mut Vcpu, cpu: &mut impl Cpu, outcome: Result<Done, Failure>, from: u64, to: u64) -> Next {
    match outcome {
        Ok(Done::Complete) => finish_at(vcpu, cpu, from, to).attending(),
        Ok(Done::Repeating) => pause_between_iterations(vcpu, cpu),
        Err(Failure::NotDevice) => Next::Attend,
        Err(Failure::Fault(fault)) => vcpu.inject_fault(cpu, fault),
        Err(Failure::Unsupported { bytes, .. }) => vcpu.stops(Stop::UnknownInstruction { rip: Linear(from), bytes }),
    }
}

struct WorldPorts<'a, W> {
    world: &'a W,
    now: u64,
}

impl<W: World> Ports for WorldPorts<'_, W> {
    fn read(&mut self, port: u16, width: Width) -> u32 {
        self.world.port_in(port, width, self.now)
    }

    fn write(&mut self, port: u16, width: Width, value: u32) {
        self.world.port_out(port, width, value, self.now);
    }
}
