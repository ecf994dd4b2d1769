//! Frames for the EPT of a guest.

use arch::HostPhys;
use ept::Frames;
use hw::frames::zeroed_frame;
use hw::physmem;

/// Table frames out of the machine's free memory. Counts them, for the account at the end.
#[derive(Default)]
pub(crate) struct TableFrames {
    taken: u64,
}

impl TableFrames {
    /// How many frames the tables take.
    pub(crate) const fn taken(&self) -> u64 {
        self.taken
    }
}

impl Frames for TableFrames {
    fn allocate(&mut self) -> Option<HostPhys> {
        let frame = zeroed_frame()?;
        self.taken += 1;
        Some(frame)
    }

    fn read(&self, table: HostPhys, index: usize) -> u64 {
        // SAFETY: as for `word`.
        unsafe { word(table, index).read_volatile() }
    }

    fn write(&mut self, table: HostPhys, index: usize, entry: u64) {
        // SAFETY: as for `word`.
        unsafe { word(table, index).write_volatile(entry) };
    }

    fn free(&mut self, _: HostPhys) {
        // L0 never gives frames back: a guest's tables live as long as the run.
    }
}

/// An entry of a table that came from `allocate`: the direct map shows it and only [`TableFrames`] reaches it. Processors
/// read the same words on their own.
fn word(table: HostPhys, index: usize) -> *mut u64 {
    // SAFETY: a table is a page of 512 words.
    unsafe { physmem::pointer::<u64>(table).add(index & 511) }
}
