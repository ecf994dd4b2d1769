//! The tables of one guest: map, unmap, walk, release.

use core::convert::Infallible;

use arch::{GuestPhys, HostPhys, PAGE_SIZE};

use crate::entry::{Entry, MemoryType, PageSize, Permissions};
use crate::frames::{ENTRIES, Frames};
use crate::walk::{self, ADDRESS_BITS, LEVELS, Miss, Rules, index};

/// Physical addresses are below 2^52 (SDM 3A, 4.1.4 "Enumeration of Paging Features by CPUID").
const PHYSICAL_LIMIT: u64 = 1 << 52;

/// The extended page tables of one guest.
///
/// Dropping it gives nothing back: call [`Ept::release`].
#[derive(Debug)]
pub struct Ept {
    root: HostPhys,
    largest: PageSize,
    accessed_dirty: bool,
}

/// Whether processors that ran with these tables may hold translations that are wrong now.
#[must_use = "stale translations let a guest reach memory that is no longer its own"]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Invalidation {
    /// Nothing that was present has changed; what is absent is never cached (SDM 3C, 29.4.2 "Creating and Using Cached
    /// Translation Information").
    NotNeeded,
    /// Execute INVEPT for this EPTP on every processor that used it, before the next entry there.
    Needed,
}

/// Why a range could not be mapped or unmapped.
///
/// After `Misaligned`, `BeyondWidth` and `WriteWithoutRead` nothing has changed. After `OutOfFrames` a part of the range
/// may have: treat it as [`Invalidation::Needed`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum MapError {
    /// An address or the length is not a multiple of 4 KiB.
    Misaligned,
    /// The range ends above guest-physical 2^48 or host-physical 2^52.
    BeyondWidth,
    /// Write permission without read permission: the processor would take every entry for misconfigured.
    WriteWithoutRead,
    /// No memory is left for another table.
    OutOfFrames,
}

/// A guest-physical address as the tables translate it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Where it leads, offset in the page included.
    pub host: HostPhys,
    /// Size of the page.
    pub size: PageSize,
    /// What the guest may do there.
    pub permissions: Permissions,
    /// Memory type.
    pub memory_type: MemoryType,
}

/// What a range is to become: absent, or mapped. `guest_to_host` is what to add (wrapping) to a guest-physical address.
#[derive(Clone, Copy)]
enum Wanted {
    Absent,
    Mapped { guest_to_host: u64, permissions: Permissions, memory_type: MemoryType },
}

impl Wanted {
    /// The leaf of `size` for the page at `guest`; `None` if no page of that size can be there.
    fn leaf(self, guest: u64, size: PageSize) -> Option<Entry> {
        match self {
            Self::Absent => Some(Entry::ABSENT),
            Self::Mapped { guest_to_host, permissions, memory_type } => {
                let host = HostPhys(guest.wrapping_add(guest_to_host));
                host.is_aligned(size.bytes()).then(|| Entry::leaf(host.get(), size, permissions, memory_type))
            }
        }
    }
}

impl Ept {
    /// Tables that map nothing. `largest` is the largest page that IA32_VMX_EPT_VPID_CAP allows, `accessed_dirty`
    /// whether to have the processor keep accessed and dirty flags. `None` if there is no frame for the root.
    pub fn new(frames: &mut impl Frames, largest: PageSize, accessed_dirty: bool) -> Option<Self> {
        Some(Self { root: frames.allocate()?, largest, accessed_dirty })
    }

    /// The value for the VMCS field "EPT pointer": write-back tables, a walk of four levels (SDM 3C, 25.6.11
    /// "Extended-Page-Table Pointer (EPTP)").
    pub fn eptp(&self) -> u64 {
        eptp(self.root, self.accessed_dirty)
    }

    /// Maps the `len` bytes at `guest` to those at `host` with the largest pages that fit, in place of what was mapped
    /// there. Addresses and length are multiples of 4 KiB; a length of 0 does nothing. No permission at all unmaps.
    pub fn map(
        &mut self,
        frames: &mut impl Frames,
        guest: GuestPhys,
        host: HostPhys,
        len: u64,
        permissions: Permissions,
        memory_type: MemoryType,
    ) -> Result<Invalidation, MapError> {
        if !host.is_aligned(PAGE_SIZE) {
            return Err(MapError::Misaligned);
        }
        if host.get().checked_add(len).is_none_or(|end| end > PHYSICAL_LIMIT) {
            return Err(MapError::BeyondWidth);
        }
        if permissions.contains(Permissions::WRITE) && !permissions.contains(Permissions::READ) {
            return Err(MapError::WriteWithoutRead);
        }
        let guest_to_host = host.get().wrapping_sub(guest.get());
        let wanted = Wanted::Mapped { guest_to_host, permissions, memory_type };
        self.set(frames, guest, len, if permissions.is_empty() { Wanted::Absent } else { wanted })
    }

    /// Unmaps the `len` bytes at `guest`, whether or not something is mapped there. Fails for want of a frame only where
    /// a page must be split.
    pub fn unmap(&mut self, frames: &mut impl Frames, guest: GuestPhys, len: u64) -> Result<Invalidation, MapError> {
        self.set(frames, guest, len, Wanted::Absent)
    }

    /// Translates one address as the processor would.
    pub fn walk(&self, frames: &impl Frames, guest: GuestPhys) -> Result<Mapping, Miss<Infallible>> {
        // Our own entries use no feature that the machine lacks; what this finds misconfigured has been overwritten.
        let rules = Rules { execute_only: true, mode_based_execute: false, largest: self.largest, physical_width: 52 };
        let leaf =
            walk::walk(self.root.get(), &rules, guest.get(), |table, index| Ok(frames.read(HostPhys(table), index)))?;
        Ok(Mapping {
            host: HostPhys(leaf.target),
            size: leaf.size,
            permissions: leaf.permissions,
            memory_type: leaf.memory_type,
        })
    }

