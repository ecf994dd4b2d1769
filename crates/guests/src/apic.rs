//! The local APIC in either of its modes. SDM 3A "Advanced Programmable Interrupt Controller (APIC)".

use arch::apic::{DEFAULT_BASE, Register};
use arch::msr::Msr;

use crate::{cpu, memory, msr, multiboot};

/// APIC_BASE: x2APIC mode.
pub const EXTD: u64 = 1 << 10;
/// APIC_BASE: enabled.
pub const ENABLE: u64 = 1 << 11;
/// Spurious-interrupt vector register: enabled by software.
pub const SOFTWARE_ENABLE: u32 = 1 << 8;
/// A local vector table entry that is masked.
pub const MASKED: u32 = 1 << 16;
/// LVT timer: periodic.
pub const PERIODIC: u32 = 1 << 17;
/// LVT timer: by the TSC deadline.
pub const TSC_DEADLINE: u32 = 2 << 17;

/// Whether this processor's APIC is in x2APIC mode.
pub fn is_x2apic() -> bool {
    msr::read(Msr::APIC_BASE) & EXTD != 0
}

/// Whether the processor has x2APIC mode, and the argument `without-x2apic` is not given.
pub fn has_x2apic() -> bool {
    cpu::cpuid(1, 0).ecx & 1 << 21 != 0 && !multiboot::is_without("x2apic")
}

/// Switches this processor to x2APIC mode.
pub fn enable_x2apic() {
    msr::write(Msr::APIC_BASE, msr::read(Msr::APIC_BASE) | ENABLE | EXTD);
}

/// Reads a register.
pub fn read(register: Register) -> u32 {
    if is_x2apic() {
        return msr::read(x2apic_msr(register)) as u32;
    }
    memory::read_register(DEFAULT_BASE + u64::from(register.0))
}

/// Writes a register.
pub fn write(register: Register, value: u32) {
    if is_x2apic() {
        return msr::write(x2apic_msr(register), value.into());
    }
    memory::write_register(DEFAULT_BASE + u64::from(register.0), value);
}

/// The MSR that a register is in x2APIC mode.
pub fn x2apic_msr(register: Register) -> Msr {
    Msr(Msr::X2APIC_FIRST.0 + u32::from(register.0 >> 4))
}

/// This processor's APIC id.
pub fn id() -> u32 {
    if is_x2apic() { read(Register::ID) } else { read(Register::ID) >> 24 }
}

/// Sends an IPI: `low` is the low half of the ICR, `destination` is in the mode's own width. Waits until it is sent.
pub fn send(destination: u32, low: u32) {
    if is_x2apic() {
        return msr::write(x2apic_msr(Register::ICR), u64::from(destination) << 32 | u64::from(low));
    }
    write(Register::ICR_HIGH, destination << 24);
    write(Register::ICR, low);
    while read(Register::ICR) & 1 << 12 != 0 {}
}

/// Ends the interrupt in service.
pub fn eoi() {
    write(Register::EOI, 0);
}

/// Whether `vector`'s bit is set in one of the three 256-bit registers (ISR, TMR, IRR).
pub fn bit(register: Register, vector: u8) -> bool {
    let part = Register(register.0 + u16::from(vector / 32) * 0x10);
    read(part) & 1 << (vector % 32) != 0
}

/// Enables the APIC by software with spurious vector 0xff; local interrupts stay masked but for PIC and NMI pins.
pub fn init() {
    write(Register::SVR, SOFTWARE_ENABLE | 0xff);
    write(Register::TPR, 0);
    write(Register::LVT_TIMER, MASKED);
    write(Register::LVT_ERROR, MASKED);
}
