//! Port I/O in its three widths.

use x86::io;

/// Reads a byte.
pub fn in8(port: u16) -> u8 {
    // SAFETY: the machine is ours.
    unsafe { io::inb(port) }
}

/// Reads 16 bits.
pub fn in16(port: u16) -> u16 {
    // SAFETY: the machine is ours.
    unsafe { io::inw(port) }
}

/// Reads 32 bits.
pub fn in32(port: u16) -> u32 {
    // SAFETY: the machine is ours.
    unsafe { io::inl(port) }
}

/// Writes a byte.
pub fn out8(port: u16, value: u8) {
    // SAFETY: the machine is ours.
    unsafe { io::outb(port, value) }
}

/// Writes 16 bits.
pub fn out16(port: u16, value: u16) {
    // SAFETY: the machine is ours.
    unsafe { io::outw(port, value) }
}

/// Writes 32 bits.
pub fn out32(port: u16, value: u32) {
    // SAFETY: the machine is ours.
    unsafe { io::outl(port, value) }
}
