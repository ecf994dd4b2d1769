//! The machine's registers, ports and instructions: what every machine of ours has, and how it refuses the rest.
//!
//! Machines differ in the features that CPUID shows. Where that is so, a line says whether what is shown and what works
//! agree, not what it is.
#![no_std]
#![no_main]
#![expect(clippy::cast_possible_truncation, reason = "halves of registers, and vectors")]

mod control;
mod exceptions;
mod features;
mod mmio;
mod modes;
mod msrs;
mod paging;
mod platform;
mod steps;
mod user;

use guests::{Fault, apic, entry, pic, println};

entry!(main);

/// Runs instructions that may fault; says how that ended.
macro_rules! attempt {
    ($($asm:tt)*) => {
        guests::expect_fault(|| {
            // SAFETY: the instructions fault or change only what the test names.
            unsafe { core::arch::asm!($($asm)*) }
        })
    };
}

pub(crate) use attempt;

fn main() {
    pic::remap();
    apic::init();
    features::all();
    control::all();
    msrs::all();
    exceptions::all();
    paging::all();
    steps::all();
    user::all();
    platform::all();
    mmio::all();
    modes::all();
    println!("done");
}

/// Prints what came of something that may fault.
fn outcome(what: &str, fault: Option<Fault>) {
    match fault {
        Some(fault) => println!(" {what}: {fault}"),
        None => println!(" {what}: done"),
    }
}

/// Prints whether `is` is `wanted`.
fn equal(what: &str, is: u64, wanted: u64) {
    if is == wanted {
        println!(" {what}: ok");
    } else {
        println!(" {what}: {is:#x} instead of {wanted:#x}");
    }
}
