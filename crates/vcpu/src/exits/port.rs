//! IN and OUT, INS and OUTS.

use arch::{Fault, Gpr, Width};
use vmcs::qualification::IoAccess;

use crate::cpu::Cpu;
use crate::exits::Next;
use crate::skip::skip_instruction;
use crate::state::Vcpu;
use crate::stop::Stop;
use crate::world::World;

#[inline]
pub(super) fn handle<C: Cpu, W: World>(vcpu: &mut Vcpu, cpu: &mut C, world: &mut W, access: IoAccess) -> Next {
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
    match skip_instruction(vcpu, cpu) {
        Next::Stop(stop) => Next::Stop(stop),
        // A device may have raised or dropped its line.
        Next::Resume | Next::Attend => Next::Attend,
    }
}

#[cold]
fn string<C: Cpu, W: World>(vcpu: &mut Vcpu, cpu: &mut C, world: &mut W, access: IoAccess) -> Next {
    let _ = (vcpu, cpu, world, access);
    Next::Attend
}
