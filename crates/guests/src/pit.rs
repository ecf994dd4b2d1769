//! The 8254 interval timer, which counts 1,193,182 times a second.

use crate::port::{in8, out8};

/// Counts a second.
pub const FREQUENCY: u32 = 1_193_182;
const COMMAND: u16 = 0x43;

/// Starts `channel` in `mode` from `count` (0 means 65,536).
pub fn start(channel: u8, mode: u8, count: u16) {
    out8(COMMAND, channel << 6 | 0x30 | mode << 1);
    let [low, high] = count.to_le_bytes();
    out8(0x40 + u16::from(channel), low);
    out8(0x40 + u16::from(channel), high);
}

/// The count of `channel`, latched.
pub fn count(channel: u8) -> u16 {
    out8(COMMAND, channel << 6);
    let low = in8(0x40 + u16::from(channel));
    u16::from_le_bytes([low, in8(0x40 + u16::from(channel))])
}
