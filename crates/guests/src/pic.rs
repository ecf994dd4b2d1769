//! The pair of 8259A interrupt controllers.

use crate::port::{in8, out8};

/// The vector of line 0 after [`remap`]; the second controller's lines follow the first's.
pub const FIRST_VECTOR: u8 = 0x20;
const COMMAND: [u16; 2] = [0x20, 0xa0];
const DATA: [u16; 2] = [0x21, 0xa1];

/// Initialises both, edge-triggered, lines 0 to 15 at [`FIRST_VECTOR`], all masked.
pub fn remap() {
    for (chip, cascade) in [4, 2].into_iter().enumerate() {
        out8(COMMAND[chip], 0x11);
        out8(DATA[chip], FIRST_VECTOR + 8 * u8::from(chip == 1));
        out8(DATA[chip], cascade);
        out8(DATA[chip], 1);
        out8(DATA[chip], 0xff);
    }
}

/// Lets `line` through (and, for the second controller's, the line they share).
pub fn unmask(line: u8) {
    if line < 8 {
        out8(DATA[0], in8(DATA[0]) & !(1 << line));
    } else {
        out8(DATA[1], in8(DATA[1]) & !(1 << (line - 8)));
        unmask(2);
    }
}

/// Lets just these lines through, bit 0 being line 0, and changes each controller by one write: so that what it then
/// takes first is its choice and not ours. The second controller first.
pub fn unmask_these(lines: u16) {
    let [first, second] = lines.to_le_bytes();
    out8(DATA[1], !second);
    out8(DATA[0], !(first | if second == 0 { 0 } else { 1 << 2 }));
}

/// Keeps every line out.
pub fn mask_all() {
    out8(DATA[0], 0xff);
    out8(DATA[1], 0xff);
}

/// Ends the interrupt of `line`.
pub fn eoi(line: u8) {
    if line >= 8 {
        out8(COMMAND[1], 0x20);
    }
    out8(COMMAND[0], 0x20);
}

/// What the controller of `line` holds as requested: bit 0 is its first line.
pub fn requested(line: u8) -> u8 {
    let command = COMMAND[usize::from(line >= 8)];
    out8(command, 0x0a);
    in8(command)
}

/// What the controller of `line` holds as in service.
pub fn in_service(line: u8) -> u8 {
    let command = COMMAND[usize::from(line >= 8)];
    out8(command, 0x0b);
    let lines = in8(command);
    out8(command, 0x0a);
    lines
}
