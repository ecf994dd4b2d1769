//! The instruction at CS:RIP.

use arch::segment::SegmentName;
use arch::{Fault, GuestMemory, Linear};

use crate::decode::{DecodeError, MAX_LENGTH, decode};
use crate::operand::{CodeSize, Instruction};
use crate::outcome::Failure;
use crate::registers::Registers;
use crate::segment::is_canonical;
use crate::walk::{AccessKind, Paging, translate};

/// Fetches and decodes the instruction at CS:RIP, from two pages where it crosses into the next.
#[inline]
pub(crate) fn fetch(
    registers: &impl Registers,
    memory: &dyn GuestMemory,
    paging: &Paging,
    code: CodeSize,
) -> Result<Instruction, Failure> {
    let rip = registers.rip();
    let (linear, within_limit) = if code == CodeSize::Bits64 {
        (rip, MAX_LENGTH)
    } else {
        let segment = registers.segment(SegmentName::Cs);
        // Bytes from RIP to the limit, both included: none if RIP is beyond it.
        let left = (u64::from(segment.limit) + 1).saturating_sub(rip);
        (segment.base.wrapping_add(rip) & 0xffff_ffff, usize::try_from(left).unwrap_or(MAX_LENGTH).min(MAX_LENGTH))
    };
    let mut bytes = [0; MAX_LENGTH];
    let mut length = 0;
    loop {
        let at = Linear(linear.wrapping_add(length as u64));
        let wanted = (within_limit - length).min(to_page_end(at));
        if wanted == 0 {
            // It goes on beyond the limit of CS.
            return Err(Fault::Gp(0).into());
        }
        if code == CodeSize::Bits64 && !is_canonical(at.get(), paging) {
            return Err(Fault::Gp(0).into());
        }
        let physical = translate(memory, paging, at, AccessKind::FETCH)?.address;
        if memory.read(physical, &mut bytes[length..length + wanted]).is_err() {
            return Err(unsupported(bytes, length));
        }
        length += wanted;
        match decode(&bytes[..length], code) {
            Ok(instruction) => return Ok(instruction),
            Err(DecodeError::Incomplete) => {}
            // Longer than 15 bytes: #GP (SDM 3A, 6.15 "Interrupt 13—General Protection Exception (#GP)").
            Err(DecodeError::TooLong) => return Err(Fault::Gp(0).into()),
            Err(DecodeError::Unsupported) => return Err(unsupported(bytes, length)),
        }
    }
}

/// Bytes from `at` to the end of its 4-KiB page, or as many as an instruction can have.
fn to_page_end(at: Linear) -> usize {
    usize::try_from(arch::PAGE_SIZE - at.page_offset()).unwrap_or(MAX_LENGTH).min(MAX_LENGTH)
}

#[cold]
fn unsupported(bytes: [u8; MAX_LENGTH], length: usize) -> Failure {
    #[expect(clippy::cast_possible_truncation, reason = "at most MAX_LENGTH")]
    let length = length as u8;
    Failure::Unsupported { bytes, length }
}
