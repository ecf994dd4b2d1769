//! The processor's instructions that Rust has no word for.

use core::arch::asm;
use core::arch::x86_64::{__cpuid_count, _rdtsc, CpuidResult};

/// CPUID of `leaf` and `subleaf`.
pub fn cpuid(leaf: u32, subleaf: u32) -> CpuidResult {
    __cpuid_count(leaf, subleaf)
}

/// The time-stamp counter.
#[inline(always)]
pub fn tsc() -> u64 {
    // SAFETY: reads a counter.
    unsafe { _rdtsc() }
}

/// Lets interrupts in.
#[inline(always)]
pub fn sti() {
    // SAFETY: every vector has a gate.
    unsafe { asm!("sti", options(nostack)) }
}

/// Keeps interrupts out.
#[inline(always)]
pub fn cli() {
    // SAFETY: nothing depends on interrupts for its memory safety.
    unsafe { asm!("cli", options(nostack)) }
}

/// Lets interrupts in and waits for one, without a gap between the two; keeps them out again afterwards.
#[inline(always)]
pub fn wait_for_interrupt() {
    // SAFETY: every vector has a gate.
    unsafe { asm!("sti", "hlt", "cli", options(nostack)) }
}

/// Lets interrupts in for as long as a pending one needs to be taken.
#[inline(always)]
pub fn take_interrupts() {
    // SAFETY: every vector has a gate.
    unsafe { asm!("sti", "nop", "nop", "cli", options(nostack)) }
}

/// Waits for ever without letting interrupts in.
pub fn stop() -> ! {
    loop {
        // SAFETY: only stops.
        unsafe { asm!("cli", "hlt", options(nostack)) }
    }
}

macro_rules! control_registers {
    ($($(#[$doc:meta])* $read:ident $write:ident $register:literal;)*) => {$(
        $(#[$doc])*
        #[inline(always)]
        pub fn $read() -> u64 {
            let value;
            // SAFETY: reads a register.
            unsafe { asm!(concat!("mov {}, ", $register), out(reg) value, options(nostack)) }
            value
        }

        $(#[$doc])*
        #[inline(always)]
        pub fn $write(value: u64) {
            // SAFETY: the machine is ours.
            unsafe { asm!(concat!("mov ", $register, ", {}"), in(reg) value, options(nostack)) }
        }
    )*};
}

control_registers! {
    /// CR0.
    cr0 write_cr0 "cr0";
    /// CR2, the address of the last page fault.
    cr2 write_cr2 "cr2";
    /// CR3.
    cr3 write_cr3 "cr3";
    /// CR4.
    cr4 write_cr4 "cr4";
    /// CR8, the task priority.
    cr8 write_cr8 "cr8";
    /// DR0, the first breakpoint's address.
    dr0 write_dr0 "dr0";
    /// DR6, what a debug exception was about.
    dr6 write_dr6 "dr6";
    /// DR7, which breakpoints are on.
    dr7 write_dr7 "dr7";
}
