//! An L1 whose RAM is sparse: a word that was never written is zero.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use arch::{GuestMemory, GuestPhys, HostPhys, OutsideMemory};
use ept::{Backed, Backing, PageSize, Permissions};

pub(crate) const MIB: u64 = 1 << 20;
pub(crate) const GIB: u64 = 1 << 30;

/// What another vCPU does to a word.
type Change = fn(u64) -> u64;

/// A piece of RAM: where L1 sees it, how long it is, where the machine has it, what may be done with it.
pub(crate) struct Piece {
    pub(crate) at: u64,
    pub(crate) len: u64,
    pub(crate) host: u64,
    pub(crate) permissions: Permissions,
}

/// L1's memory: RAM below 640 KiB and from 1 MiB to 1 GiB and from 4 GiB to 8 GiB, ROM (read and execute) at 1 MiB less
/// 64 KiB. The second piece is aligned for 2-MiB pages, the third for 1-GiB pages.
pub(crate) struct L1 {
    pieces: Vec<Piece>,
    words: RefCell<BTreeMap<u64, u64>>,
    /// Before how many of the next compare-exchanges another vCPU changes the word, and how.
    pub(crate) interference: Cell<(u32, Change)>,
}

impl L1 {
    pub(crate) fn new() -> Self {
        let ram = |at, len, host| Piece { at, len, host, permissions: Permissions::ALL };
        let rom = Permissions::READ | Permissions::EXECUTE;
        let pieces = vec![
            ram(0, 640 << 10, 0x7_0000_1000),
            Piece { at: MIB - (64 << 10), len: 64 << 10, host: 0x7_1000_0000, permissions: rom },
            ram(MIB, GIB - MIB, 0x8_0030_0000),
            ram(4 * GIB, 4 * GIB, 16 * GIB),
        ];
        Self { pieces, words: RefCell::default(), interference: Cell::new((0, |word| word)) }
    }

    pub(crate) fn piece(&self, at: u64) -> Option<&Piece> {
        self.pieces.iter().find(|piece| (piece.at..piece.at + piece.len).contains(&at))
    }

    pub(crate) fn word(&self, at: u64) -> u64 {
        assert_eq!(at % 8, 0);
        self.words.borrow().get(&at).copied().unwrap_or(0)
    }

    pub(crate) fn set_word(&self, at: u64, word: u64) {
        assert!(at.is_multiple_of(8) && self.piece(at).is_some());
        self.words.borrow_mut().insert(at, word);
    }
}

impl GuestMemory for L1 {
    fn read(&self, at: GuestPhys, into: &mut [u8]) -> Result<(), OutsideMemory> {
        for (at, byte) in (at.get()..).zip(into) {
            self.piece(at).ok_or(OutsideMemory)?;
            *byte = (self.word(at & !7) >> (8 * (at % 8)) & 0xff) as u8;
        }
        Ok(())
    }

    fn write(&self, at: GuestPhys, from: &[u8]) -> Result<(), OutsideMemory> {
        if (at.get()..).zip(from).any(|(at, _)| self.piece(at).is_none()) {
            return Err(OutsideMemory);
        }
        for (at, &byte) in (at.get()..).zip(from) {
            let shift = 8 * (at % 8);
            self.set_word(at & !7, self.word(at & !7) & !(0xff << shift) | u64::from(byte) << shift);
        }
        Ok(())
    }

    fn compare_exchange(&self, at: GuestPhys, current: u64, new: u64) -> Result<bool, OutsideMemory> {
        let at = at.get();
        self.piece(at).ok_or(OutsideMemory)?;
        let (times, change) = self.interference.get();
        if times > 0 {
            self.interference.set((times - 1, change));
            self.set_word(at, change(self.word(at)));
        }
        let same = self.word(at) == current;
        if same {
            self.set_word(at, new);
        }
        Ok(same)
    }
}

impl Backing for L1 {
    fn backing(&self, at: GuestPhys) -> Option<Backed> {
        let at = at.get();
        let piece = self.piece(at)?;
        let fits = |size: &PageSize| {
            let start = at & !(size.bytes() - 1);
            start >= piece.at
                && start + size.bytes() <= piece.at + piece.len
                && (piece.host - piece.at).is_multiple_of(size.bytes())
        };
        let size = [PageSize::Size1G, PageSize::Size2M, PageSize::Size4K].into_iter().find(fits)?;
        Some(Backed { host: HostPhys(piece.host + (at - piece.at)), size, permissions: piece.permissions })
    }
}
