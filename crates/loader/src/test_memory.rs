//! A guest's memory for tests: a vector, with the size of the largest and the number of all writes.

use core::cell::RefCell;

use arch::{GuestMemory, GuestPhys, OutsideMemory};

/// RAM from address 0 on.
pub(crate) struct TestMemory {
    bytes: RefCell<Vec<u8>>,
}

impl TestMemory {
    /// `len` bytes, filled with a pattern so that what was not cleared shows.
    pub(crate) fn new(len: u64) -> Self {
        Self { bytes: RefCell::new(vec![0xa5; usize::try_from(len).unwrap()]) }
    }

    /// `len` bytes at `at`.
    pub(crate) fn get(&self, at: u64, len: usize) -> Vec<u8> {
        let mut into = vec![0; len];
        self.read(GuestPhys(at), &mut into).unwrap();
        into
    }

    /// The 32-bit word at `at`.
    pub(crate) fn u32(&self, at: u64) -> u32 {
        self.read_u32(GuestPhys(at)).unwrap()
    }

    /// The string at `at` up to its NUL.
    pub(crate) fn text(&self, at: u32) -> String {
        let bytes = self.bytes.borrow();
        let from = &bytes[at as usize..];
        String::from_utf8(from[..from.iter().position(|byte| *byte == 0).unwrap()].to_vec()).unwrap()
    }
}

impl GuestMemory for TestMemory {
    fn read(&self, at: GuestPhys, into: &mut [u8]) -> Result<(), OutsideMemory> {
        let start = usize::try_from(at.0).map_err(|_| OutsideMemory)?;
        let end = start.checked_add(into.len()).ok_or(OutsideMemory)?;
        into.copy_from_slice(self.bytes.borrow().get(start..end).ok_or(OutsideMemory)?);
        Ok(())
    }

    fn write(&self, at: GuestPhys, from: &[u8]) -> Result<(), OutsideMemory> {
        let start = usize::try_from(at.0).map_err(|_| OutsideMemory)?;
        let end = start.checked_add(from.len()).ok_or(OutsideMemory)?;
        self.bytes.borrow_mut().get_mut(start..end).ok_or(OutsideMemory)?.copy_from_slice(from);
        Ok(())
    }

    fn compare_exchange(&self, at: GuestPhys, current: u64, new: u64) -> Result<bool, OutsideMemory> {
        let same = self.read_u64(at)? == current;
        if same {
            self.write(at, &new.to_le_bytes())?;
        }
        Ok(same)
    }
}