    /// Gives all tables back. No processor may run with them any more.
    pub fn release(self, frames: &mut impl Frames) {
        free_table(frames, self.root, LEVELS);
    }

    fn set(
        &mut self,
        frames: &mut impl Frames,
        guest: GuestPhys,
        len: u64,
        wanted: Wanted,
    ) -> Result<Invalidation, MapError> {
        if !guest.is_aligned(PAGE_SIZE) || !len.is_multiple_of(PAGE_SIZE) {
            return Err(MapError::Misaligned);
        }
        let end = guest.get().checked_add(len).filter(|&end| end <= 1 << ADDRESS_BITS).ok_or(MapError::BeyondWidth)?;
        let changed = self.set_in_table(frames, self.root, LEVELS, guest.get()..end, wanted)?;
        Ok(if changed { Invalidation::Needed } else { Invalidation::NotNeeded })
    }

    /// Makes `range`, which the table at `table` of `level` covers, what is `wanted`. Returns whether something present
    /// has changed. Recurses once a level.
    fn set_in_table(
        &self,
        frames: &mut impl Frames,
        table: HostPhys,
        level: u8,
        range: core::ops::Range<u64>,
        wanted: Wanted,
    ) -> Result<bool, MapError> {
        let slot_bytes = PAGE_SIZE << (9 * (u32::from(level) - 1));
        let mut changed = false;
        let mut start = range.start;
        while start < range.end {
            let slot_start = start & !(slot_bytes - 1);
            let end = range.end.min(slot_start + slot_bytes);
            let slot = Slot { table, index: index(start, level), level };
            let old = Entry(frames.read(table, slot.index));
            let whole = end - start == slot_bytes;
            if let Some(new) = self.whole_slot(whole, start, level, wanted) {
                changed |= slot.replace(frames, old, new);
            } else if self.needs_descent(old, level, slot_start, wanted) {
                let (next, split) = slot.table_below(frames, old)?;
                changed |= split;
                changed |= self.set_in_table(frames, next, level - 1, start..end, wanted)?;
            }
            start = end;
        }
        Ok(changed)
    }

    /// The entry that makes a whole slot of `level` at `guest` what is wanted; `None` if smaller entries must do it.
    fn whole_slot(&self, whole: bool, guest: u64, level: u8, wanted: Wanted) -> Option<Entry> {
        match (wanted, PageSize::of_level(level)) {
            (Wanted::Absent, _) if whole => Some(Entry::ABSENT),
            (Wanted::Mapped { .. }, Some(size)) if whole && size <= self.largest => wanted.leaf(guest, size),
            _ => None,
        }
    }

    /// Whether the entries below `old` must change so that a part of its slot, which begins at `slot_start`, is what is
    /// wanted. Not if nothing is there and nothing shall be, nor if a large page already says so: it then stays whole.
    fn needs_descent(&self, old: Entry, level: u8, slot_start: u64, wanted: Wanted) -> bool {
        match (wanted, PageSize::of_level(level)) {
            (Wanted::Absent, _) => old != Entry::ABSENT,
            (Wanted::Mapped { .. }, Some(size)) if old.is_leaf(level) => {
                wanted.leaf(slot_start, size).is_none_or(|same| !same.same_but_flags(old))
            }
            _ => true,
        }
    }
}

/// One entry's place.
struct Slot {
    table: HostPhys,
    index: usize,
    level: u8,
}

impl Slot {
    /// Puts `new` in the place of `old`, and frees the tables that `old` referred to. Returns whether something present
    /// has changed.
    fn replace(&self, frames: &mut impl Frames, old: Entry, new: Entry) -> bool {
        if old.same_but_flags(new) {
            return false;
        }
        frames.write(self.table, self.index, new.0);
        if old == Entry::ABSENT {
            return false;
        }
        if !old.is_leaf(self.level) {
            free_table(frames, HostPhys(old.address()), self.level - 1);
        }
        true
    }

    /// The table that the slot refers to: the one there, or a new one, empty or with a large page's parts in it. It is
    /// filled before it is linked, so that a processor walking meanwhile finds either the page or all its parts. Returns
    /// with it whether something present has changed.
    fn table_below(&self, frames: &mut impl Frames, old: Entry) -> Result<(HostPhys, bool), MapError> {
        let split = match PageSize::of_level(self.level - 1) {
            _ if old == Entry::ABSENT => None,
            Some(smaller) if old.is_leaf(self.level) => Some(smaller),
            _ => return Ok((HostPhys(old.address()), false)),
        };
        let table = frames.allocate().ok_or(MapError::OutOfFrames)?;
        if let Some(smaller) = split {
            for index in 0..ENTRIES {
                frames.write(table, index, old.part(smaller, index as u64 * smaller.bytes()).0);
            }
        }
        frames.write(self.table, self.index, Entry::table(table.get()).0);
        Ok((table, split.is_some()))
    }
}

/// The EPTP of tables of ours.
pub(crate) fn eptp(root: HostPhys, accessed_dirty: bool) -> u64 {
    root.get() | MemoryType::WriteBack as u64 | u64::from(LEVELS - 1) << 3 | u64::from(accessed_dirty) << 6
}

/// Frees a table of `level` and all below it. Recurses once a level.
pub(crate) fn free_table(frames: &mut impl Frames, table: HostPhys, level: u8) {
    if level > 1 {
        for index in 0..ENTRIES {
            let entry = Entry(frames.read(table, index));
            if entry != Entry::ABSENT && !entry.is_leaf(level) {
                free_table(frames, HostPhys(entry.address()), level - 1);
            }
        }
    }
    frames.free(table);
}
