//! An instruction's memory operand, for instructions that L0 executes in the guest's place: VMX instructions, above all.

use arch::segment::SegmentName;
use arch::{Fault, GuestMemory, GuestPhys, Linear, PAGE_SIZE};

use crate::operand::CodeSize;
use crate::quick;
use crate::registers::Registers;
use crate::segment::linear;
use crate::walk::{AccessKind, translate};

/// Longest operand in bytes: the descriptors of INVEPT and INVVPID.
const MOST: usize = 16;

/// Reads the operand at `offset` in `segment` (1 to 16 bytes) as data that the instruction reads. Where the guest has no
/// memory, all ones are read.
///
/// # Errors
/// The fault that segmentation or paging names; nothing was read then.
#[inline]
pub fn read_operand(
    registers: &impl Registers,
    memory: &dyn GuestMemory,
    segment: SegmentName,
    offset: u64,
    into: &mut [u8],
) -> Result<(), Fault> {
    let length = into.len();
    if let Some(at) = quick::place(registers, memory, segment, offset, length, false)
        && memory.read(at, into).is_ok()
    {
        return Ok(());
    }
    let pieces = pieces(registers, memory, segment, offset, length, AccessKind::READ)?;
    let (first, second) = into.split_at_mut(pieces.split);
    if memory.read(pieces.first, first).is_err() {
        first.fill(0xff);
    }
    if !second.is_empty() && memory.read(pieces.second, second).is_err() {
        second.fill(0xff);
    }
    Ok(())
}

/// Writes the operand at `offset` in `segment`. Where the guest has no memory, the value is lost.
///
/// # Errors
/// The fault that segmentation or paging names; nothing was written then.
#[inline(never)]
pub fn write_operand(
    registers: &impl Registers,
    memory: &dyn GuestMemory,
    segment: SegmentName,
    offset: u64,
    from: &[u8],
) -> Result<(), Fault> {
    if let Some(at) = quick::place(registers, memory, segment, offset, from.len(), true)
        && memory.write(at, from).is_ok()
    {
        return Ok(());
    }
    let pieces = pieces(registers, memory, segment, offset, from.len(), AccessKind::WRITE)?;
    let (first, second) = from.split_at(pieces.split);
    // What is written where there is no memory is lost on a machine too.
    let _ = memory.write(pieces.first, first);
    if !second.is_empty() {
        let _ = memory.write(pieces.second, second);
    }
    Ok(())
}

/// Where the bytes of an operand are, in at most two pages.
struct Pieces {
    first: GuestPhys,
    split: usize,
    second: GuestPhys,
}

#[cold]
fn pieces(
    registers: &impl Registers,
    memory: &dyn GuestMemory,
    segment: SegmentName,
    offset: u64,
    length: usize,
    kind: AccessKind,
) -> Result<Pieces, Fault> {
    debug_assert!((1..=MOST).contains(&length), "an operand has 1 to 16 bytes");
    let paging = registers.paging();
    let code = registers.code_size();
    let at = linear(registers, &paging, code, segment, offset, length as u64, kind.write)?;
    let first = translate(memory, &paging, at, kind)?.address;
    let left = usize::try_from(PAGE_SIZE - at.page_offset()).unwrap_or(MOST);
    if left >= length {
        return Ok(Pieces { first, split: length, second: first });
    }
    let next = at.add(left as u64);
    let next = if code == CodeSize::Bits64 { next } else { Linear(next.get() & 0xffff_ffff) };
    Ok(Pieces { first, split: left, second: translate(memory, &paging, next, kind)?.address })
}
