//! A guest that wants its share of a processor. It prints counts and ticks for a test to compare, so it has no expected log.
//!
//! Arguments, in millions of ticks of the TSC where they are times: `sleep=N` halts until so much time is over, `work=N` does N
//! thousand rounds of work and tells how long that took, `count=N` counts the rounds that it gets done in so much time, from the next
//! multiple of [`TOGETHER`] on.
#![no_std]
#![no_main]

use core::hint::black_box;

use arch::apic::Register;
use arch::msr::Msr;
use guests::{apic, cpu, entry, interrupts, msr, multiboot, pic, print, println};

entry!(main);

const TIMER: u8 = 0x40;
/// Ticks of the TSC, at a multiple of which counting begins.
const TOGETHER: u64 = 100_000_000;

fn main() {
    pic::remap();
    apic::init();
    let argument = |name| multiboot::number(name).map(u64::from);
    if let Some(millions) = argument("sleep") {
        print!("sleeping, ");
        sleep(millions * 1_000_000);
        println!("and awake");
    }
    if let Some(thousands) = argument("work") {
        let start = cpu::tsc();
        (0..thousands * 1000).for_each(|_| round());
        println!("worked for {} ticks", cpu::tsc() - start);
    }
    if let Some(millions) = argument("count") {
        // Guests that count at the same time begin, and end, at the same moment.
        let start = cpu::tsc().next_multiple_of(TOGETHER);
        while cpu::tsc() < start {}
        let end = start + millions * 1_000_000;
        let mut rounds = 0_u64;
        while cpu::tsc() < end {
            round();
            rounds += 1;
        }
        println!("counted {rounds} rounds");
    }
}

/// About a thousand instructions.
fn round() {
    (0..250_u32).for_each(|step| _ = black_box(step));
}

/// Halts until the timer says that `ticks` are over.
fn sleep(ticks: u64) {
    interrupts::handle(TIMER, |_| apic::eoi());
    apic::write(Register::LVT_TIMER, apic::TSC_DEADLINE | u32::from(TIMER));
    let end = cpu::tsc() + ticks;
    msr::write(Msr::TSC_DEADLINE, end);
    while cpu::tsc() < end {
        cpu::wait_for_interrupt();
    }
}
