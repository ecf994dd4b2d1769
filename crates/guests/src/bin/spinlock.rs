//! A lock that two processors spin for, and the same work with a lock for each. With the argument `ticks` it also tells how long
//! both took.
//!
//! Nearly all of the work is done with the lock held: where both processors are vCPUs on one processor, whoever loses it in the
//! middle of the work leaves the other nothing but to spin.
#![no_std]
#![no_main]

use core::cell::UnsafeCell;
use core::hint::{black_box, spin_loop};
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};

use guests::{apic, cpu, entry, multiboot, pic, println, smp};

entry!(main);

/// How often each processor takes its lock.
const TURNS: u32 = 10_000;

/// A counter behind a lock, in a cache line of its own.
#[repr(align(64))]
struct Counter {
    locked: AtomicBool,
    value: UnsafeCell<u32>,
}

// SAFETY: the value is touched by whoever holds the lock.
unsafe impl Sync for Counter {}

static COUNTERS: [Counter; 2] = [const { Counter { locked: AtomicBool::new(false), value: UnsafeCell::new(0) } }; 2];
/// The phase that has begun, and how often a processor has ended its part of one.
static PHASE: AtomicU32 = AtomicU32::new(0);
static ENDED: AtomicU32 = AtomicU32::new(0);

/// Whose counter the second processor uses, by phase. The first uses its own.
const COUNTER_OF_SECOND: [usize; 2] = [1, 0];

fn main() {
    pic::remap();
    apic::init();
    if smp::start_another(second).is_none() {
        println!("one processor has nobody to wait for");
        return;
    }
    let mut took = [0; 2];
    for (phase, took) in (1..).zip(&mut took) {
        let start = cpu::tsc();
        PHASE.store(phase, SeqCst);
        work(0);
        wait_until(|| ENDED.load(SeqCst) == phase);
        *took = cpu::tsc() - start;
    }
    // SAFETY: the other processor has done all it does.
    let [first, second] = [0, 1].map(|index: usize| unsafe { *COUNTERS[index].value.get() });
    println!("apart, then together: {first} and {second} turns");
    if multiboot::arguments().any(|word| word == "ticks") {
        println!("apart {} ticks, together {} ticks", took[0], took[1]);
    }
}

fn second(_: u32) {
    for (phase, counter) in (1..).zip(COUNTER_OF_SECOND) {
        wait_until(|| PHASE.load(SeqCst) == phase);
        work(counter);
        ENDED.fetch_add(1, SeqCst);
    }
    cpu::stop();
}

fn work(counter: usize) {
    let counter = &COUNTERS[counter];
    for _ in 0..TURNS {
        // The lock is only read while somebody has it, and tried when it looks free.
        while counter.locked.swap(true, SeqCst) {
            wait_until(|| !counter.locked.load(SeqCst));
        }
        // SAFETY: the lock is held.
        let value = unsafe { &mut *counter.value.get() };
        let before = *value;
        spend(1000);
        *value = before + 1;
        counter.locked.store(false, SeqCst);
        spend(50);
    }
}

/// About four instructions a step.
fn spend(steps: u32) {
    (0..steps).for_each(|step| _ = black_box(step));
}

fn wait_until(done: impl Fn() -> bool) {
    while !done() {
        spin_loop();
    }
}
