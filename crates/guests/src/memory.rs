//! Memory by its address, which is linear and physical at once: the first 4 GiB are mapped to themselves.

use core::ptr::{with_exposed_provenance, with_exposed_provenance_mut};

/// Reads a `T` at `address`, which need not be aligned.
pub fn read<T: Copy>(address: u64) -> T {
    let pointer = with_exposed_provenance::<T>(address as usize);
    // SAFETY: the machine is ours; an address without memory reads as ones or faults, which the caller expects.
    unsafe { pointer.read_unaligned() }
}

/// Writes `value` at `address`, which need not be aligned.
pub fn write<T: Copy>(address: u64, value: T) {
    let pointer = with_exposed_provenance_mut::<T>(address as usize);
    // SAFETY: the machine is ours; the caller chose an address that is none of its variables.
    unsafe { pointer.write_unaligned(value) }
}

/// Reads a 32-bit device register at `address`: one access of just that width.
pub fn read_register(address: u64) -> u32 {
    let pointer = with_exposed_provenance::<u32>(address as usize);
    // SAFETY: the machine is ours.
    unsafe { pointer.read_volatile() }
}

/// Writes a 32-bit device register at `address`: one access of just that width.
pub fn write_register(address: u64, value: u32) {
    let pointer = with_exposed_provenance_mut::<u32>(address as usize);
    // SAFETY: the machine is ours.
    unsafe { pointer.write_volatile(value) }
}

/// The `length` bytes at `address`, which nobody changes from here on.
pub fn bytes(address: u64, length: usize) -> &'static [u8] {
    let pointer = with_exposed_provenance::<u8>(address as usize);
    // SAFETY: the loader or the firmware put them there and has ended.
    unsafe { core::slice::from_raw_parts(pointer, length) }
}
