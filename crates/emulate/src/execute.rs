//! One instruction of a guest that exited for an access to device memory: fetch, decode, access, registers.

use arch::{GuestMemory, GuestPhys, Width};

use crate::arithmetic;
use crate::fetch::fetch;
use crate::operand::{Alu, BitChange, CodeSize, Instruction, Operation, Other};
use crate::outcome::{Done, Failure};
use crate::place::{Device, Place, Reach, split};
use crate::registers::{self, ACCUMULATOR, Registers};
use crate::segment;
use crate::strings;
use crate::walk::{AccessKind, Paging};

/// Executes the instruction at CS:RIP, which exited for its access to `faulting`.
///
/// The page of `faulting` is a device's, and so is whatever is not RAM. All addresses are checked and translated before
/// the first access. A locked instruction is not atomic on a device. With REP as many iterations are done as
/// [`strings::BATCH`] says.
///
/// # Errors
/// See [`Failure`]: the instruction has then not been executed.
#[inline]
pub fn access(
    registers: &mut impl Registers,
    memory: &dyn GuestMemory,
    device: &mut dyn Device,
    faulting: GuestPhys,
) -> Result<Done, Failure> {
    let paging = registers.paging();
    let code = registers.code_size();
    let instruction = fetch(registers, memory, &paging, code)?;
    let mut reach = Reach { memory, device, exited: faulting };
    if matches!(instruction.operation, Operation::Movs | Operation::Stos | Operation::Lods) {
        return strings::execute(registers, &mut reach, &paging, code, &instruction);
    }
    let place = find_operand(registers, &reach, &paging, code, &instruction)?;
    execute(registers, &mut reach, place, &instruction);
    finish(registers, code, &instruction);
    Ok(Done::Complete)
}

/// Moves RIP past the instruction.
#[inline]
pub(crate) fn finish(registers: &mut impl Registers, code: CodeSize, instruction: &Instruction) {
    registers.set_rip(next_rip(registers.rip(), code, instruction.length));
}

#[inline]
pub(crate) fn next_rip(rip: u64, code: CodeSize, length: u8) -> u64 {
    let next = rip.wrapping_add(length.into());
    if code == CodeSize::Bits64 { next } else { next & 0xffff_ffff }
}

/// The memory operand's place, checked for what the instruction does with it.
#[inline]
fn find_operand(
    registers: &impl Registers,
    reach: &Reach<'_>,
    paging: &Paging,
    code: CodeSize,
    instruction: &Instruction,
) -> Result<Place, Failure> {
    let width = match instruction.operation {
        Operation::MovZx(from) | Operation::MovSx(from) => from,
        _ => instruction.width,
    };
    let kind = if writes_memory(instruction) { AccessKind::WRITE } else { AccessKind::READ };
    let offset = effective_address(registers, code, instruction);
    let segment = instruction.memory.segment;
    let linear = segment::linear(registers, paging, code, segment, offset, width.bytes() as u64, kind.write)?;
    // The processor has made this translation before it exited. It is made again only where that could matter: for user
    // mode, whose code and page tables may have changed since to ask for more than was checked; for an operand that is
    // read and written; and where the address is not the one that exited.
    let simple = matches!(instruction.operation, Operation::Mov | Operation::MovZx(_) | Operation::MovSx(_));
    let same_offset = linear.page_offset() == reach.exited.page_offset();
    if simple && same_offset && paging.cpl < 3 && split(linear, width).is_none() {
        return Ok(Place::whole(reach.exited, width));
    }
    let place = Place::find(reach.memory, paging, code, linear, width, kind)?;
    if reach.is_device(place, width) { Ok(place) } else { Err(Failure::NotDevice) }
}

fn writes_memory(instruction: &Instruction) -> bool {
    let reads_only =
        matches!(instruction.operation, Operation::Alu(Alu::Cmp) | Operation::Test | Operation::Bit(BitChange::Keep));
    instruction.to_memory && !reads_only
}

