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
    let judged = needed | kernel.reserved;
    let entry = |table: u64, shift: u32| {
        let at = table & ADDRESS | (linear.get() >> shift & 0x1ff) * 8;
        memory.read_u64(GuestPhys(at)).ok().filter(|entry| entry & judged == needed)
    };
    let pml4e = entry(kernel.cr3, 39)?;
    let pdpte = entry(pml4e, 30)?;
    let is_gigabyte = pdpte & LARGE != 0;
    let pde = if is_gigabyte { pdpte } else { entry(pdpte, 21)? };
    let is_large = pde & LARGE != 0;
    let pte = if is_large { pde } else { entry(pde, 12)? };
    let inside = if is_gigabyte {
        (1 << 30) - 1
    } else if is_large {
        (1 << 21) - 1
    } else {
        (1 << 12) - 1
    };
    // A large page has reserved bits below its address, and its PAT bit; a PML4 entry is no page.
    let is_odd = pte & ADDRESS & inside != 0 || pml4e & LARGE != 0;
    if is_odd || pml4e & pdpte & pde & pte & USER != 0 || write && pte & DIRTY == 0 {
        return None;
    }
    Some(GuestPhys(pte & ADDRESS & !inside | linear.get() & inside))
}
