//! Which instructions of an L2 exit, by which control, and what the exit says. SDM 3C 26.1 "Instructions That Cause VM Exits".
#![no_std]
#![no_main]

mod always;
mod by_control;
mod io;
mod registers;

use guests::vmx::setup;
use guests::{entry, println};

entry!(main);

/// A function that executes instructions, for an L2 to run.
macro_rules! code {
    ($($asm:tt)*) => {
        || {
            // SAFETY: what the instructions change is named, or the L2 is at its end.
            unsafe { core::arch::asm!($($asm)*) }
        }
    };
}

pub(crate) use code;

fn main() {
    setup::require();
    setup::on();
    always::all();
    by_control::all();
    registers::all();
    io::all();
    println!("done");
}
