//! Entries that fail, each with one rule of the manual broken: by VMfail 7 for controls, VMfail 8 for host state, exit 33 for guest
//! state. SDM 3C 27.2 "Checks on VMX Controls and Host-State Area", 27.3.1 "Checks on the Guest State Area".
//!
//! Every row starts from a VMCS that can be entered.
#![no_std]
#![no_main]

mod controls;
mod events;
mod guest;
mod host;
mod segments;

use guests::vmx::{Current, L2, setup};
use guests::{cpu, entry, pic, println};

entry!(main);

/// An address that is not canonical.
const NOT_CANONICAL: u64 = 1 << 62;

fn main() {
    setup::require();
    pic::remap();
    setup::on();
    let l2 = &mut L2::new(|| {});
    println!(" nothing broken: {}", l2.run());
    controls::all(l2);
    events::all(l2);
    host::all(l2);
    guest::all(l2);
    segments::all(l2);
    l2.reset(|| {});
    println!(" nothing broken: {}", l2.run());
    println!("done");
}

/// The first physical address that is too wide.
fn too_wide() -> u64 {
    1 << (cpu::cpuid(0x8000_0008, 0).eax & 0xff)
}

/// Breaks something and enters.
fn row(l2: &mut L2, what: &str, breaking: impl FnOnce(&mut L2, &mut Current)) {
    l2.reset(|| {});
    breaking(l2, &mut Current);
    println!(" {what}: {}", l2.run());
}
