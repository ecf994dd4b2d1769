//! A bounded number of frames that are used over and over.

use arch::HostPhys;

use crate::frames::{ENTRIES, Frames};

/// Frames of `F`, but no more than a limit, and given out again after `free`, at once: for tables of which the owner
/// knows that no processor walks them meanwhile, as [`Shadows`](crate::Shadows) does.
#[derive(Debug)]
pub struct Pool<F> {
    frames: F,
    /// How many more to take from `frames`.
    left: usize,
    /// The frame that was freed last. Its first entry is the one freed before it, with [`LINK`].
    free: Option<HostPhys>,
}

/// Tells a link from the end of the list; an address of a frame has bit 0 clear.
const LINK: u64 = 1;

impl<F: Frames> Pool<F> {
    /// At most `limit` frames of `frames`, taken as they are needed.
    pub const fn new(frames: F, limit: usize) -> Self {
        Self { frames, left: limit, free: None }
    }
}

impl<F: Frames> Frames for Pool<F> {
    fn allocate(&mut self) -> Option<HostPhys> {
        if let Some(frame) = self.free {
            let next = self.frames.read(frame, 0);
            self.free = (next & LINK != 0).then_some(HostPhys(next & !LINK));
            (0..ENTRIES).for_each(|index| self.frames.write(frame, index, 0));
            return Some(frame);
        }
        self.left = self.left.checked_sub(1)?;
        self.frames.allocate()
    }

    fn read(&self, table: HostPhys, index: usize) -> u64 {
        self.frames.read(table, index)
    }

    fn write(&mut self, table: HostPhys, index: usize, entry: u64) {
        self.frames.write(table, index, entry);
    }

    fn free(&mut self, table: HostPhys) {
        let next = self.free.map_or(0, |frame| frame.get() | LINK);
        self.frames.write(table, 0, next);
        self.free = Some(table);
    }
}
