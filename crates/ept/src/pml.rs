//! Page-modification logging as L1 uses it: the log of the pages that L2 made dirty.
//!
//! SDM 3C, 29.3.6 "Page-Modification Logging".

use core::cell::Cell;

use arch::{GuestMemory, GuestPhys, L2Phys};

/// Entries in a log.
const ENTRIES: u16 = 512;

/// L1's log: PML address and PML index of the VMCS that L1 wrote. The index goes down while L2 runs; the VMCS gets it
/// back from [`index`](Self::index).
#[derive(Debug)]
pub struct ModificationLog {
    address: GuestPhys,
    index: Cell<u16>,
}

impl ModificationLog {
    /// The log at `address` (a multiple of 4 KiB), whose next entry is `index`.
    pub const fn new(address: GuestPhys, index: u16) -> Self {
        Self { address, index: Cell::new(index) }
    }

    /// The PML index: the next entry, counting down. Below 512 unless the log is full.
    pub fn index(&self) -> u16 {
        self.index.get()
    }

    /// Whether no entry is left: then no flag may be set.
    pub(crate) fn is_full(&self) -> bool {
        self.index.get() >= ENTRIES
    }

    /// Logs that a dirty flag was set for an access to `at`. Not when full. A log outside of L1's RAM is one where no
    /// memory answers.
    pub(crate) fn append(&self, memory: &impl GuestMemory, at: L2Phys) {
        let index = self.index.get();
        let _ = memory.write(self.address.add(8 * u64::from(index)), &at.page().get().to_le_bytes());
        self.index.set(index.wrapping_sub(1));
    }
}
