//! L0's own page tables: one set for all processors, built once.
//!
//! SDM 3A, 4.5 "4-Level Paging and 5-Level Paging". Pages are supervisor pages; no page is writable and executable.

use arch::{HostPhys, PAGE_SIZE};

use crate::frames::{Frames, PAGE_1G, PAGE_2M};
use crate::{control, cpuid, physmem};

const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
const WRITE_THROUGH: u64 = 1 << 3;
const CACHE_DISABLE: u64 = 1 << 4;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const LARGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// While the tables are built, only memory below this address can be reached: see [`crate::boot`].
pub const REACHABLE_AT_BOOT: u64 = 4 << 30;

/// What may be done with a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Executed and read.
    Code,
    /// Read.
    ReadOnly,
    /// Read and written.
    Data,
    /// Read and written, past all caches: device registers.
    Device,
}

impl Use {
    /// Accessed and dirty are set from the start, so that no processor writes to the tables.
    const fn bits(self) -> u64 {
        PRESENT
            | ACCESSED
            | match self {
                Self::Code => 0,
                Self::ReadOnly => NO_EXECUTE,
                Self::Data => NO_EXECUTE | WRITABLE | DIRTY,
                Self::Device => NO_EXECUTE | WRITABLE | DIRTY | CACHE_DISABLE | WRITE_THROUGH,
            }
    }
}

/// No frame was left for a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfFrames;

/// A set of page tables.
#[derive(Clone, Copy, Debug)]
pub struct PageTables {
    root: HostPhys,
    has_1g: bool,
}

impl PageTables {
    /// Empty tables.
    pub fn new(frames: &mut Frames) -> Result<Self, OutOfFrames> {
        let root = frames.zeroed_frame_below(REACHABLE_AT_BOOT).ok_or(OutOfFrames)?;
        Ok(Self { root, has_1g: cpuid::has_1g_pages() })
    }

    /// Physical address of the highest table: what CR3 takes.
    #[must_use]
    pub const fn root(&self) -> HostPhys {
        self.root
    }

    /// Maps `bytes` from `linear` on to physical memory from `physical` on, with the largest pages that fit. All three
    /// are multiples of 4 KiB, and nothing there is mapped yet; a page that is keeps its mapping.
    pub fn map(
        &mut self,
        frames: &mut Frames,
        linear: u64,
        physical: HostPhys,
        bytes: u64,
        usage: Use,
    ) -> Result<(), OutOfFrames> {
        let mut done = 0;
        while done < bytes {
            let (at, to) = (linear + done, physical.add(done));
            let fits = |size: u64| (at | to.0) & (size - 1) == 0 && bytes - done >= size;
            let (size, level) = if self.has_1g && fits(PAGE_1G) {
                (PAGE_1G, 3)
            } else if fits(PAGE_2M) {
                (PAGE_2M, 2)
            } else {
                (PAGE_SIZE, 1)
            };
            let entry = self.entry(frames, at, level)?;
            let large = if level == 1 { 0 } else { LARGE };
            // SAFETY: `entry` points into a table of this set; nobody else knows the set while it is built.
            if unsafe { entry.read_volatile() } & PRESENT == 0 {
                // SAFETY: as above.
                unsafe { entry.write_volatile(to.0 | usage.bits() | large) };
            }
            done += size;
        }
        Ok(())
    }

    /// The entry for `linear` in its table of `level`, with tables made on the way.
    fn entry(&mut self, frames: &mut Frames, linear: u64, level: u32) -> Result<*mut u64, OutOfFrames> {
        let mut table = self.root;
        for above in (level + 1..=4).rev() {
            let entry = slot(table, linear, above);
            // SAFETY: `slot` points into a table of this set, which the direct map shows.
            let mut value = unsafe { entry.read_volatile() };
            if value & PRESENT == 0 {
                let next = frames.zeroed_frame_below(REACHABLE_AT_BOOT).ok_or(OutOfFrames)?;
                // A table's own rights are the widest; each page has its own.
                value = next.0 | PRESENT | WRITABLE | ACCESSED;
                // SAFETY: as above.
                unsafe { entry.write_volatile(value) };
            }
            table = HostPhys(value & ADDRESS);
        }
        Ok(slot(table, linear, level))
    }

    /// Makes the tables this processor's.
    ///
    /// # Safety
    /// They map the image, the current stack and everything else in use as it is in use now; EFER.NXE is set.
    pub unsafe fn load(&self) {
        // SAFETY: the caller's promise.
        unsafe { control::write_cr3(self.root.0) };
    }
}

fn slot(table: HostPhys, linear: u64, level: u32) -> *mut u64 {
    let index = linear >> (12 + 9 * (level - 1)) & 0x1ff;
    physmem::pointer::<u64>(table.add(index * 8))
}
