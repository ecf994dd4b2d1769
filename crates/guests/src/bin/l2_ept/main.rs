//! Extended page tables that an L1 makes for its L2. SDM 3C 29.3 "The Extended Page Table Mechanism (EPT)".
#![no_std]
#![no_main]

mod flags;
mod functions;
mod permissions;
mod structures;
mod walks;

use guests::vmx::ept::Ept;
use guests::vmx::instructions::{self, must};
use guests::vmx::{Current, L2, equal, setup};
use guests::{entry, memory, pic, println};
use vmcs::controls::SecondaryBased;
use vmcs::fields::{EPT_POINTER, GUEST_LINEAR_ADDRESS, GUEST_PHYSICAL_ADDRESS};
use vmcs::{Access, ExitReason};

entry!(main);

/// A page that nothing else is in.
const PAGE: u64 = 64 << 20;

fn main() {
    setup::require();
    pic::remap();
    setup::on();
    // RET, for who jumps there.
    memory::write(PAGE, 0xc3_u64);
    permissions::all();
    structures::all();
    walks::all();
    flags::all();
    functions::all();
    println!("done");
}

/// An L2 with tables that map everything to itself.
fn with_ept() -> (L2, Ept) {
    let mut l2 = L2::new(|| {});
    let tables = Ept::identity();
    l2.control(|controls| controls.secondary |= SecondaryBased::ENABLE_EPT);
    Current.write(EPT_POINTER, tables.pointer());
    (l2, tables)
}

/// Nothing that was cached of any EPT is used from here on.
fn flush() {
    must("INVEPT", instructions::invept(2, [0, 0]));
}

fn read() {
    memory::read_register(PAGE);
}

fn write() {
    // The low byte stays a RET.
    memory::write_register(PAGE, 0x55c3);
}

fn execute() {
    // SAFETY: a RET is there.
    unsafe { core::arch::asm!("call {}", in(reg) PAGE, clobber_abi("C")) };
}

/// Runs `code` once, and says of an EPT exit whether it names the page. The guest is left where it stopped.
fn once(l2: &mut L2, what: &str, code: fn()) {
    l2.restart(code);
    let report = l2.run();
    println!(" {what}: {report}");
    let current = Current;
    match report.reason() {
        Some(ExitReason::EPT_VIOLATION) => {
            equal("physical address", current.read(GUEST_PHYSICAL_ADDRESS) & !0xfff, PAGE);
            equal("linear address", current.read(GUEST_LINEAR_ADDRESS) & !0xfff, PAGE);
        }
        Some(ExitReason::EPT_MISCONFIGURATION) => {
            equal("qualification", report.qualification(), 0);
            equal("physical address", current.read(GUEST_PHYSICAL_ADDRESS) & !0xfff, PAGE);
        }
        _ => {}
    }
}
