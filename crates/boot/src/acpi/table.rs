//! One system description table, its checksum verified (ACPI 6.5, 5.2.6 "System Description Table Header").

use arch::HostPhys;
use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::AcpiError;
use crate::phys_memory::{PhysMemory, read};

/// Bytes of the header, which every table has.
pub(super) const HEADER_LEN: u32 = 36;
/// No table is longer: big servers' DSDTs have less than 1 MiB. Keeps a wild length from being summed up for minutes.
const MAX_LEN: u32 = 4 << 20;

/// Bytes that are summed up at a time.
const PIECE: u32 = 256;

/// The header's fields that matter here.
#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Header {
    signature: [u8; 4],
    length: U32,
}

/// A table in memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Table {
    at: HostPhys,
    len: u32,
    signature: [u8; 4],
}

/// The signature of the table at `at`.
pub(super) fn signature(memory: &impl PhysMemory, at: HostPhys) -> Option<[u8; 4]> {
    read(memory, at).ok()
}

impl Table {
    /// The table with this signature at `at`.
    pub(super) fn open(memory: &impl PhysMemory, at: HostPhys, signature: [u8; 4]) -> Result<Self, AcpiError> {
        let unreadable = AcpiError::Unreadable { table: signature };
        let header: Header = read(memory, at).map_err(|_| unreadable)?;
        let len = header.length.get();
        if header.signature != signature {
            return Err(AcpiError::Checksum { table: signature });
        }
        if !(HEADER_LEN..=MAX_LEN).contains(&len) {
            return Err(AcpiError::Malformed { table: signature });
        }
        let table = Self { at, len, signature };
        let mut sum = 0u8;
        let mut piece = [0; PIECE as usize];
        for offset in (0..len).step_by(PIECE as usize) {
            let bytes = table.read_up_to(memory, offset, &mut piece)?;
            sum = bytes.iter().fold(sum, |sum, byte| sum.wrapping_add(*byte));
        }
        if sum == 0 { Ok(table) } else { Err(AcpiError::Checksum { table: signature }) }
    }

    /// Bytes of the table, header included.
    pub(super) fn len(&self) -> u32 {
        self.len
    }

    /// The error that this table contradicts itself.
    pub(super) fn malformed(&self) -> AcpiError {
        AcpiError::Malformed { table: self.signature }
    }

    /// The value at `offset`, all of it within the table.
    pub(super) fn get<T: FromBytes + IntoBytes>(&self, memory: &impl PhysMemory, offset: u32) -> Result<T, AcpiError> {
        if u64::from(offset) + size_of::<T>() as u64 > u64::from(self.len) {
            return Err(self.malformed());
        }
        read(memory, self.at.add(offset.into())).map_err(|_| AcpiError::Unreadable { table: self.signature })
    }

    /// The bytes from `offset` on, as many as `into` holds and the table has.
    pub(super) fn read_up_to<'b>(
        &self,
        memory: &impl PhysMemory,
        offset: u32,
        into: &'b mut [u8],
    ) -> Result<&'b [u8], AcpiError> {
        let left = self.len.saturating_sub(offset) as usize;
        let len = into.len().min(left);
        let piece = &mut into[..len];
        memory.read(self.at.add(offset.into()), piece).map_err(|_| AcpiError::Unreadable { table: self.signature })?;
        Ok(piece)
    }
}
