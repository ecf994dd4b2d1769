//! Events of an L2: injected, intercepted, blocked, pending; and what an exit says about one that was being delivered.
//! SDM 3C 25.8.3 "VM-Entry Controls for Event Injection", 26.2 "Other Causes of VM Exits", 27.6 "Event Injection", 28.2 "Recording
//! VM-Exit Information and Updating VM-Entry Control Fields".
#![no_std]
#![no_main]

mod debug;
mod exceptions;
mod external;
mod injection;
mod nmi;
mod stepping;
mod windows;

use core::sync::atomic::{AtomicU64, Ordering};

use guests::interrupts::Frame;
use guests::vmx::{Current, L2, pages, setup};
use guests::{apic, entry, pic, println};
use vmcs::Access;
use vmcs::controls::PrimaryBased;
use vmcs::fields::MSR_BITMAP;

entry!(main);

/// A vector for interrupts.
const VECTOR: u8 = 0x50;
/// RFLAGS with interrupts on.
const INTERRUPTS_ON: u64 = 0x202;

/// The RIP that a handler's frame is compared with.
static BASE: AtomicU64 = AtomicU64::new(0);

fn main() {
    setup::require();
    pic::remap();
    apic::init();
    setup::on();
    injection::all();
    exceptions::all();
    windows::all();
    external::all();
    nmi::all();
    debug::all();
    stepping::all();
    println!("done");
}

/// A handler in L2 that says what arrived and where.
fn report(frame: &mut Frame) {
    let offset = frame.rip.wrapping_sub(BASE.load(Ordering::Relaxed)).cast_signed();
    println!("  L2 takes vector {}, error {:#x}, at {offset:+}", frame.vector, frame.error);
}

/// Lets BASE be this address.
fn from(rip: u64) {
    BASE.store(rip, Ordering::Relaxed);
}

/// An L2 whose RDMSR and WRMSR do not exit: it uses the local APIC as the library does.
fn l2_with_msrs() -> L2 {
    let mut l2 = L2::new(|| {});
    l2.control(|controls| controls.primary |= PrimaryBased::USE_MSR_BITMAPS);
    Current.write(MSR_BITMAP, pages::take());
    l2
}
