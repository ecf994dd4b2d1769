//! The paging modes' entries: where their fields are, and which bits are reserved.
//!
//! SDM 3A, 4.3 "32-Bit Paging", 4.4 "PAE Paging", 4.5 "4-Level Paging and 5-Level Paging", the tables "Format of …".

use arch::GuestPhys;
use arch::control::{Cr4, Efer};
use bit_field::BitField;

use crate::walk::Paging;

/// Bit 0: the entry is present.
pub(crate) const PRESENT: u64 = 1 << 0;
/// Bit 1: writes are allowed.
pub(crate) const WRITABLE: u64 = 1 << 1;
/// Bit 2: user-mode accesses are allowed.
pub(crate) const USER: u64 = 1 << 2;
/// Bit 5: accessed.
pub(crate) const ACCESSED: u64 = 1 << 5;
/// Bit 6 of an entry that maps a page: dirty.
pub(crate) const DIRTY: u64 = 1 << 6;
/// Bit 7 above level 1: a page, not a table.
pub(crate) const PAGE_SIZE: u64 = 1 << 7;
/// Bit 63: no instruction fetches.
const EXECUTE_DISABLE: u64 = 1 << 63;

/// One paging-structure entry; in 32-bit paging the upper half is zero.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry(pub(crate) u64);

impl Entry {
    pub(crate) fn is_user(self) -> bool {
        self.0 & USER != 0
    }

    pub(crate) fn with_flags(self, dirty: bool) -> Self {
        Self(self.0 | ACCESSED | if dirty { DIRTY } else { 0 })
    }
}

/// The paging mode.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Bits32,
    Pae,
    Level4,
    Level5,
}

impl Format {
    /// The mode that is on, given that CR0.PG is 1 (SDM 3A, 4.1.1 "Four Paging Modes").
    #[inline]
    pub(crate) fn of(paging: &Paging) -> Self {
        if !paging.cr4.contains(Cr4::PAE) {
            Self::Bits32
        } else if !paging.efer.contains(Efer::LMA) {
            Self::Pae
        } else if paging.cr4.contains(Cr4::LA57) {
            Self::Level5
        } else {
            Self::Level4
        }
    }

    pub(crate) fn is_long(self) -> bool {
        matches!(self, Self::Level4 | Self::Level5)
    }

    pub(crate) fn levels(self) -> u32 {
        match self {
            Self::Bits32 => 2,
            Self::Pae => 3,
            Self::Level4 => 4,
            Self::Level5 => 5,
        }
    }

    /// Address of the top-level table in CR3.
    pub(crate) fn root(self, cr3: u64) -> GuestPhys {
        GuestPhys(match self {
            Self::Bits32 => cr3 & 0xffff_f000,
            Self::Pae => cr3 & 0xffff_ffe0,
            Self::Level4 | Self::Level5 => cr3 & 0x000f_ffff_ffff_f000,
        })
    }

    /// Lowest bit of the linear address that selects an entry at `level` (1 is the level of 4-KiB pages).
    fn shift(self, level: u32) -> u32 {
        12 + (level - 1) * if self == Self::Bits32 { 10 } else { 9 }
    }

    /// Where the entry for `linear` is in the table of `level` at `table`.
    #[inline]
    pub(crate) fn entry_at(self, table: GuestPhys, linear: u64, level: u32) -> GuestPhys {
        let selected = linear >> self.shift(level);
        match self {
            Self::Bits32 => table.add(4 * (selected & 0x3ff)),
            _ => table.add(8 * (selected & 0x1ff)),
        }
    }

    /// Whether the present `entry` of `level` maps a page. In a PML4 or PML5 entry bit 7 is merely reserved; in 32-bit
    /// paging it counts if CR4.PSE is set.
    #[inline]
    pub(crate) fn is_page(self, entry: Entry, level: u32, paging: &Paging) -> bool {
        let large = entry.0 & PAGE_SIZE != 0
            && match (self, level) {
                (Self::Bits32, 2) => paging.cr4.contains(Cr4::PSE),
                (_, 2) => true,
                (_, 3) => paging.gigabyte_pages,
                _ => false,
            };
        level == 1 || large
    }

    /// The bits that are reserved in a present entry of `level`.
    #[inline]
    pub(crate) fn reserved(self, level: u32, is_page: bool, paging: &Paging) -> u64 {
        let width = u32::from(paging.physical_width.clamp(32, 52));
        if self == Self::Bits32 {
            // A 4-MiB page has address bits 39:32 in bits 20:13, as many as the width has; up to bit 21 the rest is
            // reserved.
            let first = width.min(40) - 19;
            return if level == 2 && is_page { (1 << 22) - (1 << first) } else { 0 };
        }
        let beyond_width = (1 << 52) - (1 << width);
        let execute_disable = if paging.efer.contains(Efer::NXE) { 0 } else { EXECUTE_DISABLE };
        // In PAE paging bits 62:52 are reserved too.
        let high = if self == Self::Pae { EXECUTE_DISABLE - (1 << 52) } else { 0 };
        let by_level = match (level, is_page) {
            (1, _) => 0,
            // Between the PAT bit, 12, and the address of a large page.
            (_, true) => self.page_bytes(level) - (1 << 13),
            (2, false) => 0,
            // A PML4 or PML5 entry, or a reference at level 3: bit 7 clear, unless there are no 1-GiB pages.
            (_, false) => PAGE_SIZE,
        };
        beyond_width | execute_disable | high | by_level
    }

    /// Whether `entry` forbids instruction fetches, if IA32_EFER.NXE is 1; otherwise the bit is reserved or absent.
    pub(crate) fn is_execute_disabled(self, entry: Entry) -> bool {
        entry.0 & EXECUTE_DISABLE != 0
    }

    pub(crate) fn page_bytes(self, level: u32) -> u64 {
        1 << self.shift(level)
    }

    /// Address of the page that an entry of `level` maps.
    #[inline]
    pub(crate) fn page_address(self, entry: Entry, level: u32) -> u64 {
        if self == Self::Bits32 && level == 2 {
            return entry.0 & 0xffc0_0000 | entry.0.get_bits(13..21) << 32;
        }
        entry.0 & 0x000f_ffff_ffff_f000 & !(self.page_bytes(level) - 1)
    }

    /// Address of the table that `entry` refers to.
    #[inline]
    pub(crate) fn table_address(self, entry: Entry) -> GuestPhys {
        GuestPhys(entry.0 & 0x000f_ffff_ffff_f000)
    }
}
