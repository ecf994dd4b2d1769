//! The time-stamp counter of an L2, without values: SDM 3C 25.6.5 "Time-Stamp Counter Offset and Multiplier".

use arch::msr::Msr;
use guests::{cpu, msr, println};
use vmcs::Access;
use vmcs::controls::{PrimaryBased, SecondaryBased};
use vmcs::fields::{TSC_MULTIPLIER, TSC_OFFSET};

use guests::vmx::Current;

use crate::{free, see, seen};

/// Whether L2's time is L1's `before` to now, after `change`.
fn between(what: &str, time: u64, before: u64, change: impl Fn(u64) -> u64) {
    let is_between = time.wrapping_sub(change(before)) <= change(cpu::tsc()).wrapping_sub(change(before));
    println!(" {what}: {}", if is_between { "ok" } else { "not ok" });
}

pub(crate) fn all() {
    const OFFSET: u64 = 0xffff_ff00_0000_1234;
    println!("time-stamp counter");
    let code = || {
        see(0, cpu::tsc());
        see(1, msr::read(Msr::TSC));
        let (low, high): (u64, u64);
        // SAFETY: reads a counter.
        unsafe { core::arch::asm!("rdtscp", out("rax") low, out("rdx") high, out("rcx") _) };
        see(2, high << 32 | low);
    };
    let mut l2 = free(code);
    l2.control(|controls| controls.secondary |= SecondaryBased::ENABLE_RDTSCP);
    Current.write(TSC_OFFSET, OFFSET);
    let kinds = ["RDTSC", "RDMSR", "RDTSCP"];
    let before = cpu::tsc();
    println!(" without offset: {}", l2.run());
    for (index, kind) in kinds.into_iter().enumerate() {
        between(kind, seen(index), before, |time| time);
    }
    l2.control(|controls| controls.primary |= PrimaryBased::USE_TSC_OFFSETTING);
    l2.restart(code);
    let before = cpu::tsc();
    println!(" with offset: {}", l2.run());
    for (index, kind) in kinds.into_iter().enumerate() {
        between(kind, seen(index), before, |time| time.wrapping_add(OFFSET));
    }
    if !l2.control(|controls| controls.secondary |= SecondaryBased::USE_TSC_SCALING) {
        println!(" scaling: not offered");
        return;
    }
    // Half as fast: 48 binary places.
    Current.write(TSC_MULTIPLIER, 1 << 47);
    l2.restart(code);
    let before = cpu::tsc();
    println!(" with scaling by a half, and offset: {}", l2.run());
    for (index, kind) in kinds.into_iter().enumerate() {
        between(kind, seen(index), before, |time| (time / 2).wrapping_add(OFFSET));
    }
    l2.control(|controls| controls.primary -= PrimaryBased::USE_TSC_OFFSETTING);
    l2.restart(code);
    let before = cpu::tsc();
    println!(" scaling without offsetting: {}", l2.run());
    for (index, kind) in kinds.into_iter().enumerate() {
        between(kind, seen(index), before, |time| time);
    }
}
