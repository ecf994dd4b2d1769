//! The two ACPI tables a guest needs: who the processors are (MADT) and where the power-management registers are (FADT).
//! ACPI 6.5, 5.2 "ACPI System Description Tables".

use crate::memory;

/// Looks for the root pointer where 5.2.5.1 "Finding the RSDP on IA-PC Systems" says it is.
fn root_pointer() -> Option<u64> {
    let extended_bios_data = u64::from(memory::read::<u16>(0x40e)) << 4;
    (extended_bios_data..extended_bios_data + 1024)
        .step_by(16)
        .chain((0xe_0000..0x10_0000).step_by(16))
        .filter(|&address| address >= 0x400 && memory::read::<[u8; 8]>(address) == *b"RSD PTR ")
        .find(|&address| sum(address, 20) == 0)
}

fn sum(address: u64, length: u32) -> u8 {
    (0..u64::from(length)).fold(0, |sum: u8, i| sum.wrapping_add(memory::read(address + i)))
}

/// The table with `signature`: where it is and how long. Its checksum was checked.
pub fn table(signature: &[u8; 4]) -> Option<(u64, u32)> {
    let rsdt = u64::from(memory::read::<u32>(root_pointer()? + 16));
    let length: u32 = memory::read(rsdt + 4);
    (rsdt + 36..rsdt + u64::from(length))
        .step_by(4)
        .map(|entry| u64::from(memory::read::<u32>(entry)))
        .filter(|&table| memory::read::<[u8; 4]>(table) == *signature)
        .map(|table| (table, memory::read(table + 4)))
        .find(|&(table, length)| sum(table, length) == 0)
}

/// The APIC ids of the processors that can be used, in the table's order.
pub fn processors() -> impl Iterator<Item = u32> {
    /// An entry for a processor with its local APIC id, or with its x2APIC id.
    const LOCAL_APIC: u8 = 0;
    const LOCAL_X2APIC: u8 = 9;
    entries().filter_map(|entry| {
        let (id, flags): (u32, u32) = match memory::read::<u8>(entry) {
            LOCAL_APIC => (memory::read::<u8>(entry + 3).into(), memory::read(entry + 4)),
            LOCAL_X2APIC => (memory::read(entry + 4), memory::read(entry + 8)),
            _ => return None,
        };
        (flags & 1 != 0).then_some(id)
    })
}

/// Where the entries of the MADT are, each of which begins with its type and its length.
fn entries() -> impl Iterator<Item = u64> {
    let (table, length) = table(b"APIC").unwrap_or((0, 44));
    let end = table + u64::from(length);
    let mut next = table + 44;
    core::iter::from_fn(move || {
        let entry = next;
        let length = if entry + 2 <= end { memory::read::<u8>(entry + 1) } else { 0 };
        next += u64::from(length);
        (length >= 2).then_some(entry)
    })
}

/// The power-management registers.
pub struct Fadt {
    /// The port of PM1a control.
    pub pm1a_control: u16,
    /// The port of the power-management timer.
    pub pm_timer: u16,
}

impl Fadt {
    /// Reads the FADT.
    pub fn find() -> Option<Self> {
        let (table, _) = table(b"FACP")?;
        Some(Self { pm1a_control: memory::read(table + 64), pm_timer: memory::read(table + 76) })
    }
}
