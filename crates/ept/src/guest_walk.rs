//! Translation by the tables that L1 made for L2, in L1's memory: EPT12.
//!
//! L1 may change them at any time, from another vCPU too, and they may refer to themselves or to anything: a walk reads
//! each entry once, at most four of them, and judges what it has read. Flags are set by compare-exchange, so that what
//! L1 wrote meanwhile is not lost.

use core::convert::Infallible;

use arch::{GuestMemory, GuestPhys, L2Phys};

use crate::entry::{Entry, MemoryType, PageSize, Permissions};
use crate::pml::ModificationLog;
use crate::violation::{Access, Denied, Violation};
use crate::walk::{LEVELS, Leaf, Miss, Rules, walk};

/// How often a walk begins anew because an entry changed between reading it and setting its flags. An L1 that goes on for
/// longer gets a violation, as if it had been caught with the entry absent.
const ATTEMPTS: usize = 16;

/// Bits 51:12 of an EPTP: the root table, and the only bits that INVEPT compares (SDM 3C, 31.3 "VMX Instructions",
/// "INVEPT—Invalidate Translations Derived from EPT").
const EPTP_ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// Bit 6 of an EPTP: accessed and dirty flags (SDM 3C, 25.6.11 "Extended-Page-Table Pointer (EPTP)").
const EPTP_ACCESSED_DIRTY: u64 = 1 << 6;

/// L1's tables for L2: the EPTP that L1 wrote, and what L1's processor supports, which must be no more than what the
/// machine does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ept12 {
    eptp: u64,
    rules: Rules,
}

/// Where L1's tables lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// L1's guest-physical address, offset in the page included.
    pub address: GuestPhys,
    /// Size of L1's page.
    pub size: PageSize,
    /// What L2 may do with the page without L1's tables being looked at again: writes only if its dirty flag is set or
    /// not in use.
    pub permissions: Permissions,
    /// The page's memory type.
    pub memory_type: MemoryType,
    /// The entry that maps the page.
    pub entry: Entry,
    /// What the access needed: more than [`Access::needs`] if it was to a paging structure.
    pub needed: Permissions,
}

impl Ept12 {
    /// The tables of an `eptp` that has passed the checks of VM entry: four levels, no reserved bits. Its memory type is
    /// of no interest: L1's memory is write-back.
    pub const fn new(eptp: u64, rules: Rules) -> Self {
        Self { eptp, rules }
    }

    /// Whether the processor keeps accessed and dirty flags in them.
    pub const fn has_flags(&self) -> bool {
        self.eptp & EPTP_ACCESSED_DIRTY != 0
    }

    /// Whether INVEPT for `eptp` means them.
    pub const fn is_named_by(&self, eptp: u64) -> bool {
        (self.eptp ^ eptp) & EPTP_ADDRESS == 0
    }

    /// Translates `at` for `access`, and sets the flags in L1's entries and writes L1's log as the processor does.
    ///
    /// Where a table is not in L1's RAM, its entries read as all ones.
    ///
    /// # Errors
    /// The VM exit that L1 must get. After one no flag has been set, but for a race with another vCPU of L1's.
    pub fn translate(
        &self,
        memory: &impl GuestMemory,
        log: Option<&ModificationLog>,
        at: L2Phys,
        access: Access,
    ) -> Result<Translation, Denied> {
        let needed = access.needs_with(self.has_flags());
        let write = needed.contains(Permissions::WRITE);
        for _ in 0..ATTEMPTS {
            let mut used = Used::default();
            let leaf = match self.walk(memory, at, &mut used) {
                Ok(leaf) => leaf,
                Err(Miss::NotMapped { .. }) => return Err(self.violation(needed, Permissions::empty())),
                Err(Miss::Misconfigured { .. }) => return Err(Denied::Misconfiguration),
            };
            let mut permissions =
                if self.rules.mode_based_execute { leaf.permissions } else { leaf.permissions.without_modes() };
            if !permissions.contains(needed) {
                return Err(self.violation(needed, permissions));
            }
            if self.has_flags() {
                if !used.set_flags(memory, log, at, write)? {
                    continue;
                }
                permissions.set(
                    Permissions::WRITE,
                    permissions.contains(Permissions::WRITE) && (write || leaf.entry.is_dirty()),
                );
            }
            return Ok(Translation {
                address: GuestPhys(leaf.target),
                size: leaf.size,
                permissions,
                memory_type: leaf.memory_type,
                entry: leaf.entry,
                needed,
            });
        }
        Err(self.violation(needed, Permissions::empty()))
    }

    fn walk(&self, memory: &impl GuestMemory, at: L2Phys, used: &mut Used) -> Result<Leaf, Miss<Infallible>> {
        walk(self.eptp & EPTP_ADDRESS, &self.rules, at.get(), |table, index| {
            let entry_at = GuestPhys(table).add(8 * index as u64);
            let entry = memory.read_u64(entry_at).unwrap_or(u64::MAX);
            used.note(entry_at, Entry(entry));
            Ok(entry)
        })
    }

    fn violation(&self, needed: Permissions, mut permitted: Permissions) -> Denied {
        if !self.rules.mode_based_execute {
            permitted.remove(Permissions::EXECUTE_USER);
        }
        Denied::Violation(Violation { needed, permitted })
    }
}

/// The entries that a walk used, from the root's on.
#[derive(Default)]
struct Used {
    entries: [(GuestPhys, Entry); LEVELS as usize],
    count: usize,
}

impl Used {
    fn note(&mut self, at: GuestPhys, entry: Entry) {
        self.entries[self.count] = (at, entry);
        self.count += 1;
    }

    /// Sets the accessed flag in every entry, and the dirty flag in the last one for a write, which is then logged.
    /// `Ok(false)` when an entry is no longer what was read, so that the walk is out of date.
    #[inline]
    fn set_flags(
        &self,
        memory: &impl GuestMemory,
        log: Option<&ModificationLog>,
        at: L2Phys,
        write: bool,
    ) -> Result<bool, Denied> {
        let entries = &self.entries[..self.count];
        let last = self.count - 1;
        let flagged = |n: usize, entry: Entry| entry.used(write && n == last);
        if entries.iter().enumerate().all(|(n, &(_, entry))| flagged(n, entry) == entry) {
            return Ok(true);
        }
        if log.is_some_and(ModificationLog::is_full) {
            return Err(Denied::LogFull);
        }
        for (n, &(entry_at, entry)) in entries.iter().enumerate() {
            let new = flagged(n, entry);
            // What was read is in RAM: all ones would have been a misconfiguration.
            if new != entry && !memory.compare_exchange(entry_at, entry.0, new.0).unwrap_or(true) {
                return Ok(false);
            }
        }
        if let Some(log) = log
            && write
            && !entries[last].1.is_dirty()
        {
            log.append(memory, at);
        }
        Ok(true)
    }
}
