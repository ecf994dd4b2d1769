//! The MADT: processors and interrupt controllers (ACPI 6.5, 5.2.12 "Multiple APIC Description Table (MADT)").

use super::{IOAPIC_ADDRESS, SCI_IRQ};
use crate::error::LoadError;
use crate::writer::Writer;

/// ACPI 4.0's MADT: the first with x2APIC entries.
pub(crate) const REVISION: u8 = 3;

/// The first local APIC id that needs an x2APIC entry: 255 is broadcast in an 8-bit id.
const FIRST_X2APIC_ID: u32 = 255;
/// MADT flag PCAT_COMPAT: there is a pair of 8259s too.
const PCAT_COMPAT: u32 = 1;
/// Local APIC flag: enabled.
const ENABLED: u32 = 1;
/// MPS INTI flags: active high (1), level-triggered (3 << 2).
const ACTIVE_HIGH_LEVEL: u16 = 0b1101;
/// IOAPIC input of the PIT, whose ISA line is 0: as wired on every PC since the first with an IOAPIC.
const TIMER_GSI: u32 = 2;

/// Writes the MADT's contents for `cpus` processors with local APIC ids from 0 on.
pub(super) fn write(to: &mut Writer<'_>, cpus: u32) -> Result<(), LoadError> {
    to.put(&0xfee0_0000u32.to_le_bytes())?;
    to.put(&PCAT_COMPAT.to_le_bytes())?;
    for id in 0..cpus {
        match u8::try_from(id) {
            Ok(short) if id < FIRST_X2APIC_ID => {
                // Type 0, processor local APIC: processor UID, APIC id, flags.
                to.put(&[0, 8, short, short])?;
                to.put(&ENABLED.to_le_bytes())?;
            }
            _ => {
                // Type 9, processor local x2APIC: reserved word, id, flags, UID.
                to.put(&[9, 16, 0, 0])?;
                to.put(&id.to_le_bytes())?;
                to.put(&ENABLED.to_le_bytes())?;
                to.put(&id.to_le_bytes())?;
            }
        }
    }
    // Type 1, IOAPIC: its id, as its register has it after power-up, address, first global system interrupt 0.
    let [ioapic_id, ..] = cpus.to_le_bytes();
    to.put(&[1, 12, ioapic_id, 0])?;
    to.put(&IOAPIC_ADDRESS.to_le_bytes())?;
    to.put(&0u32.to_le_bytes())?;
    override_irq(to, 0, TIMER_GSI, 0)?;
    override_irq(to, SCI_IRQ, u32::from(SCI_IRQ), ACTIVE_HIGH_LEVEL)?;
    // Type 4, local APIC NMI: on LINT1 of all processors, flags as the bus has them.
    to.put(&[4, 6, 0xff, 0, 0, 1])?;
    if cpus > FIRST_X2APIC_ID {
        // Type 10, the same for those with x2APIC entries.
        to.put(&[10, 12, 0, 0, 0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0])?;
    }
    Ok(())
}

/// Type 2, interrupt source override: ISA interrupt `irq` is global system interrupt `gsi`.
fn override_irq(to: &mut Writer<'_>, irq: u8, gsi: u32, flags: u16) -> Result<(), LoadError> {
    to.put(&[2, 10, 0, irq])?;
    to.put(&gsi.to_le_bytes())?;
    to.put(&flags.to_le_bytes())?;
    Ok(())
}
