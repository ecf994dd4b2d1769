//! Physical memory that nobody uses.
//!
//! L0 allocates while it brings the machine up and while it makes a guest; what comes back is the memory of guests that have
//! ended. Everything comes from the lowest place that has room, so that high memory stays whole for guests, which want aligned
//! gigabytes.

use arch::{HostPhys, PAGE_SIZE};
use boot::FreeMemory;

use crate::lock::Lock;
use crate::physmem;

/// Bytes in a 2-MiB page.
pub const PAGE_2M: u64 = 2 << 20;
/// Bytes in a 1-GiB page.
pub const PAGE_1G: u64 = 1 << 30;

/// The free memory; empty until the boot processor has [given](Frames::take_over) it.
pub struct Frames {
    free: Option<FreeMemory>,
}

/// All free memory of the machine.
pub static FRAMES: Lock<Frames> = Lock::new(Frames { free: None });

/// A frame of zeros out of [`FRAMES`].
#[inline(never)]
#[must_use]
pub fn zeroed_frame() -> Option<HostPhys> {
    FRAMES.lock().zeroed_frame()
}

impl Frames {
    /// From now on `free` is what can be allocated.
    ///
    /// # Safety
    /// It is RAM that nobody uses, now or later, and the direct map shows it when memory from it is used.
    pub unsafe fn take_over(&mut self, free: FreeMemory) {
        self.free = Some(free);
    }

    /// `bytes` of contiguous memory at a multiple of `align`, a power of two; both are rounded up to 4 KiB. Its content
    /// is whatever was there.
    pub fn allocate(&mut self, bytes: u64, align: u64) -> Option<HostPhys> {
        self.allocate_below(bytes, align, u64::MAX)
    }

    /// As [`Self::allocate`], all of it below the address `limit`.
    pub fn allocate_below(&mut self, bytes: u64, align: u64, limit: u64) -> Option<HostPhys> {
        self.free.as_mut()?.carve(bytes, align, 0..limit)
    }

    /// Takes `bytes` at `start`, which came from here, back; `false` when there are too many pieces to keep account of them.
    ///
    /// # Safety
    /// Nobody uses them any more, and no processor that runs a guest has a translation to them.
    pub unsafe fn give_back(&mut self, start: HostPhys, bytes: u64) -> bool {
        self.free.as_mut().is_some_and(|free| free.release(start, bytes))
    }

    /// One frame of zeros.
    pub fn zeroed_frame(&mut self) -> Option<HostPhys> {
        self.zeroed_frame_below(u64::MAX)
    }

    /// One frame of zeros below the address `limit`.
    pub fn zeroed_frame_below(&mut self, limit: u64) -> Option<HostPhys> {
        let frame = self.allocate_below(PAGE_SIZE, PAGE_SIZE, limit)?;
        // SAFETY: `take_over` was promised that the memory is nobody's and that the direct map shows it.
        unsafe { physmem::zero(frame, PAGE_SIZE) };
        Some(frame)
    }

    /// How many bytes are free.
    #[must_use]
    pub fn free_bytes(&self) -> u64 {
        self.free.as_ref().map_or(0, FreeMemory::total)
    }

    /// Bytes of the largest free piece.
    #[must_use]
    pub fn largest(&self) -> u64 {
        self.free.as_ref().map_or(0, |free| free.largest(0..u64::MAX))
    }
}
