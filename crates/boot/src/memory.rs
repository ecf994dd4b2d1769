//! The machine's memory: a map without overlaps, and what of it is free.

use core::ops::Range;

use arch::{HostPhys, PAGE_SIZE};
use heapless::Vec;

use crate::info::BootError;

/// Ranges that a memory map may have; firmware with UEFI gives several dozen.
pub const MAX_RANGES: usize = 128;
/// Physical addresses have at most 52 bits (SDM 3A, 4.1.4 "Enumeration of Paging Features by CPUID").
const ADDRESS_LIMIT: u64 = 1 << 52;

/// What a range of memory is for: the type numbers of ACPI 6.5, 15 "System Address Map Interfaces".
///
/// In the order of their claim: where ranges overlap, the later in this list wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum MemoryKind {
    /// 1: RAM that is free.
    Usable,
    /// 3: RAM with ACPI tables, free once they have been read. L0 leaves it alone.
    AcpiReclaimable,
    /// 4: RAM that firmware needs across sleep.
    AcpiNvs,
    /// 2, and every number that is not listed here.
    Reserved,
    /// 5: RAM with errors.
    Defective,
}

impl MemoryKind {
    /// The kind with this type number.
    pub const fn from_number(number: u32) -> Self {
        match number {
            1 => Self::Usable,
            3 => Self::AcpiReclaimable,
            4 => Self::AcpiNvs,
            5 => Self::Defective,
            _ => Self::Reserved,
        }
    }
}

/// One range of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct MemoryRange {
    /// First byte.
    pub start: HostPhys,
    /// Length in bytes.
    pub len: u64,
    /// What it is for.
    pub kind: MemoryKind,
}

/// Memory ranges sorted, without overlaps, in whole pages, neighbours of one kind joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryMap {
    ranges: Vec<MemoryRange, MAX_RANGES>,
}

impl MemoryMap {
    /// Brings `ranges` into order. Usable ranges lose pages that they have only a part of; all others gain them.
    ///
    /// # Errors
    /// [`BootError::TooMany`] when the result has more ranges than there is room for.
    #[inline(never)]
    pub fn normalise(ranges: &[MemoryRange]) -> Result<Self, BootError> {
        const FULL: BootError = BootError::TooMany { what: "memory ranges", limit: MAX_RANGES };
        let mut pages: Vec<(Range<u64>, MemoryKind), MAX_RANGES> = Vec::new();
        let mut borders: Vec<u64, { 2 * MAX_RANGES }> = Vec::new();
        // There are few, and they come nearly in order.
        let mut insert = |border| borders.insert(borders.partition_point(|other| *other < border), border);
        for range in ranges {
            let covered = in_pages(range);
            if !covered.is_empty() {
                insert(covered.start).and(insert(covered.end)).map_err(|_| FULL)?;
                pages.push((covered, range.kind)).map_err(|_| FULL)?;
            }
        }

        // Between two neighbouring borders nothing changes, so one look decides for all pages there.
        let mut map: Vec<MemoryRange, MAX_RANGES> = Vec::new();
        for pair in borders.windows(2) {
            let &[start, end] = pair else { continue };
            let winner = pages.iter().filter(|(range, _)| range.contains(&start)).map(|(_, kind)| *kind).max();
            let Some(kind) = winner.filter(|_| start < end) else { continue };
            match map.last_mut() {
                Some(last) if last.kind == kind && last.start.0 + last.len == start => last.len += end - start,
                _ => map.push(MemoryRange { start: HostPhys(start), len: end - start, kind }).map_err(|_| FULL)?,
            }
        }
        Ok(Self { ranges: map })
    }

    /// All ranges, sorted.
    pub fn ranges(&self) -> &[MemoryRange] {
        &self.ranges
    }

