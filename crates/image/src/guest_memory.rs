//! L1's RAM: which host memory stands behind which guest-physical address.

use core::sync::atomic::AtomicU64;

use arch::{GuestMemory, GuestPhys, OutsideMemory};
use ept::{Backed, Backing, PageSize, Permissions};
use heapless::Vec;
use hw::frames::FRAMES;
use hw::physmem::Shared;
use nested::L1Memory;

/// A piece of L1's RAM that is contiguous on both sides.
#[derive(Clone, Copy)]
struct Piece {
    guest: u64,
    host: Shared,
}

/// L1's RAM, in few contiguous pieces.
pub(crate) struct GuestRam {
    pieces: Vec<Piece, 8>,
}

impl GuestRam {
    /// No RAM yet.
    pub(crate) const fn new() -> Self {
        Self { pieces: Vec::new() }
    }

    /// Adds a piece; `Err` gives it back when there are too many.
    pub(crate) fn add(&mut self, guest: GuestPhys, host: Shared) -> Result<(), Shared> {
        self.pieces.push(Piece { guest: guest.get(), host }).map_err(|piece| piece.host)?;
        // Most accesses are to the largest piece: it comes first.
        if let [first, .., last] = self.pieces.as_mut_slice()
            && last.host.length() > first.host.length()
        {
            core::mem::swap(first, last);
        }
        Ok(())
    }

    /// Gives all of it back to the machine.
    ///
    /// # Safety
    /// The guest never runs again, and nobody else uses its memory any more.
    pub(crate) unsafe fn give_back(&self) {
        let mut frames = FRAMES.lock();
        for piece in &self.pieces {
            // SAFETY: the caller's promise. The processors' translations are tagged with identifiers and pointers that no other
            // guest ever has.
            if !unsafe { frames.give_back(piece.host.base(), piece.host.length()) } {
                defmt::warn!("{=u64} bytes of memory are lost: free memory is in too many pieces", piece.host.length());
            }
        }
    }

    /// The piece that holds `at`, with the offset in it.
    #[inline(always)]
    fn find(&self, at: u64) -> Result<(&Shared, u64), OutsideMemory> {
        self.pieces
            .iter()
            .find(|piece| at.wrapping_sub(piece.guest) < piece.host.length())
            .map(|piece| (&piece.host, at - piece.guest))
            .ok_or(OutsideMemory)
    }

    /// Splits an access of `length` bytes at `at` where pieces end, and checks all of it before `each` touches any.
    #[inline]
    fn split(
        &self,
        at: u64,
        length: usize,
        mut each: impl FnMut(&Shared, u64, core::ops::Range<usize>),
    ) -> Result<(), OutsideMemory> {
        for act in [false, true] {
            let mut done = 0;
            while done < length {
                let (piece, offset) = self.find(at.checked_add(done as u64).ok_or(OutsideMemory)?)?;
                let room = usize::try_from(piece.length() - offset).unwrap_or(usize::MAX);
                let end = length.min(done.saturating_add(room));
                if act {
                    each(piece, offset, done..end);
                }
                done = end;
            }
        }
        Ok(())
    }

    #[cold]
    #[inline(never)]
    fn read_split(&self, at: GuestPhys, into: &mut [u8]) -> Result<(), OutsideMemory> {
        self.split(at.get(), into.len(), |piece, offset, part| {
            // `split` has checked that the part lies inside the piece.
            let _ = piece.read(offset, &mut into[part]);
        })
    }

    #[cold]
    #[inline(never)]
    fn write_split(&self, at: GuestPhys, from: &[u8]) -> Result<(), OutsideMemory> {
        self.split(at.get(), from.len(), |piece, offset, part| {
            // As in `read_split`.
            let _ = piece.write(offset, &from[part]);
        })
    }
}

impl Backing for GuestRam {
    fn backing(&self, at: GuestPhys) -> Option<Backed> {
        let (piece, host) = self.find(at.get()).ok()?;
        let (guest, length) =
            self.pieces.iter().find(|p| core::ptr::eq(&raw const p.host, piece)).map(|p| (p.guest, piece.length()))?;
        let fits = |size: PageSize| {
            let bytes = size.bytes();
            let first = at.get() & !(bytes - 1);
            let aligned = (piece.base().get().wrapping_sub(guest)).is_multiple_of(bytes);
            aligned && first >= guest && first + bytes <= guest + length
        };
        let size =
            [PageSize::Size1G, PageSize::Size2M].into_iter().find(|&size| fits(size)).unwrap_or(PageSize::Size4K);
        Some(Backed { host: piece.base().add(host), size, permissions: Permissions::ALL })
    }
}

impl L1Memory for GuestRam {
    #[inline]
    fn words(&self, page: GuestPhys) -> Option<&[AtomicU64; 512]> {
        let (piece, offset) = self.find(page.get()).ok()?;
        piece.words(offset)
    }
}

impl GuestMemory for GuestRam {
    #[inline]
    fn read(&self, at: GuestPhys, into: &mut [u8]) -> Result<(), OutsideMemory> {
        let (piece, offset) = self.find(at.get())?;
        piece.read(offset, into).or_else(|OutsideMemory| self.read_split(at, into))
    }

    #[inline]
    fn write(&self, at: GuestPhys, from: &[u8]) -> Result<(), OutsideMemory> {
        let (piece, offset) = self.find(at.get())?;
        piece.write(offset, from).or_else(|OutsideMemory| self.write_split(at, from))
    }

    #[inline(always)]
    fn read_u64(&self, at: GuestPhys) -> Result<u64, OutsideMemory> {
        let (piece, offset) = self.find(at.get())?;
        piece.read_u64(offset)
    }

    fn lasting_page(&self, at: GuestPhys) -> Option<&'static [AtomicU64; 512]> {
        let (piece, offset) = self.find(at.get()).ok()?;
        piece.words(offset)
    }

    #[inline]
    fn compare_exchange(&self, at: GuestPhys, current: u64, new: u64) -> Result<bool, OutsideMemory> {
        let (piece, offset) = self.find(at.get())?;
        piece.compare_exchange(offset, current, new)
    }
}
