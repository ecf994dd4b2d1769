//! Memory for tests: a vector from address 0 on.

use arch::HostPhys;

use crate::phys_memory::{PhysMemory, Unreadable};

/// RAM from address 0 on, zeroed.
pub(crate) struct TestMemory(Vec<u8>);

impl TestMemory {
    /// `len` bytes.
    pub(crate) fn new(len: usize) -> Self {
        Self(vec![0; len])
    }

    /// Writes `bytes` at `at`.
    pub(crate) fn put(&mut self, at: u64, bytes: &[u8]) {
        let at = usize::try_from(at).unwrap();
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }
}

impl PhysMemory for TestMemory {
    fn read(&self, at: HostPhys, into: &mut [u8]) -> Result<(), Unreadable> {
        let start = usize::try_from(at.0).map_err(|_| Unreadable)?;
        let end = start.checked_add(into.len()).ok_or(Unreadable)?;
        into.copy_from_slice(self.0.get(start..end).ok_or(Unreadable)?);
        Ok(())
    }
}