/// The offset in the segment (SDM 1, 3.7.5 "Specifying an Offset"), as wide as the address size.
#[inline]
fn effective_address(registers: &impl Registers, code: CodeSize, instruction: &Instruction) -> u64 {
    let memory = &instruction.memory;
    let mut address = memory.displacement;
    if let Some(base) = memory.base {
        address = address.wrapping_add(registers.gpr(base));
    }
    if let Some(index) = memory.index {
        address = address.wrapping_add(registers.gpr(index) << memory.shift);
    }
    if memory.rip_relative {
        address = address.wrapping_add(next_rip(registers.rip(), code, instruction.length));
    }
    // A register as bit number reaches beyond the operand, in both directions (SDM 2A, "BT—Bit Test").
    if let (Operation::Bit(_), Other::Register(register)) = (instruction.operation, instruction.other) {
        let width = instruction.width;
        let number = arithmetic::sign_extend(width, registers::read(registers, register, width));
        let bits = 8 * width.bytes() as i64;
        let words = number.cast_signed().div_euclid(bits);
        address = address.wrapping_add((words * (bits / 8)).cast_unsigned());
    }
    address & instruction.address_width.mask()
}

/// Performs an instruction that has one memory operand, at `place`.
#[inline]
fn execute(registers: &mut impl Registers, reach: &mut Reach<'_>, place: Place, instruction: &Instruction) {
    let width = instruction.width;
    match (instruction.operation, instruction.other) {
        (Operation::Mov, other) if instruction.to_memory => {
            let value = read_other(registers, other, width);
            reach.store(place, width, value);
        }
        (Operation::Mov | Operation::MovZx(_) | Operation::MovSx(_), Other::Register(register)) => {
            let value = match instruction.operation {
                Operation::MovZx(from) => reach.load(place, from),
                Operation::MovSx(from) => arithmetic::sign_extend(from, reach.load(place, from)),
                _ => reach.load(place, width),
            };
            registers::write(registers, register, width, value);
        }
        _ => modify(registers, reach, place, instruction),
    }
}

/// Those that set flags, or both read and write their memory operand.
#[inline(never)]
fn modify(registers: &mut impl Registers, reach: &mut Reach<'_>, place: Place, instruction: &Instruction) {
    let width = instruction.width;
    let in_memory = reach.load(place, width);
    let other = read_other(registers, instruction.other, width);
    let old = registers.rflags();
    let (result, flags) = match instruction.operation {
        Operation::Alu(alu) if instruction.to_memory => arithmetic::alu(alu, width, in_memory, other, old),
        Operation::Alu(alu) => arithmetic::alu(alu, width, other, in_memory, old),
        Operation::Test => arithmetic::alu(Alu::And, width, in_memory, other, old),
        Operation::Bit(change) => {
            #[expect(clippy::cast_possible_truncation, reason = "a remainder below 64")]
            let number = (other % (8 * width.bytes() as u64)) as u32;
            arithmetic::bit(change, in_memory, number, old)
        }
        Operation::Not => (!in_memory & width.mask(), old),
        Operation::Neg => arithmetic::negate(width, in_memory, old),
        Operation::Inc => arithmetic::step(true, width, in_memory, old),
        Operation::Dec => arithmetic::step(false, width, in_memory, old),
        Operation::Xadd => arithmetic::alu(Alu::Add, width, in_memory, other, old),
        Operation::CmpXchg => compare_exchange(registers, width, in_memory, other),
        // Xchg; the moves have been dealt with.
        _ => (other, old),
    };
    if let Other::Register(register) = instruction.other {
        let loaded = match instruction.operation {
            Operation::Xchg | Operation::Xadd => Some(in_memory),
            Operation::Alu(alu) if !instruction.to_memory && alu != Alu::Cmp => Some(result),
            _ => None,
        };
        if let Some(value) = loaded {
            registers::write(registers, register, width, value);
        }
    }
    if writes_memory(instruction) {
        reach.store(place, width, result);
    }
    if flags != old {
        registers.set_rflags(flags);
    }
}

/// CMPXCHG: memory's new value, which is written in any case, and the flags of the comparison.
fn compare_exchange(
    registers: &mut impl Registers,
    width: Width,
    in_memory: u64,
    other: u64,
) -> (u64, arch::control::Rflags) {
    let accumulator = registers::read(registers, ACCUMULATOR, width);
    let (difference, flags) = arithmetic::alu(Alu::Cmp, width, accumulator, in_memory, registers.rflags());
    if difference == 0 {
        return (other, flags);
    }
    registers::write(registers, ACCUMULATOR, width, in_memory);
    (in_memory, flags)
}

#[inline]
fn read_other(registers: &impl Registers, other: Other, width: Width) -> u64 {
    match other {
        Other::None => 0,
        Other::Register(register) => registers::read(registers, register, width),
        Other::Immediate(value) => value & width.mask(),
    }
}
