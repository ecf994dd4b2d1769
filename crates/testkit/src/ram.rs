//! L1's memory: RAM with a hole, at an offset in the machine.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use arch::{GuestMemory, GuestPhys, HostPhys, OutsideMemory};
use ept::{Backed, Backing, PageSize, Permissions};
use nested::L1Memory;
use vmcs::checks::PhysicalMemory;

const PAGE: u64 = 4096;

type Words = [AtomicU64; 512];

/// L1's memory: RAM from 0 to [`Ram::END`], but for the hole of the video memory ([`Ram::HOLE`]). A byte that was never written
/// is 0.
#[derive(Debug)]
pub struct Ram {
    pages: Vec<OnceLock<Page>>,
    lasts: bool,
}

#[derive(Debug)]
enum Page {
    Own(Box<Words>),
    Lasting(&'static Words),
}

impl Page {
    fn lasting(self) -> Self {
        match self {
            Self::Own(words) => Self::Lasting(Box::leak(words)),
            Self::Lasting(words) => Self::Lasting(words),
        }
    }
}

impl Default for Ram {
    fn default() -> Self {
        Self { pages: (0..Self::END / PAGE).map(|_| OnceLock::new()).collect(), lasts: false }
    }
}

impl Ram {
    /// Where the RAM ends.
    pub const END: u64 = 0x40_0000;
    /// No RAM: 0xa0000 to 0xbffff.
    pub const HOLE: core::ops::Range<u64> = 0xa_0000..0xc_0000;
    /// How much higher the machine has it.
    pub const HOST_OFFSET: u64 = 0x80_0000_0000;

    /// RAM of zeros.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether there is RAM at `at`.
    pub fn has(at: u64) -> bool {
        at < Self::END && !Self::HOLE.contains(&at)
    }

    /// Puts `value` at `at`.
    pub fn set(&self, at: u64, value: u64) {
        assert_eq!(self.write(GuestPhys(at), &value.to_le_bytes()), Ok(()), "no RAM at {at:#x}");
    }

    /// The word at `at`; all ones where there is no RAM.
    pub fn get(&self, at: u64) -> u64 {
        self.read_u64(GuestPhys(at)).unwrap_or(u64::MAX)
    }

    /// The same, with pages that last as long as the test runs, as the machine's do: [`GuestMemory::lasting_page`] has them.
    #[must_use]
    pub fn lasting(self) -> Self {
        let lasting = |page: OnceLock<Page>| page.into_inner().map_or_else(OnceLock::new, |page| page.lasting().into());
        Self { pages: self.pages.into_iter().map(lasting).collect(), lasts: true }
    }

    /// The page that has the byte at `at`, made when it is first used.
    fn page(&self, at: u64) -> Option<&Page> {
        let page = self.pages.get(usize::try_from(at / PAGE).ok()?).filter(|_| Self::has(at))?;
        Some(page.get_or_init(|| {
            let page = Page::Own(Box::new([const { AtomicU64::new(0) }; 512]));
            if self.lasts { page.lasting() } else { page }
        }))
    }

    fn page_words(&self, at: u64) -> Option<&Words> {
        self.page(at).map(|page| match page {
            Page::Own(words) => words.as_ref(),
            Page::Lasting(words) => words,
        })
    }

    /// The word that has the byte at `at`, and how far up in it the byte is.
    fn word(&self, at: u64) -> Option<(&AtomicU64, u64)> {
        Some((&self.page_words(at)?[(at % PAGE / 8) as usize], 8 * (at % 8)))
    }
}

impl GuestMemory for Ram {
    fn read(&self, at: GuestPhys, into: &mut [u8]) -> Result<(), OutsideMemory> {
        for (index, byte) in into.iter_mut().enumerate() {
            let at = at.get().checked_add(index as u64).ok_or(OutsideMemory)?;
            let (word, shift) = self.word(at).ok_or(OutsideMemory)?;
            *byte = (word.load(Ordering::Relaxed) >> shift & 0xff) as u8;
        }
        Ok(())
    }

    fn write(&self, at: GuestPhys, from: &[u8]) -> Result<(), OutsideMemory> {
        let end = at.get().checked_add(from.len() as u64).ok_or(OutsideMemory)?;
        if !(at.get()..end).all(Self::has) {
            return Err(OutsideMemory);
        }
        for (at, &byte) in (at.get()..).zip(from) {
            let (word, shift) = self.word(at).ok_or(OutsideMemory)?;
            let rest = word.load(Ordering::Relaxed) & !(0xff << shift);
            word.store(rest | u64::from(byte) << shift, Ordering::Relaxed);
        }
        Ok(())
    }

    fn lasting_page(&self, at: GuestPhys) -> Option<&'static Words> {
        match self.page(at.get())? {
            Page::Own(_) => None,
            Page::Lasting(words) => Some(words),
        }
    }

    fn compare_exchange(&self, at: GuestPhys, current: u64, new: u64) -> Result<bool, OutsideMemory> {
        let same = self.read_u64(at)? == current;
        if same {
            self.write(at, &new.to_le_bytes())?;
        }
        Ok(same)
    }
}

impl Backing for Ram {
    fn backing(&self, at: GuestPhys) -> Option<Backed> {
        let host = HostPhys(at.get().wrapping_add(Self::HOST_OFFSET));
        Self::has(at.get()).then_some(Backed { host, size: PageSize::Size4K, permissions: Permissions::ALL })
    }
}

impl L1Memory for Ram {
    fn words(&self, page: GuestPhys) -> Option<&Words> {
        assert!(page.get().is_multiple_of(PAGE), "{page:?} is no page");
        self.page_words(page.get())
    }
}

/// The same memory as the machine's processor reads it: at the machine's addresses.
#[derive(Clone, Copy, Debug)]
pub struct MachineMemory<'a>(pub &'a Ram);

impl PhysicalMemory for MachineMemory<'_> {
    fn read_u64(&self, address: u64) -> u64 {
        address.checked_sub(Ram::HOST_OFFSET).map_or(u64::MAX, |at| self.0.get(at))
    }
}

/// The same memory as L1's processor reads it: at L1's addresses.
#[derive(Clone, Copy, Debug)]
pub struct L1Words<'a>(pub &'a Ram);

impl PhysicalMemory for L1Words<'_> {
    fn read_u64(&self, address: u64) -> u64 {
        self.0.get(address)
    }
}
