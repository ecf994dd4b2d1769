//! MOVS, STOS and LODS, with and without REP (SDM 1, 7.3.9 "String Operations").

use arch::control::Rflags;
use arch::segment::SegmentName;
use arch::{Gpr, GuestMemory, Width};

use crate::execute::finish;
use crate::operand::{CodeSize, Instruction, Operation, Register};
use crate::outcome::{Done, Failure};
use crate::place::{Place, Reach};
use crate::registers::{self, ACCUMULATOR, Registers, advance};
use crate::segment;
use crate::walk::{AccessKind, Paging};

/// Iterations of a REP instruction that are done in one go, before the guest may take an interrupt. With RFLAGS.TF set it
/// is one, since each iteration traps.
pub const BATCH: usize = 64;

/// Executes a string instruction that touches a device.
pub(crate) fn execute(
    registers: &mut impl Registers,
    reach: &mut Reach<'_>,
    paging: &Paging,
    code: CodeSize,
    instruction: &Instruction,
) -> Result<Done, Failure> {
    let flags = registers.rflags();
    let step = step(flags, instruction.width);
    let address_width = instruction.address_width;
    if !instruction.repeat {
        iterate(registers, reach, paging, code, instruction, step)?;
        finish(registers, code, instruction);
        return Ok(Done::Complete);
    }
    for done in 0..batch(flags) {
        if count(registers, address_width) == 0 {
            break;
        }
        match iterate(registers, reach, paging, code, instruction, step) {
            // What follows in RAM alone the guest does itself.
            Err(Failure::NotDevice) if done > 0 => return Ok(Done::Repeating),
            result => result?,
        }
        advance(registers, Gpr::Rcx, address_width, u64::MAX);
    }
    if count(registers, address_width) != 0 {
        return Ok(Done::Repeating);
    }
    finish(registers, code, instruction);
    Ok(Done::Complete)
}

/// What to add to the index registers: RFLAGS.DF says in which direction.
pub(crate) fn step(flags: Rflags, width: Width) -> u64 {
    let bytes = width.bytes() as u64;
    if flags.contains(Rflags::DF) { bytes.wrapping_neg() } else { bytes }
}

pub(crate) fn batch(flags: Rflags) -> usize {
    if flags.contains(Rflags::TF) { 1 } else { BATCH }
}

/// CX, ECX or RCX.
pub(crate) fn count(registers: &impl Registers, address_width: Width) -> u64 {
    registers::read(registers, Register { gpr: Gpr::Rcx, high_byte: false }, address_width)
}

/// The place of an element at `segment`:`index`.
pub(crate) fn element(
    registers: &impl Registers,
    memory: &dyn GuestMemory,
    paging: &Paging,
    code: CodeSize,
    (segment, index): (SegmentName, Gpr),
    (width, address_width): (Width, Width),
    kind: AccessKind,
) -> Result<Place, Failure> {
    let offset = registers.gpr(index) & address_width.mask();
    let linear = segment::linear(registers, paging, code, segment, offset, width.bytes() as u64, kind.write)?;
    Ok(Place::find(memory, paging, code, linear, width, kind)?)
}

/// One element. Both addresses are translated first, so that a fault leaves no trace.
fn iterate(
    registers: &mut impl Registers,
    reach: &mut Reach<'_>,
    paging: &Paging,
    code: CodeSize,
    instruction: &Instruction,
    step: u64,
) -> Result<(), Failure> {
    let widths = (instruction.width, instruction.address_width);
    let find = |registers: &_, segment, index, kind| {
        element(registers, reach.memory, paging, code, (segment, index), widths, kind)
    };
    let source = match instruction.operation {
        Operation::Stos => None,
        _ => Some(find(registers, instruction.memory.segment, Gpr::Rsi, AccessKind::READ)?),
    };
    let destination = match instruction.operation {
        Operation::Lods => None,
        _ => Some(find(registers, SegmentName::Es, Gpr::Rdi, AccessKind::WRITE)?),
    };
    let width = instruction.width;
    if ![source, destination].into_iter().flatten().any(|place| reach.is_device(place, width)) {
        return Err(Failure::NotDevice);
    }
    let value = match source {
        Some(place) => reach.load(place, width),
        None => registers::read(registers, ACCUMULATOR, width),
    };
    match destination {
        Some(place) => reach.store(place, width, value),
        None => registers::write(registers, ACCUMULATOR, width, value),
    }
    if source.is_some() {
        advance(registers, Gpr::Rsi, instruction.address_width, step);
    }
    if destination.is_some() {
        advance(registers, Gpr::Rdi, instruction.address_width, step);
    }
    Ok(())
}
