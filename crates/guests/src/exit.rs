//! The end of a run.

use crate::{acpi, console, cpu, port};

/// The 32-bit port that takes the exit status: Nestling's, and QEMU's isa-debug-exit when it is told so.
const EXIT_PORT: u16 = 0xf4;
/// Bochs stops when it gets the word "Shutdown" at this port, a letter at a time.
const BOCHS_SHUTDOWN_PORT: u16 = 0x8900;

/// Ends the run with `status`. A machine without an exit port cannot tell it; it only ends.
pub fn exit(status: u32) -> ! {
    console::flush();
    port::out32(EXIT_PORT, status);
    for letter in *b"Shutdown" {
        port::out8(BOCHS_SHUTDOWN_PORT, letter);
    }
    cpu::stop()
}

/// Ends the run as an operating system does: soft-off through the power-management registers that ACPI's FADT names.
/// A machine without them ends by [`exit`].
pub fn power_off() -> ! {
    /// PM1 control: enter the sleep state in bits 12:10, here 0, which is soft-off on the machines we run on.
    const SLP_EN: u16 = 1 << 13;
    console::flush();
    if let Some(fadt) = acpi::Fadt::find() {
        port::out16(fadt.pm1a_control, SLP_EN);
    }
    exit(0)
}
