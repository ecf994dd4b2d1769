//! The short way to a 64-bit kernel's data: for operands of instructions that L0 executes by the thousand.
//!
//! It knows one case, in which nothing has to be decided or written: four levels, all entries present, accessed and writable
//! where that counts, a supervisor page. Everything else it leaves to [`crate::walk`], which knows all of SDM 3A, chapter 4.

use arch::segment::SegmentName;
use arch::{GuestMemory, GuestPhys, Linear, PAGE_SIZE};

use crate::page_entry::{ACCESSED, DIRTY, PAGE_SIZE as LARGE, PRESENT, USER, WRITABLE};
use crate::registers::Registers;

/// Bits 51:12 of an entry.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Where the `bytes` bytes at `offset` in `segment` are, all in one page; `None`: ask the long way.
#[inline]
pub(crate) fn place(
    registers: &impl Registers,
    memory: &impl GuestMemory,
    segment: SegmentName,
    offset: u64,
    bytes: usize,
    write: bool,
) -> Option<GuestPhys> {
    let kernel = registers.kernel()?;
    let base = match segment {
        SegmentName::Fs | SegmentName::Gs => registers.segment(segment).base,
        _ => 0,
    };
    let linear = Linear(base.wrapping_add(offset));
    if !linear.is_canonical() || linear.page_offset() + bytes as u64 > PAGE_SIZE {
        return None;
    }
    let needed = PRESENT | ACCESSED | if write { WRITABLE } else { 0 };
    let mut table = kernel.cr3 & ADDRESS;
    let mut user = USER;
    for shift in [39, 30, 21, 12] {
        let entry = memory.read_u64(GuestPhys(table + (linear.get() >> shift & 0x1ff) * 8)).ok()?;
        user &= entry;
        if entry & (needed | kernel.reserved) != needed {
            return None;
        }
        let is_page = shift == 12 || entry & LARGE != 0;
        if !is_page {
            table = entry & ADDRESS;
            continue;
        }
        let inside = (1 << shift) - 1;
        // A PML4 entry is no page; a large page has reserved bits below its size, and its PAT bit.
        let is_odd = shift == 39 || shift != 12 && entry & ADDRESS & inside != 0;
        if is_odd || user != 0 || write && entry & DIRTY == 0 {
            return None;
        }
        return Some(GuestPhys(entry & ADDRESS & !inside | linear.get() & inside));
    }
    None
}
