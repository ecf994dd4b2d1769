//! Extended page tables. SDM 3C 29.3.2 "EPT Translation Mechanism".

use super::pages;
use crate::memory;

/// Read, write and execute.
pub const READ: u64 = 1 << 0;
/// Write.
pub const WRITE: u64 = 1 << 1;
/// Execute.
pub const EXECUTE: u64 = 1 << 2;
/// All three.
pub const ALL: u64 = READ | WRITE | EXECUTE;
/// Memory type write-back, in bits 5:3 of an entry that maps a page.
pub const WRITE_BACK: u64 = 6 << 3;
/// The entry maps a page of 2 MiB or 1 GiB.
pub const LARGE: u64 = 1 << 7;

/// Tables of four levels that map the first 4 GiB to themselves by pages of 2 MiB.
#[derive(Clone, Copy, Debug)]
pub struct Ept {
    /// The address of the uppermost table.
    pub root: u64,
}

impl Ept {
    /// New tables.
    pub fn identity() -> Self {
        let (root, pointers, directories) = (pages::take(), pages::take(), pages::take_several(4));
        memory::write(root, pointers | ALL);
        for gib in 0..4 {
            memory::write(pointers + 8 * gib, (directories + 4096 * gib) | ALL);
        }
        for index in 0..2048 {
            memory::write(directories + 8 * index, index << 21 | ALL | WRITE_BACK | LARGE);
        }
        Self { root }
    }

    /// The EPTP: write-back tables, four levels.
    pub fn pointer(self) -> u64 {
        self.root | 3 << 3 | 6
    }

    /// The address of the entry of level `level` (4: uppermost, 1: a page of 4 KiB) for `address`. A page that is larger is
    /// split into smaller ones that map the same.
    pub fn entry(self, address: u64, level: u32) -> u64 {
        let mut table = self.root;
        for at in (level + 1..=4).rev() {
            let slot = table + 8 * (address >> (12 + 9 * (at - 1)) & 511);
            let entry: u64 = memory::read(slot);
            if at < 4 && entry & LARGE != 0 {
                split(slot, entry, at);
            }
            table = memory::read::<u64>(slot) & 0x000f_ffff_ffff_f000;
        }
        table + 8 * (address >> (12 + 9 * (level - 1)) & 511)
    }
}

/// Replaces the large page of level `level` in `slot` by a table of pages one level lower.
fn split(slot: u64, entry: u64, level: u32) {
    let table = pages::take();
    let size = 1 << (12 + 9 * (level - 2));
    let bits = if level == 2 { entry & !LARGE } else { entry };
    for index in 0..512 {
        memory::write(table + 8 * index, bits + size * index);
    }
    memory::write(slot, table | ALL);
}