    /// The usable ranges, sorted.
    pub fn usable(&self) -> impl Iterator<Item = Range<u64>> {
        let usable = |range: &&MemoryRange| range.kind == MemoryKind::Usable;
        self.ranges.iter().filter(usable).map(|range| range.start.0..range.start.0 + range.len)
    }

    /// Address after the last byte of RAM, of any kind but reserved: the direct map must reach it.
    pub fn ram_end(&self) -> u64 {
        let ram = |range: &&MemoryRange| range.kind != MemoryKind::Reserved;
        self.ranges.iter().filter(ram).map(|range| range.start.0 + range.len).max().unwrap_or(0)
    }
}

/// The pages that a range has: usable ones wholly, others in part. Empty where nothing is left.
fn in_pages(range: &MemoryRange) -> Range<u64> {
    let start = range.start.0.min(ADDRESS_LIMIT);
    let end = range.start.0.saturating_add(range.len).min(ADDRESS_LIMIT);
    if start == end {
        return start..start;
    }
    if range.kind == MemoryKind::Usable {
        start.next_multiple_of(PAGE_SIZE)..end & !(PAGE_SIZE - 1)
    } else {
        start & !(PAGE_SIZE - 1)..end.next_multiple_of(PAGE_SIZE)
    }
}

/// Ranges of memory that nobody has yet: whole pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FreeMemory {
    ranges: Vec<Range<u64>, { 2 * MAX_RANGES }>,
}

/// Below is what firmware and starting processors use; only the trampoline page belongs there.
pub const LOW_MEMORY_END: u64 = 1 << 20;

const NO_ROOM: BootError = BootError::TooMany { what: "pieces of free memory", limit: 2 * MAX_RANGES };

impl FreeMemory {
    /// What is usable in `map` and lies in `within`.
    ///
    /// `LOW_MEMORY_END..u64::MAX` is the memory L0 lives from; `PAGE_SIZE..LOW_MEMORY_END` has a place for the
    /// trampoline of the other processors.
    ///
    /// # Errors
    /// [`BootError::TooMany`], which a map of [`MemoryMap`] does not reach.
    pub fn of(map: &MemoryMap, within: Range<u64>) -> Result<Self, BootError> {
        let mut ranges = Vec::new();
        for range in map.usable() {
            let start = range.start.max(within.start).next_multiple_of(PAGE_SIZE);
            let end = range.end.min(within.end) & !(PAGE_SIZE - 1);
            if start < end {
                ranges.push(start..end).map_err(|_| NO_ROOM)?;
            }
        }
        Ok(Self { ranges })
    }

    /// Takes out all pages that have a byte of the `len` bytes at `start`: the image, a module, a table.
    ///
    /// # Errors
    /// [`BootError::TooMany`] when what is left has more pieces than there is room for.
    pub fn reserve(&mut self, start: HostPhys, len: u64) -> Result<(), BootError> {
        let taken = in_pages(&MemoryRange { start, len, kind: MemoryKind::Reserved });
        let mut left = Vec::new();
        for range in self.ranges.iter().filter(|_| !taken.is_empty()) {
            let before = range.start..range.end.min(taken.start);
            let after = range.start.max(taken.end)..range.end;
            for piece in [before, after] {
                if !piece.is_empty() {
                    left.push(piece).map_err(|_| NO_ROOM)?;
                }
            }
        }
        if !taken.is_empty() {
            self.ranges = left;
        }
        Ok(())
    }

    /// Takes the lowest `len` free bytes, rounded up to pages, that begin at a multiple of `align` (a power of two; at
    /// least a page) and lie in `within`. `None` when there are none, or when `len` is 0.
    pub fn carve(&mut self, len: u64, align: u64, within: Range<u64>) -> Option<HostPhys> {
        let align = align.max(PAGE_SIZE);
        if len == 0 || !align.is_power_of_two() {
            return None;
        }
        let len = len.checked_next_multiple_of(PAGE_SIZE)?;
        let start = self.ranges.iter().find_map(|range| {
            let start = range.start.max(within.start).checked_next_multiple_of(align)?;
            (start.checked_add(len)? <= range.end.min(within.end)).then_some(start)
        })?;
        self.reserve(HostPhys(start), len).ok()?;
        Some(HostPhys(start))
    }

