//! The short way to a 64-bit kernel's data: for operands of instructions that L0 executes by the thousand.
//!
//! It knows one case, in which nothing has to be decided or written: four levels, all entries present, accessed and writable
//! where that counts, a supervisor page. Everything else it leaves to [`crate::walk`], which knows all of SDM 3A, chapter 4.

use core::sync::atomic::{AtomicU64, Ordering};

use arch::segment::SegmentName;
use arch::{GuestMemory, GuestPhys, Linear, PAGE_SIZE};

use crate::page_entry::{ACCESSED, DIRTY, PAGE_SIZE as LARGE, PRESENT, USER, WRITABLE};
use crate::registers::{Kernel, Registers};

/// Bits 51:12 of an entry.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Where the `bytes` bytes at `offset` in `segment` are, all in one page; `None`: ask the long way.
#[inline]
pub(crate) fn place(
    registers: &impl Registers,
    memory: &dyn GuestMemory,
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
    walk(memory, kernel, linear, write).map(|(at, _)| at)
}

/// The walk: what it leads to, and its entries with where they are; a large page's counts for the levels below it too.
#[inline]
fn walk(
    memory: &dyn GuestMemory,
    kernel: Kernel,
    linear: Linear,
    write: bool,
) -> Option<(GuestPhys, [(GuestPhys, u64); 4])> {
    let needed = PRESENT | ACCESSED | if write { WRITABLE } else { 0 };
    let judged = needed | kernel.reserved;
    let entry = |table: u64, shift: u32| {
        let at = GuestPhys((table & ADDRESS) + (linear.get() >> shift & 0x1ff) * 8);
        memory.read_u64(at).ok().filter(|entry| entry & judged == needed).map(|entry| (at, entry))
    };
    let pml4e = entry(kernel.cr3, 39)?;
    let pdpte = entry(pml4e.1, 30)?;
    let is_gigabyte = pdpte.1 & LARGE != 0;
    let pde = if is_gigabyte { pdpte } else { entry(pdpte.1, 21)? };
    let is_large = pde.1 & LARGE != 0;
    let pte = if is_large { pde } else { entry(pde.1, 12)? };
    let inside = if is_gigabyte {
        (1 << 30) - 1
    } else if is_large {
        (1 << 21) - 1
    } else {
        (1 << 12) - 1
    };
    // A large page has reserved bits below its address, and its PAT bit; a PML4 entry is no page.
    let is_odd = pte.1 & ADDRESS & inside != 0 || pml4e.1 & LARGE != 0;
    if is_odd || pml4e.1 & pdpte.1 & pde.1 & pte.1 & USER != 0 || write && pte.1 & DIRTY == 0 {
        return None;
    }
    Some((GuestPhys(pte.1 & ADDRESS & !inside | linear.get() & inside), [pml4e, pdpte, pde, pte]))
}

/// One page that a 64-bit kernel may write, with the walk that led there.
///
/// The guest changes its paging without an exit. So the walk is not believed but repeated, by looking whether all of its
/// entries still are what they were: that is as good as a new walk, and a third of the work.
#[derive(Clone, Debug)]
pub struct Remembered {
    kernel: Kernel,
    /// Bits 63:12 of the linear address.
    page: u64,
    entries: [(&'static AtomicU64, u64); 4],
    words: &'static [AtomicU64; 512],
}

impl Remembered {
    /// Walks to the page of `linear`; `None` if this is not the frequent case, or the memory does not last.
    #[inline(never)]
    pub fn walk(memory: &dyn GuestMemory, kernel: Kernel, linear: u64) -> Option<Self> {
        let linear = Linear(linear);
        if !linear.is_canonical() {
            return None;
        }
        let (at, entries) = walk(memory, kernel, linear, true)?;
        let words = |at: GuestPhys| memory.lasting_page(GuestPhys(at.get() & !0xfff));
        let [a, b, c, d] = entries.map(|(at, value)| Some((words(at)?.get(index(at.get()))?, value)));
        Some(Self { kernel, page: linear.get() >> 12, entries: [a?, b?, c?, d?], words: words(at)? })
    }

    /// The word at `linear`, a multiple of 8, if it lies in this page and the guest's entries still lead here.
    #[inline(always)]
    pub fn word(&self, kernel: Kernel, linear: u64) -> Option<&'static AtomicU64> {
        let is_here = self.page == linear >> 12 && self.kernel == kernel;
        let [pml4e, pdpte, pde, pte] = &self.entries;
        let same = |(entry, value): &(&AtomicU64, u64)| entry.load(Ordering::Relaxed) == *value;
        if is_here && same(pml4e) && same(pdpte) && same(pde) && same(pte) {
            self.words.get(index(linear))
        } else {
            None
        }
    }
}

/// The number of an address's word in its page.
#[inline(always)]
const fn index(address: u64) -> usize {
    (address >> 3 & 0x1ff) as usize
}
