//! Physical memory of a few words.

use std::collections::BTreeMap;

use vmcs::checks::PhysicalMemory;

/// Physical memory of the 64-bit words that a test has set; everywhere else there is none, and all ones are read.
#[derive(Clone, Debug, Default)]
pub struct FakeMemory {
    words: BTreeMap<u64, u64>,
}

impl FakeMemory {
    /// No memory at all.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts `value` at `address`, a multiple of 8.
    pub fn set(&mut self, address: u64, value: u64) {
        assert!(address.is_multiple_of(8), "{address:#x} is not aligned");
        self.words.insert(address, value);
    }
}

impl PhysicalMemory for FakeMemory {
    fn read_u64(&self, address: u64) -> u64 {
        assert!(address.is_multiple_of(8), "read of 8 bytes at {address:#x}, which is not aligned");
        self.words.get(&address).copied().unwrap_or(u64::MAX)
    }
}
