//! Writes boot information piece by piece, so that no table needs a buffer of its size on L0's stack.

use arch::{GuestMemory, GuestPhys};

use crate::error::LoadError;

/// Appends to the guest's memory.
pub(crate) struct Writer<'m> {
    memory: &'m dyn GuestMemory,
    at: u64,
    /// Sum of all bytes since [`Writer::new`], modulo 256: ACPI tables need it.
    sum: u8,
}

impl<'m> Writer<'m> {
    /// A writer that starts at `at`.
    pub(crate) fn new(memory: &'m dyn GuestMemory, at: u64) -> Self {
        Self { memory, at, sum: 0 }
    }

    /// Address of the next byte.
    pub(crate) fn at(&self) -> u64 {
        self.at
    }

    /// Sum of all bytes so far, modulo 256.
    pub(crate) fn sum(&self) -> u8 {
        self.sum
    }

    /// Appends `bytes` and returns where they are.
    pub(crate) fn put(&mut self, bytes: &[u8]) -> Result<u64, LoadError> {
        let start = self.at;
        self.memory.write(GuestPhys(start), bytes)?;
        self.at += bytes.len() as u64;
        self.sum = bytes.iter().fold(self.sum, |sum, byte| sum.wrapping_add(*byte));
        Ok(start)
    }

    /// Appends `text` and a NUL and returns where they are.
    pub(crate) fn put_text(&mut self, text: &str) -> Result<u64, LoadError> {
        let start = self.put(text.as_bytes())?;
        self.put(&[0])?;
        Ok(start)
    }
}

/// Memory is cleared in pieces of this, which the image carries.
static ZEROS: [u8; 256] = [0; 256];

/// Writes `len` zeros at `start`.
pub(crate) fn clear(memory: &dyn GuestMemory, start: u64, len: u64) -> Result<(), LoadError> {
    let mut done = 0;
    while done < len {
        let piece = usize::try_from(len - done).map_or(&ZEROS[..], |left| &ZEROS[..left.min(ZEROS.len())]);
        memory.write(GuestPhys(start + done), piece)?;
        done += piece.len() as u64;
    }
    Ok(())
}

/// `address` as the 32-bit number that boot information has room for; all of it lies below 4 GiB.
pub(crate) fn low(address: u64) -> Result<u32, LoadError> {
    u32::try_from(address).map_err(|_| LoadError::OutsideMemory)
}