    /// Gives pages back that were carved. `false` when they are in one piece too many, and lost.
    pub fn release(&mut self, start: HostPhys, len: u64) -> bool {
        let end = start.0 + len;
        let at = self.ranges.partition_point(|range| range.end < start.0);
        match self.ranges.get_mut(at) {
            Some(before) if before.end == start.0 => before.end = end,
            Some(behind) if behind.start == end => behind.start = start.0,
            _ => return self.ranges.insert(at, start.0..end).is_ok(),
        }
        if let [before, behind, ..] = &mut self.ranges[at..]
            && before.end == behind.start
        {
            before.end = behind.end;
            self.ranges.remove(at + 1);
        }
        true
    }

    /// The free ranges, sorted.
    pub fn ranges(&self) -> &[Range<u64>] {
        &self.ranges
    }

    /// Free bytes in all.
    pub fn total(&self) -> u64 {
        self.ranges.iter().map(|range| range.end - range.start).sum()
    }

    /// Bytes of the largest free range that lies in `within`, counting only what lies in it.
    pub fn largest(&self, within: Range<u64>) -> u64 {
        let inside = |range: &Range<u64>| range.end.min(within.end).saturating_sub(range.start.max(within.start));
        self.ranges.iter().map(inside).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range(start: u64, len: u64, kind: MemoryKind) -> MemoryRange {
        MemoryRange { start: HostPhys(start), len, kind }
    }

    /// Bochs's map with its usual oddities: not in whole pages, and a reserved range inside RAM.
    #[test]
    fn reserved_wins_and_pages_are_whole() {
        let map = MemoryMap::normalise(&[
            range(0x10_0000, 0x7f0_0000, MemoryKind::Usable),
            range(0, 0x9_fc00, MemoryKind::Usable),
            range(0x9_fc00, 0x400, MemoryKind::Reserved),
            range(0x40_0800, 0x1000, MemoryKind::AcpiNvs),
            range(u64::MAX, 2, MemoryKind::Usable),
        ])
        .unwrap();
        let expected = [
            range(0, 0x9_f000, MemoryKind::Usable),
            range(0x9_f000, 0x1000, MemoryKind::Reserved),
            range(0x10_0000, 0x30_0000, MemoryKind::Usable),
            range(0x40_0000, 0x2000, MemoryKind::AcpiNvs),
            range(0x40_2000, 0x7bf_e000, MemoryKind::Usable),
        ];
        assert_eq!(map.ranges(), expected);
        assert_eq!(map.ram_end(), 0x800_0000);
    }

    /// What is carved is never given again, honours its limits, and leaves image and low memory alone.
    #[test]
    fn carving() {
        let map = MemoryMap::normalise(&[range(0, 0x40_0000, MemoryKind::Usable)]).unwrap();
        let mut free = FreeMemory::of(&map, LOW_MEMORY_END..u64::MAX).unwrap();
        free.reserve(HostPhys(0x20_0123), 0x1000).unwrap();
        let everywhere = 0..u64::MAX;
        assert_eq!(free.largest(everywhere.clone()), 0x1f_e000);
        assert_eq!(free.carve(1, 1, everywhere.clone()), Some(HostPhys(0x10_0000)));
        assert_eq!(free.carve(0x20_0000, 0x20_0000, everywhere.clone()), None, "the image is in the way");
        assert_eq!(free.carve(0x1000, 0x10_0000, everywhere.clone()), Some(HostPhys(0x30_0000)));
        assert_eq!(free.carve(0x1000, 1, 0x30_0000..u64::MAX), Some(HostPhys(0x30_1000)));
        assert_eq!(free.carve(0x1000, 1, 0..LOW_MEMORY_END), None);
        assert_eq!(free.carve(u64::MAX, 1, everywhere), None);
        let mut low = FreeMemory::of(&map, PAGE_SIZE..LOW_MEMORY_END).unwrap();
        assert_eq!(low.carve(PAGE_SIZE, 1, 0..0xa_0000), Some(HostPhys(0x1000)));
    }

    /// What is given back joins its neighbours: before, behind, both, none.
    #[test]
    fn releasing() {
        let map = MemoryMap::normalise(&[range(0x10_0000, 0x10_0000, MemoryKind::Usable)]).unwrap();
        let mut free = FreeMemory::of(&map, 0..u64::MAX).unwrap();
        let all = free.clone();
        let pages: std::vec::Vec<_> = (0..0x100).map(|_| free.carve(PAGE_SIZE, 1, 0..u64::MAX).unwrap()).collect();
        assert_eq!(free.total(), 0);
        for (page, pieces) in [(3, 1), (1, 2), (0, 2), (2, 1), (5, 2), (4, 1)] {
            assert!(free.release(pages[page], PAGE_SIZE));
            assert_eq!(free.ranges().len(), pieces, "after page {page}");
        }
        assert!(free.release(pages[6], 0xfa * PAGE_SIZE));
        assert_eq!(free, all);
    }

    const KINDS: [MemoryKind; 5] = [
        MemoryKind::Usable,
        MemoryKind::AcpiReclaimable,
        MemoryKind::AcpiNvs,
        MemoryKind::Reserved,
        MemoryKind::Defective,
    ];

    proptest! {
        /// Against the definition: a page is usable exactly if a usable range has all and no other range any of it.
        #[test]
        fn a_page_is_usable_only_if_all_agree(
            given in prop::collection::vec((0u64..0x2_0000, 0u64..0x8000, 0..5usize), 0..20),
        ) {
            let given: std::vec::Vec<_> =
                given.into_iter().map(|(start, len, kind)| range(start, len, KINDS[kind])).collect();
            let map = MemoryMap::normalise(&given).unwrap();
            prop_assert!(map.ranges().windows(2).all(|pair| pair[0].start.0 + pair[0].len <= pair[1].start.0));
            for page in (0..0x3_0000).step_by(4096) {
                let covers = |r: &&MemoryRange| r.start.0 <= page && page + 4096 <= r.start.0 + r.len;
                let touches = |r: &&MemoryRange| r.len != 0 && r.start.0 < page + 4096 && page < r.start.0 + r.len;
                let expected = given.iter().filter(|r| r.kind == MemoryKind::Usable).any(|r| covers(&r))
                    && !given.iter().filter(|r| r.kind != MemoryKind::Usable).any(|r| touches(&r));
                prop_assert_eq!(map.usable().any(|r| r.contains(&page)), expected, "page {:#x}", page);
            }
        }

        /// Any ranges and requests at all: no panic, and pieces never overlap.
        #[test]
        fn hostile_ranges_do_not_panic(
            given in prop::collection::vec((any::<u64>(), any::<u64>(), 0..5usize), 0..30),
            wanted in prop::collection::vec((any::<u64>(), any::<u64>(), 0u64..1 << 40), 0..8),
        ) {
            let given: std::vec::Vec<_> =
                given.into_iter().map(|(start, len, kind)| range(start, len, KINDS[kind])).collect();
            let map = MemoryMap::normalise(&given).unwrap();
            let mut free = FreeMemory::of(&map, 0..u64::MAX).unwrap();
            for (start, align, len) in wanted {
                let before = free.total();
                free.reserve(HostPhys(start), len).unwrap();
                prop_assert!(free.total() <= before);
                if let Some(got) = free.carve(len, 1 << (align % 64), 0..u64::MAX) {
                    prop_assert!(free.ranges().iter().all(|r| r.end <= got.0 || got.0 + len <= r.start));
                }
            }
        }
    }
}
