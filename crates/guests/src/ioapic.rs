//! The I/O APIC at its usual address. Intel 82093AA, 3.0 "Register Description".

use crate::memory::{read_register, write_register};

const SELECT: u64 = 0xfec0_0000;
const WINDOW: u64 = SELECT + 0x10;

/// Redirection entry, low half: masked.
pub const MASKED: u32 = 1 << 16;
/// Redirection entry, low half: level-triggered.
pub const LEVEL: u32 = 1 << 15;
/// Redirection entry, low half: the destination is logical.
pub const LOGICAL: u32 = 1 << 11;

/// Reads a register.
pub fn read(register: u32) -> u32 {
    write_register(SELECT, register);
    read_register(WINDOW)
}

/// Writes a register.
pub fn write(register: u32, value: u32) {
    write_register(SELECT, register);
    write_register(WINDOW, value);
}

/// The number of pins.
pub fn pins() -> u32 {
    (read(1) >> 16 & 0xff) + 1
}

/// Sends what comes at `pin` to APIC `destination` as `low`, the low half of the entry, says.
pub fn route(pin: u32, destination: u32, low: u32) {
    write(0x10 + 2 * pin, MASKED);
    write(0x11 + 2 * pin, destination << 24);
    write(0x10 + 2 * pin, low);
}

/// Keeps `pin` out.
pub fn mask(pin: u32) {
    write(0x10 + 2 * pin, MASKED);
}
