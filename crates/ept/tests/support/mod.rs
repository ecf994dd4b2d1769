//! Frames in ordinary memory that notice misuse.

use std::collections::BTreeMap;

use arch::HostPhys;
use ept::Frames;

/// Hands out at most `limit` frames at a time, and panics when a frame is used that is not out.
pub(crate) struct FakeFrames {
    tables: BTreeMap<u64, Box<[u64; 512]>>,
    next: u64,
    limit: usize,
}

impl FakeFrames {
    pub(crate) fn new(limit: usize) -> Self {
        Self { tables: BTreeMap::new(), next: 0x10_0000, limit }
    }

    /// Number of frames handed out and not given back.
    pub(crate) fn in_use(&self) -> usize {
        self.tables.len()
    }
}

impl Frames for FakeFrames {
    fn allocate(&mut self) -> Option<HostPhys> {
        if self.tables.len() == self.limit {
            return None;
        }
        self.next += 0x1000;
        self.tables.insert(self.next, Box::new([0; 512]));
        Some(HostPhys(self.next))
    }

    fn read(&self, table: HostPhys, index: usize) -> u64 {
        self.tables[&table.get()][index]
    }

    fn write(&mut self, table: HostPhys, index: usize, entry: u64) {
        self.tables.get_mut(&table.get()).expect("a frame that is out")[index] = entry;
    }

    fn free(&mut self, table: HostPhys) {
        assert!(self.tables.remove(&table.get()).is_some(), "{table:?} was freed twice");
    }
}
