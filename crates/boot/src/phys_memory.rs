//! The seam: how this crate reads the machine's memory.

use arch::HostPhys;
use zerocopy::{FromBytes, IntoBytes};

/// The address is in nothing that can be read. Nothing was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Unreadable;

/// The machine's memory, RAM and firmware, by physical address.
pub trait PhysMemory {
    /// Fills `into` from `at` on; any alignment.
    ///
    /// # Errors
    /// [`Unreadable`] when any byte cannot be read: the address comes from tables and may be anything.
    fn read(&self, at: HostPhys, into: &mut [u8]) -> Result<(), Unreadable>;
}

/// The value of type `T` at `at`.
pub(crate) fn read<T: FromBytes + IntoBytes>(memory: &impl PhysMemory, at: HostPhys) -> Result<T, Unreadable> {
    let mut value = T::new_zeroed();
    memory.read(at, value.as_mut_bytes())?;
    Ok(value)
}
