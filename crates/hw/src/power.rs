//! Ways to end the machine.

use core::arch::asm;

use x86::dtables::DescriptorTablePointer;

use crate::{delay, port};

/// What ACPI says about soft-off: the fixed registers of the FADT and the `_S5` package of the DSDT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SoftOff {
    /// Port of PM1a control.
    pub pm1a_control: u16,
    /// Port of PM1b control, where there is one.
    pub pm1b_control: Option<u16>,
    /// SLP_TYPa, 3 bits.
    pub type_a: u8,
    /// SLP_TYPb, 3 bits.
    pub type_b: u8,
}

/// Switches the machine off by ACPI. Returns if the machine did not.
///
/// # Safety
/// Nothing is left to do on this machine, and `soft_off` is what its tables say.
pub unsafe fn acpi_off(soft_off: &SoftOff) {
    const SLEEP_ENABLE: u16 = 1 << 13;
    let value = |kind: u8| u16::from(kind & 7) << 10 | SLEEP_ENABLE;
    // SAFETY: the caller's promise.
    unsafe { port::out16(soft_off.pm1a_control, value(soft_off.type_a)) };
    if let Some(pm1b) = soft_off.pm1b_control {
        // SAFETY: the caller's promise.
        unsafe { port::out16(pm1b, value(soft_off.type_b)) };
    }
    delay::micros(100_000);
}

/// Ends the emulator Bochs, which watches this port for the word. Returns on any other machine.
///
/// # Safety
/// Nothing is left to do on this machine, and it is Bochs or has nothing at port 0x8900.
pub unsafe fn bochs_off() {
    for byte in *b"Shutdown" {
        // SAFETY: the caller's promise.
        unsafe { port::out8(0x8900, byte) };
    }
}

/// Resets the machine: by the chipset's reset register, else by the keyboard controller, else by a triple fault.
///
/// # Safety
/// Nothing is left to do on this machine.
pub unsafe fn reset() -> ! {
    // Reset control register: hard reset, then the edge that starts it; then the keyboard controller's pulse.
    for (port, value) in [(0xcf9, 0x02), (0xcf9, 0x06), (0x64, 0xfe)] {
        // SAFETY: the caller's promise.
        unsafe { port::out8(port, value) };
        delay::micros(10_000);
    }
    let nothing = DescriptorTablePointer::<u64> { base: core::ptr::null(), limit: 0 };
    // SAFETY: the caller wants the machine to end: without an IDT the next exception ends it.
    unsafe { x86::dtables::lidt(&nothing) };
    // SAFETY: as above.
    unsafe { asm!("ud2", options(noreturn)) }
}
