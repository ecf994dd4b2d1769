//! Frames for the EPT of a guest.

use arch::HostPhys;
use ept::Frames;
use hw::frames::FRAMES;
use hw::physmem;

/// Table frames out of the machine's free memory. Counts them, for the account at the end.
#[derive(Default)]
pub struct TableFrames {
    taken: u64,
}

impl TableFrames {
    /// How many frames the tables take.
    pub const fn taken(&self) -> u64 {
        self.taken
    }
}

impl Frames for TableFrames {
    fn allocate(&mut self) -> Option<HostPhys> {
        let frame = FRAMES.lock().zeroed_frame()?;
        self.taken += 1;
        Some(frame)
    }

    fn read(&self, table: HostPhys, index: usize) -> u64 {
        // SAFETY: a table came from `allocate`, so the direct map shows it and only this type reaches it; processors read
        // the same words on their own.
        unsafe { physmem::pointer::<u64>(table).add(index & 511).read_volatile() }
    }

    fn write(&mut self, table: HostPhys, index: usize, entry: u64) {
        // SAFETY: as in `read`.
        unsafe { physmem::pointer::<u64>(table).add(index & 511).write_volatile(entry) };
    }

    fn free(&mut self, _: HostPhys) {
        // L0 never gives frames back: a guest's tables live as long as the run.
    }
}
