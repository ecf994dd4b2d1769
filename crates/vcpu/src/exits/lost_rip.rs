//! An error of the emulator that would crash guests: a VM exit that stores the wrong RIP.
//!
//! A VM exit that comes from outside, by a timer or an interrupt, may follow the delivery of an exception before its
//! handler's first instruction. Bochs 3.0 with several processors then stores the RIP of before the delivery and all else
//! of after it: the guest would go on at the instruction that faulted with its handler's stack and privileges. That
//! state is recognized by the exception's own frame, which lies on top of the stack and returns to just this RIP, and
//! the gate tells where the handler is. The image asks for it on Bochs only.

use core::cell::Cell;

use arch::control::{Efer, Rflags};
use arch::segment::AccessRights;
use arch::{GuestMemory, Linear};
use emulate::{AccessKind, Registers, translate};
use ept::L2Memory;
use vmcs::Access;
use vmcs::fields::*;

use crate::cpu::Cpu;
use crate::registers::VmcsRegisters;
use crate::state::Vcpu;
use crate::world::{Report, World};

/// The frame of an exception with error code in 64-bit mode, from RSP up: error code, RIP, CS, RFLAGS, RSP, SS
/// (SDM 3A 6.14.2 "64-Bit Mode Stack Frame"). The processor aligns the stack to 16 bytes before it pushes.
const FRAME_BYTES: u64 = 48;
/// The one that comes by the ten thousand: a page fault. Another one is taken for it, which its handler finds to be
/// spurious, and comes again.
const PAGE_FAULT: u64 = 14;
const GATE_BYTES: u64 = 16;

/// Puts RIP right after a VM exit from outside.
#[inline]
pub(super) fn restore<C: Cpu, W: World>(vcpu: &mut Vcpu, cpu: &mut C, world: &W) {
    if !vcpu.repairs_lost_rip {
        return;
    }
    let vmcs = cpu.vmcs();
    // The handlers of 64-bit kernels start with interrupts off.
    if vmcs.read(GUEST_RFLAGS) & Rflags::IF.bits() == 0
        && vmcs.read(GUEST_IA32_EFER) & Efer::LMA.bits() != 0
        && vmcs.read(GUEST_RSP).is_multiple_of(16)
        && let Some(handler) = find(vcpu, cpu, world)
    {
        cpu.vmcs().write(GUEST_RIP, handler);
        world.report(Report::LostRip);
    }
}

/// Where RIP should be, if it is wrong, by the memory of who ran: L1, or an L2 behind L1's extended page tables.
#[cold]
fn find<C: Cpu, W: World>(vcpu: &mut Vcpu, cpu: &mut C, world: &W) -> Option<u64> {
    let ept12 = if vcpu.in_l2() { vcpu.nested.as_ref()?.ept12().copied() } else { None };
    match ept12 {
        Some(ept12) => {
            let denied = Cell::new(None);
            handler(vcpu, cpu, &L2Memory::new(world.memory(), &ept12, None, ept::Access::READ, &denied))
        }
        None => handler(vcpu, cpu, world.memory()),
    }
}

fn handler<C: Cpu>(vcpu: &mut Vcpu, cpu: &mut C, memory: &dyn GuestMemory) -> Option<u64> {
    let vmcs = cpu.vmcs();
    let (rip, rsp) = (vmcs.read(GUEST_RIP), vmcs.read(GUEST_RSP));
    let is_kernel = AccessRights(vmcs.read(GUEST_CS_ACCESS_RIGHTS)).is_long()
        && AccessRights(vmcs.read(GUEST_SS_ACCESS_RIGHTS)).dpl() == 0;
    let gate = vmcs.read(GUEST_IDTR_BASE).wrapping_add(PAGE_FAULT * GATE_BYTES);
    let registers = VmcsRegisters::new(vmcs, &mut vcpu.regs, &vcpu.cpuid, rip);
    let paging = registers.paging();
    let kind = AccessKind { implicit: true, ..AccessKind::READ };
    // The frame lies in one page, and so does the gate, but for odd ones.
    let mut known = None;
    let mut word = |address: u64| {
        let page = match known {
            Some((page, at)) if page == address >> 12 => at,
            _ => translate(memory, &paging, Linear(address), kind).ok()?.address.page(),
        };
        known = Some((address >> 12, page));
        memory.read_u64(page.add(address & 0xfff)).ok()
    };
    if !is_kernel || rsp.checked_add(FRAME_BYTES).is_none() || word(rsp)? >> 16 != 0 || word(rsp + 8)? != rip {
        return None;
    }
    let flags = word(rsp + 24)?;
    if flags >> 22 != 0 || flags & 2 == 0 {
        return None;
    }
    // The offset's three parts in a gate (SDM 3A 6.14.1 "64-Bit Mode IDT").
    let (low, high) = (word(gate)?, word(gate.wrapping_add(8))?);
    Some(low & 0xffff | low >> 32 & 0xffff_0000 | high << 32)
}
