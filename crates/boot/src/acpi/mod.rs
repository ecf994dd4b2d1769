//! Processors, interrupt controllers and power management, as the firmware's ACPI tables name them (ACPI 6.5,
//! 5.2 "ACPI System Description Tables").
//!
//! [`discover`] goes from the RSDP (`rsdp.rs`) through the root table to the MADT ([`madt`]) and the FADT ([`fadt`]),
//! and looks into the DSDT's AML for one thing (`s5.rs`). Every table's checksum is verified (`table.rs`).

pub mod error;
pub mod fadt;
pub mod madt;
mod rsdp;
mod s5;
mod table;

#[cfg(test)]
mod tests;

use arch::HostPhys;
use heapless::Vec;

pub use error::AcpiError;
pub use fadt::{PmTimer, PowerManagement, Register, ResetRegister, SleepTypes};
pub use madt::{Cpu, IoApic, SourceOverride};

use crate::phys_memory::PhysMemory;
use rsdp::Root;

/// Processors that a machine may have.
pub const MAX_CPUS: usize = 512;
/// IOAPICs that a machine may have.
pub const MAX_IOAPICS: usize = 16;
/// Interrupt source overrides: there are 16 ISA interrupts.
pub const MAX_OVERRIDES: usize = 16;

/// What L0 needs to know of the machine.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct AcpiMachine {
    /// Processors in the order of the MADT, each local APIC id once.
    pub cpus: Vec<Cpu, MAX_CPUS>,
    /// IOAPICs.
    pub ioapics: Vec<IoApic, MAX_IOAPICS>,
    /// ISA interrupts that are not wired to the IOAPIC input of their own number.
    pub overrides: Vec<SourceOverride, MAX_OVERRIDES>,
    /// Physical address of the local APICs' registers.
    pub local_apic_address: HostPhys,
    /// Power management.
    pub pm: PowerManagement,
}

/// Reads the machine's ACPI tables.
///
/// `rsdp` is the boot loader's copy of the RSDP. Without one, or with a bad one, it is searched where BIOS firmware
/// has it.
///
/// # Errors
/// An [`AcpiError`] when RSDP, MADT or FADT is missing or bad. A bad DSDT only leaves the sleep types unknown.
pub fn discover(memory: &impl PhysMemory, rsdp: Option<&[u8]>) -> Result<AcpiMachine, AcpiError> {
    let root = match rsdp.and_then(Root::from_rsdp) {
        Some(root) => root,
        None => Root::search(memory)?,
    };
    let root = root.open(memory)?;
    let mut machine = AcpiMachine::default();
    madt::read(memory, &root.find(memory, *b"APIC")?, &mut machine)?;
    machine.pm = fadt::read(memory, &root.find(memory, *b"FACP")?)?;
    Ok(machine)
}
