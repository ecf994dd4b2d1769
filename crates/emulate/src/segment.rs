//! Segment and offset to a linear address, with the segment's checks.
//!
//! SDM 3A, 5.3 "Limit Checking", 5.5 "Privilege Levels" and 6.15 "Exception and Interrupt Reference"; SDM 1, 3.3.7.1
//! "Canonical Addressing".

use arch::control::{Cr0, Cr4, Rflags};
use arch::segment::{Segment, SegmentName};
use arch::{Fault, Linear};

use crate::operand::CodeSize;
use crate::registers::Registers;
use crate::walk::Paging;

/// The linear address of `bytes` bytes (1 to 8) at `offset` in segment `name`, checked for a read, or for a write too.
#[inline]
pub(crate) fn linear(
    registers: &impl Registers,
    paging: &Paging,
    code: CodeSize,
    name: SegmentName,
    offset: u64,
    bytes: u64,
    write: bool,
) -> Result<Linear, Fault> {
    let linear = if code == CodeSize::Bits64 {
        // Bases count for FS and GS only, and limits not at all.
        let base = match name {
            SegmentName::Fs | SegmentName::Gs => registers.segment(name).base,
            _ => 0,
        };
        let first = base.wrapping_add(offset);
        let last = first.wrapping_add(bytes - 1);
        if !is_canonical(first, paging) || !is_canonical(last, paging) {
            return Err(protection(name));
        }
        first
    } else {
        let segment = registers.segment(name);
        let protected = paging.cr0.contains(Cr0::PE) && !registers.rflags().contains(Rflags::VM);
        let allowed = !protected || allows(segment, write);
        if !allowed || !within_limit(segment, protected, offset, bytes) {
            return Err(protection(name));
        }
        segment.base.wrapping_add(offset) & 0xffff_ffff
    };
    // Alignment is checked at CPL 3 only (SDM 3A, 6.15 "Interrupt 17—Alignment Check Exception (#AC)").
    let checks_alignment = paging.cpl == 3 && paging.ac && paging.cr0.contains(Cr0::AM);
    if checks_alignment && !linear.is_multiple_of(bytes) {
        return Err(Fault::Ac);
    }
    Ok(Linear(linear))
}

/// Whether bits 63:47, with 57-bit linear addresses bits 63:56, are all equal.
pub(crate) fn is_canonical(address: u64, paging: &Paging) -> bool {
    let shift = if paging.cr4.contains(Cr4::LA57) { 56 } else { 47 };
    let high = address.cast_signed() >> shift;
    high == 0 || high == -1
}

fn protection(name: SegmentName) -> Fault {
    if name == SegmentName::Ss { Fault::Ss(0) } else { Fault::Gp(0) }
}

/// Whether the type of a segment in protected mode allows the access (SDM 3A, 3.4.5.1 "Code- and Data-Segment Descriptor
/// Types").
fn allows(segment: Segment, write: bool) -> bool {
    let rights = segment.rights;
    // Bit 1 of the type: readable code, writable data.
    let bit_1 = rights.kind() & 0b10 != 0;
    !rights.is_unusable() && if rights.is_code() { bit_1 && !write } else { bit_1 || !write }
}

fn within_limit(segment: Segment, protected: bool, offset: u64, bytes: u64) -> bool {
    let Some(last) = offset.checked_add(bytes - 1) else { return false };
    let limit = u64::from(segment.limit);
    // Bit 2 of a data segment's type: it expands down, from the limit (excluded) to 64 KiB or 4 GiB.
    let expands_down = protected && !segment.rights.is_code() && segment.rights.kind() & 0b100 != 0;
    if expands_down {
        let top = if segment.rights.is_big() { 0xffff_ffff } else { 0xffff };
        offset > limit && last <= top
    } else {
        last <= limit
    }
}
