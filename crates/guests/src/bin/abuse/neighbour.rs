//! A guest that nobody wants on the same processor.

use guests::{acpi, apic, cpu, interrupts, multiboot, smp};

/// What the flood is made of.
const VECTOR: u8 = 0x60;

/// When it is over.
fn end() -> u64 {
    cpu::tsc() + u64::from(multiboot::number("ticks").unwrap_or(10)) * 1_000_000
}

/// Spins with interrupts off.
pub(crate) fn spin_deaf() {
    let end = end();
    cpu::cli();
    while cpu::tsc() < end {}
}

/// Sends interrupts to all processors, itself included, as fast as it can; the others halt between them.
pub(crate) fn ipi_flood() {
    let end = end();
    interrupts::handle(VECTOR, |_| apic::eoi());
    let own = apic::id();
    smp::prepare(take_interrupts, 1);
    acpi::processors().filter(|id| *id != own).for_each(smp::start_processor);
    cpu::sti();
    while cpu::tsc() < end {
        apic::send(0, u32::from(VECTOR) | 1 << 14 | 2 << 18);
    }
    cpu::cli();
}

fn take_interrupts(_: u32) {
    apic::init();
    loop {
        cpu::wait_for_interrupt();
    }
}
