//! Accesses: how wide, and to what memory.

use core::sync::atomic::AtomicU64;

use crate::addr::GuestPhys;

/// Width of one access to memory or to a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(u8)]
pub enum Width {
    /// 8 bits.
    Byte = 1,
    /// 16 bits.
    Word = 2,
    /// 32 bits.
    Dword = 4,
    /// 64 bits.
    Qword = 8,
}

impl Width {
    /// Number of bytes.
    #[inline(always)]
    pub const fn bytes(self) -> usize {
        self as usize
    }

    /// All ones in this width, zero above: what an access that nobody answers reads.
    #[inline(always)]
    pub const fn mask(self) -> u64 {
        u64::MAX >> (64 - 8 * self as u32)
    }

    /// The width of `bytes` bytes: 1, 2, 4 or 8.
    pub const fn from_bytes(bytes: usize) -> Option<Self> {
        match bytes {
            1 => Some(Self::Byte),
            2 => Some(Self::Word),
            4 => Some(Self::Dword),
            8 => Some(Self::Qword),
            _ => None,
        }
    }
}

/// An access left the guest's RAM, in whole or in part. Nothing was read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct OutsideMemory;

/// A guest's RAM, by guest-physical address. RAM only: device memory is never reached through this.
///
/// Other vCPUs may write the same bytes at the same time, as on the machine; an implementation must make each aligned
/// access of up to 8 bytes one access, and callers read what they check once.
pub trait GuestMemory {
    /// Fills `into` from `at`.
    fn read(&self, at: GuestPhys, into: &mut [u8]) -> Result<(), OutsideMemory>;

    /// Writes `from` to `at`.
    fn write(&self, at: GuestPhys, from: &[u8]) -> Result<(), OutsideMemory>;

    /// Replaces the aligned 64-bit word at `at` by `new` if it still is `current`: one atomic operation.
    /// `Ok(false)` when it was something else.
    fn compare_exchange(&self, at: GuestPhys, current: u64, new: u64) -> Result<bool, OutsideMemory>;

    /// The aligned 64-bit word at `at`.
    #[inline]
    fn read_u64(&self, at: GuestPhys) -> Result<u64, OutsideMemory> {
        let mut bytes = [0; 8];
        self.read(at, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// The page at `at` as words, for as long as the machine runs; `None` where that is not known.
    #[inline]
    fn lasting_page(&self, at: GuestPhys) -> Option<&'static [AtomicU64; 512]> {
        let _ = at;
        None
    }

    /// The aligned 32-bit word at `at`.
    #[inline]
    fn read_u32(&self, at: GuestPhys) -> Result<u32, OutsideMemory> {
        let mut bytes = [0; 4];
        self.read(at, &mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }
}
