//! Ways to end the machine.

use core::arch::asm;

use boot::acpi::{PowerManagement, Register, ResetRegister};
use x86::dtables::DescriptorTablePointer;

use crate::{delay, port};

/// PM1 control register (ACPI 6.5, 4.8.3.2.1 "PM1 Control Registers").
const SCI_ENABLED: u16 = 1 << 0;
const SLEEP_TYPE: u16 = 7 << 10;
const SLEEP_ENABLE: u16 = 1 << 13;

/// Switches the machine off by ACPI. Returns if the machine did not, or if its tables do not say how.
///
/// # Safety
/// Nothing is left to do on this machine, and `pm` is what its tables say.
pub unsafe fn acpi_off(pm: &PowerManagement) {
    let (Some(pm1a), Some(types)) = (pm.pm1a_cnt, pm.s5) else { return };
    // SAFETY: the caller's promise; reading the register changes nothing.
    let read = |port: u16| unsafe { port::in16(port) };
    if let Some((port, value)) = pm.acpi_enable
        && read(pm1a) & SCI_ENABLED == 0
    {
        // SAFETY: the caller's promise: the tables say that this switches the machine to ACPI mode.
        unsafe { port::out8(port, value) };
        delay::until(1_000_000, || read(pm1a) & SCI_ENABLED != 0);
    }
    for (port, kind) in [(Some(pm1a), types.a), (pm.pm1b_cnt, types.b)] {
        if let Some(port) = port {
            let value = read(port) & !SLEEP_TYPE | u16::from(kind & 7) << 10 | SLEEP_ENABLE;
            // SAFETY: the caller's promise.
            unsafe { port::out16(port, value) };
        }
    }
    delay::micros(1_000_000);
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

/// Resets the machine: by the register that ACPI names, else the chipset's usual one, else by the keyboard controller, else
/// by a triple fault.
///
/// # Safety
/// Nothing is left to do on this machine, and `register` is what its tables say.
pub unsafe fn reset(register: Option<ResetRegister>) -> ! {
    match register.map(|reset| (reset.register, reset.value)) {
        // SAFETY: the caller's promise.
        Some((Register::Port(port), value)) => unsafe { port::out8(port, value) },
        Some((Register::Pci { device, function, offset }, value)) => {
            let address = 1 << 31 | u32::from(device) << 11 | u32::from(function) << 8 | u32::from(offset & 0xfc);
            // SAFETY: selects a register in the configuration space of bus 0.
            unsafe { port::out32(0xcf8, address) };
            // SAFETY: the caller's promise.
            unsafe { port::out8(0xcfc + (offset & 3), value) };
        }
        // Where the register is in memory the machine is recent enough for one of the ways below.
        Some((Register::Memory(_), _)) | None => {}
    }
    delay::micros(100_000);
    // Reset control register: hard reset, then the edge that starts it; then the keyboard controller's pulse.
    for (port, value) in [(0xcf9, 0x02), (0xcf9, 0x06), (0x64, 0xfe)] {
        // SAFETY: the caller's promise.
        unsafe { port::out8(port, value) };
        delay::micros(100_000);
    }
    let nothing = DescriptorTablePointer::<u64> { base: core::ptr::null(), limit: 0 };
    // SAFETY: the caller wants the machine to end: without an IDT the next exception ends it.
    unsafe { x86::dtables::lidt(&nothing) };
    // SAFETY: as above.
    unsafe { asm!("ud2", options(noreturn)) }
}
