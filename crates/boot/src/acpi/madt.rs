//! The MADT: processors and interrupt controllers (ACPI 6.5, 5.2.12 "Multiple APIC Description Table (MADT)").

use arch::HostPhys;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, Unaligned};

use super::table::{HEADER_LEN, Table};
use super::{AcpiError, AcpiMachine, MAX_CPUS, MAX_IOAPICS, MAX_OVERRIDES};
use crate::phys_memory::PhysMemory;

/// A processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Cpu {
    /// The processor's number in the ACPI namespace.
    pub acpi_id: u32,
    /// Its local APIC's id.
    pub apic_id: u32,
    /// Whether it can be started now. Others are sockets without a processor, or one that firmware has switched off.
    pub usable: bool,
}

/// An IOAPIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct IoApic {
    /// Its id.
    pub id: u8,
    /// Physical address of its registers.
    pub address: HostPhys,
    /// Global system interrupt of its first input.
    pub gsi_base: u32,
}

/// An ISA interrupt that is wired differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct SourceOverride {
    /// The ISA interrupt, 0 to 15.
    pub irq: u8,
    /// The global system interrupt it arrives at.
    pub gsi: u32,
    /// Active low; otherwise active high, as ISA has it.
    pub active_low: bool,
    /// Level-triggered; otherwise edge-triggered, as ISA has it.
    pub level: bool,
}

/// Entry types.
mod kind {
    pub(super) const LOCAL_APIC: u8 = 0;
    pub(super) const IOAPIC: u8 = 1;
    pub(super) const SOURCE_OVERRIDE: u8 = 2;
    pub(super) const LOCAL_APIC_ADDRESS: u8 = 5;
    pub(super) const LOCAL_X2APIC: u8 = 9;
}

#[derive(FromBytes, IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct EntryHeader {
    kind: u8,
    len: u8,
}

#[derive(FromBytes, IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct LocalApic {
    acpi_id: u8,
    apic_id: u8,
    flags: U32,
}

#[derive(FromBytes, IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct LocalX2Apic {
    reserved: U16,
    apic_id: U32,
    flags: U32,
    acpi_id: U32,
}

#[derive(FromBytes, IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct IoApicEntry {
    id: u8,
    reserved: u8,
    address: U32,
    gsi_base: U32,
}

#[derive(FromBytes, IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct OverrideEntry {
    bus: u8,
    irq: u8,
    gsi: U32,
    flags: U16,
}

#[derive(FromBytes, IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct LocalApicAddress {
    reserved: U16,
    address: U64,
}

/// "If this bit is set the processor is ready for use."
const ENABLED: u32 = 1;

/// Reads the MADT into `machine`.
pub(super) fn read(memory: &impl PhysMemory, madt: &Table, machine: &mut AcpiMachine) -> Result<(), AcpiError> {
    // After the header: local APIC address and flags, then entries of various types.
    machine.local_apic_address = HostPhys(madt.get::<U32>(memory, HEADER_LEN)?.get().into());
    let mut offset = HEADER_LEN + 8;
    while offset < madt.len() {
        let header: EntryHeader = madt.get(memory, offset)?;
        if header.len < 2 || u32::from(header.len) > madt.len() - offset {
            return Err(madt.malformed());
        }
        let entry = Entry { madt, body: offset + 2, len: usize::from(header.len) - 2 };
        entry.read(memory, header.kind, machine)?;
        offset += u32::from(header.len);
    }
    if machine.cpus.iter().any(|cpu| cpu.usable) { Ok(()) } else { Err(madt.malformed()) }
}

/// One entry of the MADT.
struct Entry<'a> {
    madt: &'a Table,
    /// Offset behind type and length.
    body: u32,
    /// Bytes there.
    len: usize,
}

impl Entry<'_> {
    fn get<T: FromBytes + IntoBytes>(&self, memory: &impl PhysMemory) -> Result<T, AcpiError> {
        if size_of::<T>() > self.len { Err(self.madt.malformed()) } else { self.madt.get(memory, self.body) }
    }

    fn read(&self, memory: &impl PhysMemory, kind: u8, machine: &mut AcpiMachine) -> Result<(), AcpiError> {
        match kind {
            kind::LOCAL_APIC => {
                let cpu: LocalApic = self.get(memory)?;
                let usable = cpu.flags.get() & ENABLED != 0;
                add_cpu(machine, Cpu { acpi_id: cpu.acpi_id.into(), apic_id: cpu.apic_id.into(), usable })
            }
            kind::LOCAL_X2APIC => {
                let cpu: LocalX2Apic = self.get(memory)?;
                let usable = cpu.flags.get() & ENABLED != 0;
                add_cpu(machine, Cpu { acpi_id: cpu.acpi_id.get(), apic_id: cpu.apic_id.get(), usable })
            }
            kind::IOAPIC => {
                let ioapic: IoApicEntry = self.get(memory)?;
                let ioapic = IoApic {
                    id: ioapic.id,
                    address: HostPhys(ioapic.address.get().into()),
                    gsi_base: ioapic.gsi_base.get(),
                };
                let full = AcpiError::TooMany { what: "IOAPICs", limit: MAX_IOAPICS };
                machine.ioapics.push(ioapic).map_err(|_| full)
            }
            kind::SOURCE_OVERRIDE => {
                let entry: OverrideEntry = self.get(memory)?;
                let flags = entry.flags.get();
                // Table "MPS INTI Flags": 3 is low, 3 is level; 0 is what the bus has, and ISA is high and edge.
                let source = SourceOverride {
                    irq: entry.irq,
                    gsi: entry.gsi.get(),
                    active_low: flags & 3 == 3,
                    level: flags >> 2 & 3 == 3,
                };
                let full = AcpiError::TooMany { what: "interrupt overrides", limit: MAX_OVERRIDES };
                machine.overrides.push(source).map_err(|_| full)
            }
            kind::LOCAL_APIC_ADDRESS => {
                machine.local_apic_address = HostPhys(self.get::<LocalApicAddress>(memory)?.address.get());
                Ok(())
            }
            // NMI wiring, SAPICs and newer entries are of no use to L0.
            _ => Ok(()),
        }
    }
}

/// Some firmware names a processor in both kinds of entries: the first counts, unless only the second is usable.
fn add_cpu(machine: &mut AcpiMachine, cpu: Cpu) -> Result<(), AcpiError> {
    if let Some(known) = machine.cpus.iter_mut().find(|known| known.apic_id == cpu.apic_id) {
        if !known.usable {
            *known = cpu;
        }
        return Ok(());
    }
    machine.cpus.push(cpu).map_err(|_| AcpiError::TooMany { what: "processors", limit: MAX_CPUS })
}
