//! The root: RSDP, and the RSDT or XSDT that it points to (ACPI 6.5, 5.2.5 "Root System Description Pointer (RSDP)").

use arch::HostPhys;
use zerocopy::FromBytes;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{Immutable, KnownLayout};

use super::AcpiError;
use super::table::{HEADER_LEN, Table, signature};
use crate::phys_memory::{PhysMemory, read};

/// 5.2.5.3 "Root System Description Pointer (RSDP) Structure", the part that ACPI 1.0 has.
#[derive(FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct RsdpV1 {
    signature: [u8; 8],
    checksum: u8,
    oem_id: [u8; 6],
    revision: u8,
    rsdt: U32,
}

/// What ACPI 2.0 added, up to the address.
#[derive(FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct RsdpV2 {
    length: U32,
    xsdt: U64,
}

/// Bytes of an ACPI 1.0 RSDP.
const V1_LEN: usize = 20;
/// Bytes of a later one.
const V2_LEN: usize = 36;

const _: () = assert!(size_of::<RsdpV1>() == V1_LEN);

/// Where the root table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Root {
    at: HostPhys,
    /// XSDT: entries have 64 bits, not 32.
    wide: bool,
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte))
}

impl Root {
    /// What the RSDP at the start of `bytes` says, or `None` when it is none or its checksum is wrong.
    pub(super) fn from_rsdp(bytes: &[u8]) -> Option<Self> {
        let (v1, rest) = RsdpV1::read_from_prefix(bytes).ok()?;
        if v1.signature != *b"RSD PTR " || sum(bytes.get(..V1_LEN)?) != 0 {
            return None;
        }
        if v1.revision >= 2
            && let Ok((v2, _)) = RsdpV2::read_from_prefix(rest)
            && v2.length.get() as usize >= V2_LEN
            && bytes.get(..V2_LEN).is_some_and(|all| sum(all) == 0)
            && v2.xsdt.get() != 0
        {
            return Some(Self { at: HostPhys(v2.xsdt.get()), wide: true });
        }
        (v1.rsdt.get() != 0).then(|| Self { at: HostPhys(v1.rsdt.get().into()), wide: false })
    }

    /// Searches the RSDP in the first KiB of the extended BIOS data area and in the BIOS's ROM, on 16-byte boundaries
    /// (5.2.5.1 "Finding the RSDP on IA-PC Systems").
    pub(super) fn search(memory: &impl PhysMemory) -> Result<Self, AcpiError> {
        // The BIOS data area has the segment of the extended one.
        let segment: u16 = read::<U16>(memory, HostPhys(0x40e)).map_or(0, U16::get);
        let ebda = u64::from(segment) << 4;
        let ebda = if ebda == 0 { 0..0 } else { ebda..ebda + 1024 };
        ebda.chain(0xe_0000..0x10_0000)
            .step_by(16)
            .find_map(|at| {
                let mut bytes = [0; V2_LEN];
                memory.read(HostPhys(at), &mut bytes).ok()?;
                Self::from_rsdp(&bytes)
            })
            .ok_or(AcpiError::NoRsdp)
    }

    /// Opens the root table.
    pub(super) fn open(self, memory: &impl PhysMemory) -> Result<RootTable, AcpiError> {
        let table = Table::open(memory, self.at, if self.wide { *b"XSDT" } else { *b"RSDT" })?;
        Ok(RootTable { table, wide: self.wide })
    }
}

/// The RSDT or XSDT.
pub(super) struct RootTable {
    table: Table,
    wide: bool,
}

impl RootTable {
    /// The first table with this signature.
    pub(super) fn find(&self, memory: &impl PhysMemory, wanted: [u8; 4]) -> Result<Table, AcpiError> {
        let entry_len = if self.wide { 8 } else { 4 };
        let count = (self.table.len() - HEADER_LEN) / entry_len;
        for index in 0..count {
            let offset = HEADER_LEN + index * entry_len;
            let at = HostPhys(if self.wide {
                self.table.get::<U64>(memory, offset)?.get()
            } else {
                self.table.get::<U32>(memory, offset)?.get().into()
            });
            if signature(memory, at) == Some(wanted) {
                return Table::open(memory, at, wanted);
            }
        }
        Err(AcpiError::Missing { table: wanted })
    }
}
