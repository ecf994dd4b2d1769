//! The tables that the machine walks while L2 runs: EPT02, one L2's.
//!
//! They begin empty and are filled by violations, each entry as L1's tables said when it was made. A processor may cache
//! what it translated until INVEPT; these tables are such a cache, and hold nothing that one could not hold.

use arch::{HostPhys, L2Phys};

use crate::entry::{Entry, PageSize};
use crate::frames::{ENTRIES, Frames};
use crate::tables::free_table;
use crate::walk::{LEVELS, index};

/// No frame is left for a table.
pub(crate) struct OutOfFrames;

/// One root and what hangs from it.
#[derive(Debug)]
pub(crate) struct Shadow {
    root: HostPhys,
    /// Whether there may be entries.
    filled: bool,
    /// Whether the processor may have cached what is here no longer.
    stale: bool,
}

impl Shadow {
    /// Empty tables. Nothing is known of who used the frame as a root before.
    pub(crate) fn new(frames: &mut impl Frames) -> Option<Self> {
        Some(Self { root: frames.allocate()?, filled: false, stale: true })
    }

    /// The table of the highest level.
    pub(crate) const fn root(&self) -> HostPhys {
        self.root
    }

    /// Whether INVEPT is due before the processor uses these tables; the caller executes it.
    pub(crate) fn take_stale(&mut self) -> bool {
        core::mem::take(&mut self.stale)
    }

    /// Maps the page of `size` around `at` by `leaf`, in place of whatever is there.
    pub(crate) fn insert(
        &mut self,
        frames: &mut impl Frames,
        at: L2Phys,
        size: PageSize,
        leaf: Entry,
    ) -> Result<(), OutOfFrames> {
        self.filled = true;
        let target = size.level();
        let mut table = self.root;
        for level in (target + 1..=LEVELS).rev() {
            let index = index(at.get(), level);
            let old = Entry(frames.read(table, index));
            table = if old == Entry::ABSENT || old.is_leaf(level) {
                let below = frames.allocate().ok_or(OutOfFrames)?;
                frames.write(table, index, Entry::table(below.get()).0);
                // L1 has smaller pages now; what else the large one mapped comes back by violations.
                self.stale |= old != Entry::ABSENT;
                below
            } else {
                HostPhys(old.address())
            };
        }
        let index = index(at.get(), target);
        let old = Entry(frames.read(table, index));
        if old.same_but_flags(leaf) {
            return Ok(());
        }
        frames.write(table, index, leaf.0);
        if old != Entry::ABSENT {
            if !old.is_leaf(target) {
                free_table(frames, HostPhys(old.address()), target - 1);
            }
            self.stale |= !leaf.only_adds_to(old);
        }
        Ok(())
    }

    /// Drops the entry that maps `at`, if there is one. `by_processor`: the processor has met a violation there, so that it
    /// caches nothing of this address any more; of the rest of a large page it may.
    pub(crate) fn forget(&mut self, frames: &mut impl Frames, at: L2Phys, by_processor: bool) {
        let mut table = self.root;
        for level in (1..=LEVELS).rev() {
            let index = index(at.get(), level);
            let entry = Entry(frames.read(table, index));
            if entry == Entry::ABSENT {
                return;
            }
            if entry.is_leaf(level) {
                frames.write(table, index, Entry::ABSENT.0);
                self.stale |= level > 1 || !by_processor;
                return;
            }
            table = HostPhys(entry.address());
        }
    }

    /// Drops all entries, and gives back all frames but the root's.
    pub(crate) fn clear(&mut self, frames: &mut impl Frames) {
        if !core::mem::take(&mut self.filled) {
            return;
        }
        for index in 0..ENTRIES {
            let entry = Entry(frames.read(self.root, index));
            if entry != Entry::ABSENT {
                frames.write(self.root, index, Entry::ABSENT.0);
                free_table(frames, HostPhys(entry.address()), LEVELS - 1);
            }
        }
        self.stale = true;
    }
}
