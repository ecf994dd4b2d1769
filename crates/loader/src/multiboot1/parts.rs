//! Which bytes of a multiboot1 kernel go where: by the header's address fields, or else by ELF's program headers.

use core::ops::Range;

use elf::abi::{EI_NIDENT, PT_LOAD};
use elf::endian::LittleEndian;
use elf::file::{Class, FileHeader, parse_ident};
use elf::segment::SegmentTable;
use heapless::Vec;

use super::header::{Addresses, Header};
use crate::error::LoadError;

/// Loadable segments of an ELF kernel: linkers make two to five.
pub const MAX_PARTS: usize = 16;

/// Bytes of the file that go to memory, and zeros behind them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// First address in memory.
    pub start: u64,
    /// Address after the last byte in memory, zeros included. Never below `start` plus the file's bytes.
    pub end: u64,
    /// Where the bytes are in the file. Always within it.
    pub file: Range<usize>,
}

/// A kernel's parts and where it starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts {
    /// What goes where; later parts overwrite earlier ones. No part is empty.
    pub parts: Vec<Part, MAX_PARTS>,
    /// Address of the first instruction.
    pub entry: u32,
}

impl Parts {
    /// The parts of `file`, whose multiboot header is `header`.
    ///
    /// # Errors
    /// [`LoadError::KernelHeader`], [`LoadError::KernelTruncated`], [`LoadError::TooManySegments`].
    pub fn of(file: &[u8], header: &Header) -> Result<Self, LoadError> {
        match &header.addresses {
            Some(addresses) => by_addresses(file, header.offset, addresses),
            None => by_elf(file),
        }
    }

    /// Address after the highest byte of the kernel.
    pub fn end(&self) -> u64 {
        self.parts.iter().map(|part| part.end).max().unwrap_or(0)
    }

    /// Whether any part touches `start..end`; if so, where the part ends.
    pub fn overlapping(&self, start: u64, end: u64) -> Option<u64> {
        self.parts.iter().find(|part| part.start < end && start < part.end).map(|part| part.end)
    }
}

const fn wrong<T>(what: &'static str) -> Result<T, LoadError> {
    Err(LoadError::KernelHeader { what })
}

/// One part, as the address fields say (Multiboot Specification 0.6.96, 3.1.3).
fn by_addresses(file: &[u8], header_offset: usize, fields: &Addresses) -> Result<Parts, LoadError> {
    // The text begins as far before the header in the file as it does in memory.
    let before_header = fields.header_addr.checked_sub(fields.load_addr).map(|bytes| bytes as usize);
    let Some(file_start) = before_header.and_then(|bytes| header_offset.checked_sub(bytes)) else {
        return wrong("multiboot1 header has a load address that does not fit its own address");
    };
    let len = match fields.load_end_addr {
        0 => file.len() - file_start,
        end => match end.checked_sub(fields.load_addr) {
            Some(len) => len as usize,
            None => return wrong("multiboot1 header has a load end below its load address"),
        },
    };
    let file_end = file_start.saturating_add(len);
    if file_end > file.len() {
        return Err(LoadError::KernelTruncated { announced: file_end as u64, found: file.len() as u64 });
    }
    let start = u64::from(fields.load_addr);
    let loaded_end = start + len as u64;
    let end = match fields.bss_end_addr {
        0 => loaded_end,
        end if u64::from(end) < loaded_end => return wrong("multiboot1 header has a bss end inside its data"),
        end => u64::from(end),
    };
    let part = Part { start, end, file: file_start..file_end };
    Ok(Parts {
        parts: core::iter::once(part).filter(|part| part.start != part.end).collect(),
        entry: fields.entry_addr,
    })
}

/// The loadable segments of an ELF32 or ELF64 file, at their physical addresses.
fn by_elf(file: &[u8]) -> Result<Parts, LoadError> {
    const NOT_ELF: LoadError = LoadError::KernelHeader {
        what: "multiboot1 header has no address fields and the file is not little-endian ELF",
    };
    const CUT: LoadError = LoadError::KernelHeader { what: "ELF header or program headers lie outside the file" };

    let (ident, rest) = file.split_at_checked(EI_NIDENT).ok_or(NOT_ELF)?;
    let ident = parse_ident::<LittleEndian>(ident).map_err(|_| NOT_ELF)?;
    let tail_len = match ident.1 {
        Class::ELF32 => 52 - EI_NIDENT,
        Class::ELF64 => 64 - EI_NIDENT,
    };
    let header = FileHeader::parse_tail(ident, rest.get(..tail_len).ok_or(CUT)?).map_err(|_| CUT)?;
    let entry_size = match header.class {
        Class::ELF32 => 32,
        Class::ELF64 => 56,
    };
    if usize::from(header.e_phentsize) != entry_size {
        return wrong("ELF header has program headers of a wrong size");
    }
    let table_start = usize::try_from(header.e_phoff).map_err(|_| CUT)?;
    let table_end = table_start.checked_add(entry_size * usize::from(header.e_phnum)).ok_or(CUT)?;
    let table = SegmentTable::new(header.endianness, header.class, file.get(table_start..table_end).ok_or(CUT)?);

    let mut parts = Vec::new();
    // e_entry is a virtual address: a kernel linked high names it so, and is entered at the physical one.
    let mut entry = header.e_entry;
    for segment in table.iter().filter(|segment| segment.p_type == PT_LOAD && segment.p_memsz != 0) {
        if segment.p_filesz > segment.p_memsz {
            return wrong("ELF segment is longer in the file than in memory");
        }
        let file_end = segment.p_offset.saturating_add(segment.p_filesz);
        if file_end > file.len() as u64 {
            return Err(LoadError::KernelTruncated { announced: file_end, found: file.len() as u64 });
        }
        let (Some(end), Ok(file_start), Ok(file_end)) = (
            segment.p_paddr.checked_add(segment.p_memsz),
            usize::try_from(segment.p_offset),
            usize::try_from(file_end),
        ) else {
            return wrong("ELF segment wraps around the end of the address space");
        };
        if header.e_entry.checked_sub(segment.p_vaddr).is_some_and(|offset| offset < segment.p_memsz) {
            entry = header.e_entry - segment.p_vaddr + segment.p_paddr;
        }
        parts
            .push(Part { start: segment.p_paddr, end, file: file_start..file_end })
            .map_err(|_| LoadError::TooManySegments)?;
    }
    if parts.is_empty() {
        return wrong("ELF file has nothing to load");
    }
    match u32::try_from(entry) {
        Ok(entry) => Ok(Parts { parts, entry }),
        Err(_) => wrong("entry point lies above 4 GiB"),
    }
}
