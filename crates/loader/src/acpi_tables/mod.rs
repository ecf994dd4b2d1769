//! ACPI tables for L1 (ACPI 6.5, 5.2 "ACPI System Description Tables").
//!
//! RSDP, XSDT and RSDT, FADT ([`fadt`]), FACS, MADT ([`madt`]) and DSDT ([`dsdt`]), one behind the other from
//! [`RSDP_ADDRESS`] on. They describe the platform that `devices` models: ACPI mode is always on, power management is
//! in the I/O space at 0xb000, and there is one IOAPIC.

pub mod dsdt;
pub mod fadt;
pub mod madt;

#[cfg(test)]
mod tests;

use arch::{GuestMemory, GuestPhys};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{Immutable, IntoBytes};

use crate::e820::MemoryLayout;
use crate::error::LoadError;
use crate::writer::{Writer, low};

/// Where the RSDP is: at the start of the region that operating systems search on machines with BIOS firmware
/// (ACPI 6.5, 5.2.5.1 "Finding the RSDP on IA-PC Systems").
pub const RSDP_ADDRESS: u64 = 0xf_0000;
/// The SCI's line: PIC input and global system interrupt.
pub const SCI_IRQ: u8 = 9;
/// Port of the PM1a event block (status, then enable), 4 bytes.
pub const PM1A_EVENT_PORT: u16 = 0xb000;
/// Port of the PM1a control register, 2 bytes.
pub const PM1A_CONTROL_PORT: u16 = 0xb004;
/// Port of the power-management timer, 4 bytes, 32 bits of it counting.
pub const PM_TIMER_PORT: u16 = 0xb008;
/// Port of the reset register.
pub const RESET_PORT: u16 = 0xcf9;
/// What is written to [`RESET_PORT`] to reset the machine.
pub const RESET_VALUE: u8 = 6;
/// SLP_TYPa that means S5, power off.
pub const S5_SLEEP_TYPE: u8 = 0;
/// The IOAPIC's registers.
pub const IOAPIC_ADDRESS: u32 = 0xfec0_0000;

const OEM_ID: [u8; 6] = *b"NSTLNG";
const OEM_TABLE_ID: [u8; 8] = *b"NESTLING";
/// Who made the tables.
const CREATOR_ID: [u8; 4] = *b"NSTL";

/// Offsets of a table's length and checksum in its header.
const LENGTH_OFFSET: u64 = 4;
const CHECKSUM_OFFSET: u64 = 9;

/// The header of every table but RSDP and FACS (5.2.6 "System Description Table Header").
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct Header {
    signature: [u8; 4],
    length: U32,
    revision: u8,
    checksum: u8,
    oem_id: [u8; 6],
    oem_table_id: [u8; 8],
    oem_revision: U32,
    creator_id: [u8; 4],
    creator_revision: U32,
}

const _: () = assert!(size_of::<Header>() == 36);

/// 5.2.5.3 "Root System Description Pointer (RSDP) Structure".
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct Rsdp {
    signature: [u8; 8],
    checksum: u8,
    oem_id: [u8; 6],
    revision: u8,
    rsdt: U32,
    length: U32,
    xsdt: U64,
    extended_checksum: u8,
    reserved: [u8; 3],
}

const _: () = assert!(size_of::<Rsdp>() == 36);

/// 5.2.10 "Firmware ACPI Control Structure (FACS)": no waking vector, no global lock held.
const FACS: [u8; 64] = {
    let mut facs = [0; 64];
    (facs[0], facs[1], facs[2], facs[3]) = (b'F', b'A', b'C', b'S');
    facs[4] = 64;
    facs[32] = 1; // version, of ACPI 2.0 and later
    facs
};

/// Writes all tables.
pub(crate) fn write(memory: &dyn GuestMemory, layout: &MemoryLayout) -> Result<(), LoadError> {
    let facs = (RSDP_ADDRESS + size_of::<Rsdp>() as u64).next_multiple_of(64);
    memory.write(GuestPhys(facs), &FACS)?;
    let mut tables = Tables { memory, at: facs + FACS.len() as u64 };
    let dsdt = tables.append(b"DSDT", 2, &|to| to.put(&dsdt::AML).map(drop))?;
    let fadt = tables.append(b"FACP", fadt::REVISION, &|to| fadt::write(to, low(facs)?, dsdt))?;
    let madt = tables.append(b"APIC", madt::REVISION, &|to| madt::write(to, layout.cpus))?;
    let rsdt = tables.append(b"RSDT", 1, &|to| to.put([U32::from(fadt), madt.into()].as_bytes()).map(drop))?;
    let xsdt = tables
        .append(b"XSDT", 1, &|to| to.put([U64::from(u64::from(fadt)), u64::from(madt).into()].as_bytes()).map(drop))?;

    let mut rsdp = Rsdp {
        signature: *b"RSD PTR ",
        checksum: 0,
        oem_id: OEM_ID,
        revision: 2,
        rsdt: rsdt.into(),
        length: low(size_of::<Rsdp>() as u64)?.into(),
        xsdt: u64::from(xsdt).into(),
        extended_checksum: 0,
        reserved: [0; 3],
    };
    // The first checksum covers what ACPI 1.0 knew, the second all of it, the first checksum included.
    rsdp.checksum = checksum(&rsdp.as_bytes()[..20]);
    rsdp.extended_checksum = checksum(rsdp.as_bytes());
    memory.write(GuestPhys(RSDP_ADDRESS), rsdp.as_bytes())?;
    Ok(())
}

/// The byte that makes the sum of `bytes` zero modulo 256.
fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0u8, |sum, byte| sum.wrapping_sub(*byte))
}

/// Appends tables one behind the other.
struct Tables<'m> {
    memory: &'m dyn GuestMemory,
    /// Where the next one may begin.
    at: u64,
}

impl Tables<'_> {
    /// Appends one table with the contents that `body` writes, and returns its address.
    ///
    /// Length and checksum are put in once they are known.
    fn append(
        &mut self,
        signature: &[u8; 4],
        revision: u8,
        body: &dyn Fn(&mut Writer<'_>) -> Result<(), LoadError>,
    ) -> Result<u32, LoadError> {
        let start = self.at.next_multiple_of(16);
        let header = Header {
            signature: *signature,
            length: 0.into(),
            revision,
            checksum: 0,
            oem_id: OEM_ID,
            oem_table_id: OEM_TABLE_ID,
            oem_revision: 1.into(),
            creator_id: CREATOR_ID,
            creator_revision: 1.into(),
        };
        let mut writer = Writer::new(self.memory, start);
        writer.put(header.as_bytes())?;
        body(&mut writer)?;
        let length = low(writer.at() - start)?.to_le_bytes();
        let sum = length.iter().fold(writer.sum(), |sum, byte| sum.wrapping_add(*byte));
        self.memory.write(GuestPhys(start + LENGTH_OFFSET), &length)?;
        self.memory.write(GuestPhys(start + CHECKSUM_OFFSET), &[sum.wrapping_neg()])?;
        self.at = writer.at();
        low(start)
    }
}
