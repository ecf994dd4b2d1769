//! The few words of the BIOS data area that operating systems still read.

use arch::{GuestMemory, GuestPhys};

use crate::e820::LOW_RAM_END;
use crate::error::LoadError;

/// Port of the first serial port, at 0x400: early consoles look here.
pub const COM1_PORT: u16 = 0x3f8;

/// Writes COM1's port (0x400), the segment of the extended BIOS data area (0x40e) and the KiB of low memory (0x413).
///
/// Linux takes a machine without the last two for one with broken firmware and gives up low memory.
pub(crate) fn write(memory: &dyn GuestMemory) -> Result<(), LoadError> {
    const EBDA_SEGMENT: u16 = 0x9fc0;
    const LOW_KIB: u16 = 639;
    const { assert!((EBDA_SEGMENT as u64) << 4 == LOW_RAM_END && (LOW_KIB as u64) << 10 == LOW_RAM_END) };
    memory.write(GuestPhys(0x400), &COM1_PORT.to_le_bytes())?;
    memory.write(GuestPhys(0x40e), &EBDA_SEGMENT.to_le_bytes())?;
    memory.write(GuestPhys(0x413), &LOW_KIB.to_le_bytes())?;
    // The EBDA's first byte is its length in KiB.
    memory.write(GuestPhys(LOW_RAM_END), &[1])?;
    Ok(())
}
