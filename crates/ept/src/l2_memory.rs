//! L2's memory as L2 sees it, through L1's tables: for reading L2's instructions, page tables and operands.

use core::cell::Cell;

use arch::{GuestMemory, GuestPhys, L2Phys, OutsideMemory, PAGE_SIZE};

use crate::entry::Permissions;
use crate::guest_walk::Ept12;
use crate::pml::ModificationLog;
use crate::violation::{Access, Denied};

/// A locked read-modify-write.
const READ_WRITE: Access = Access { needs: Permissions::READ.union(Permissions::WRITE), to_paging_structure: false };

/// L2's memory. **The addresses given to its [`GuestMemory`] are L2's** (what elsewhere is an [`L2Phys`]): the emulator
/// works for L1 and L2 alike and knows one kind of guest-physical address.
///
/// Accesses set flags and write the log like L2's own. Where L1's tables lead to no RAM of L1's, that is
/// [`OutsideMemory`]. Where they do not allow an access, that too is `OutsideMemory`, of this access and of all later
/// ones; `denied` then has the address and the exit that L1 must get. Look there before believing a result.
#[derive(Debug)]
pub struct L2Memory<'a, M> {
    memory: &'a M,
    ept12: &'a Ept12,
    log: Option<&'a ModificationLog>,
    read: Access,
    denied: &'a Cell<Option<(L2Phys, Denied)>>,
}

impl<'a, M: GuestMemory> L2Memory<'a, M> {
    /// The memory of the L2 with the tables `ept12` in L1's `memory`. Reads are those that `read` says: of data, of
    /// instructions, of paging structures; memories for different reads share `denied`, which is `None` at first.
    pub const fn new(
        memory: &'a M,
        ept12: &'a Ept12,
        log: Option<&'a ModificationLog>,
        read: Access,
        denied: &'a Cell<Option<(L2Phys, Denied)>>,
    ) -> Self {
        Self { memory, ept12, log, read, denied }
    }

    fn translate(&self, at: GuestPhys, access: Access) -> Result<GuestPhys, OutsideMemory> {
        if self.denied.get().is_some() {
            return Err(OutsideMemory);
        }
        let at = L2Phys(at.get());
        self.ept12.translate(self.memory, self.log, at, access).map(|found| found.address).map_err(|denied| {
            self.denied.set(Some((at, denied)));
            OutsideMemory
        })
    }

    /// Whether all of the `len` bytes at `at` can be written, so that a write to several pages is done to all or to none.
    fn check_pages(&self, at: GuestPhys, len: usize) -> Result<(), OutsideMemory> {
        let (mut at, mut left) = (at, len);
        while left > 0 {
            self.memory.read(self.translate(at, Access::WRITE)?, &mut [0])?;
            let part = left.min(left_in_page(at));
            at = at.add(part as u64);
            left -= part;
        }
        Ok(())
    }
}

/// Bytes from `at` to the end of its page: 1 to 4096.
const fn left_in_page(at: GuestPhys) -> usize {
    #[expect(clippy::cast_possible_truncation, reason = "at most 4096")]
    let left = (PAGE_SIZE - at.page_offset()) as usize;
    left
}

impl<M: GuestMemory> GuestMemory for L2Memory<'_, M> {
    #[inline]
    fn read(&self, at: GuestPhys, into: &mut [u8]) -> Result<(), OutsideMemory> {
        let (mut at, mut rest) = (at, into);
        while !rest.is_empty() {
            let (part, after) = rest.split_at_mut(rest.len().min(left_in_page(at)));
            self.memory.read(self.translate(at, self.read)?, part)?;
            at = at.add(part.len() as u64);
            rest = after;
        }
        Ok(())
    }

    #[inline]
    fn write(&self, at: GuestPhys, from: &[u8]) -> Result<(), OutsideMemory> {
        if from.len() > left_in_page(at) {
            self.check_pages(at, from.len())?;
        }
        let (mut at, mut rest) = (at, from);
        while !rest.is_empty() {
            let (part, after) = rest.split_at(rest.len().min(left_in_page(at)));
            self.memory.write(self.translate(at, Access::WRITE)?, part)?;
            at = at.add(part.len() as u64);
            rest = after;
        }
        Ok(())
    }

    #[inline]
    fn compare_exchange(&self, at: GuestPhys, current: u64, new: u64) -> Result<bool, OutsideMemory> {
        let at = self.translate(at, READ_WRITE)?;
        self.memory.compare_exchange(at, current, new)
    }
}
