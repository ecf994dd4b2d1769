//! The console: COM1, written by waiting for its transmitter.

use core::fmt::{self, Write};

use crate::port::{in8, out8};

/// The first port of COM1.
pub const COM1: u16 = 0x3f8;
/// Line status: the transmitter takes another byte.
const THRE: u8 = 1 << 5;
/// Line status: the transmitter has sent everything.
const TEMT: u8 = 1 << 6;

struct Console;

impl Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            while in8(COM1 + 5) & THRE == 0 {}
            out8(COM1, byte);
        }
        Ok(())
    }
}

/// Sets 115,200 baud, 8 data bits, no parity, FIFOs on, no interrupts.
pub fn init() {
    out8(COM1 + 1, 0);
    out8(COM1 + 3, 0x80);
    out8(COM1, 1);
    out8(COM1 + 1, 0);
    out8(COM1 + 3, 3);
    out8(COM1 + 2, 7);
    out8(COM1 + 4, 0xb);
}

/// Waits until all that was printed has left.
pub fn flush() {
    while in8(COM1 + 5) & TEMT == 0 {}
}

/// Prints formatted text; [`print!`](crate::print) calls it.
pub fn write(text: fmt::Arguments<'_>) {
    // Writing to the console cannot fail; only a faulty Display could say otherwise, and ours do not.
    let _ = Console.write_fmt(text);
}

/// Prints to the console.
#[macro_export]
macro_rules! print {
    ($($text:tt)*) => { $crate::console::write(format_args!($($text)*)) };
}

/// Prints a line to the console.
#[macro_export]
macro_rules! println {
    () => { $crate::print!("\n") };
    ($($text:tt)*) => { $crate::console::write(format_args!("{}\n", format_args!($($text)*))) };
}
