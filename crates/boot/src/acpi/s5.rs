//! The sleep types for power off: `\_S5` in the DSDT (ACPI 6.5, 7.4.2 "\_Sx (System States)").
//!
//! An interpreter for AML would be a program larger than L0. Firmware writes this object as a constant package, so its
//! bytes are searched; where they are anything else, the answer is that they are unknown.

use super::fadt::SleepTypes;
use super::table::{HEADER_LEN, Table};
use crate::phys_memory::PhysMemory;

/// Bytes of a window into the table.
const WINDOW: u32 = 256;
/// Windows overlap by so much: the longest encoding of the object's part that counts is shorter.
const OVERLAP: u32 = 32;

/// The sleep types that the DSDT names.
pub(super) fn find(memory: &impl PhysMemory, dsdt: &Table) -> Option<SleepTypes> {
    let mut window = [0; WINDOW as usize];
    let mut offset = HEADER_LEN;
    while offset < dsdt.len() {
        let bytes = dsdt.read_up_to(memory, offset, &mut window).ok()?;
        if let Some(found) = (0..bytes.len()).find_map(|start| object(&bytes[start..])) {
            return Some(found);
        }
        offset += WINDOW - OVERLAP;
    }
    None
}

/// The object `Name (\_S5, Package () { a, b, ... })` at the start of `bytes` (20.2.5.1 "Namespace Modifier Objects
/// Encoding" and 20.2.5.4 "Type 2 Opcodes Encoding", DefPackage).
fn object(bytes: &[u8]) -> Option<SleepTypes> {
    const NAME_OP: u8 = 0x08;
    const PACKAGE_OP: u8 = 0x12;
    let rest = bytes.strip_prefix(&[NAME_OP])?;
    let rest = rest.strip_prefix(b"\\").unwrap_or(rest);
    let rest = rest.strip_prefix(b"_S5_")?.strip_prefix(&[PACKAGE_OP])?;
    // PkgLength: the top two bits of its first byte say how many bytes follow (20.2.4 "Package Length Encoding").
    let following = usize::from(rest.first()? >> 6);
    let (count, elements) = rest.get(1 + following..)?.split_first()?;
    let (a, elements) = integer(elements)?;
    let (b, _) = if *count >= 2 { integer(elements)? } else { (a, elements) };
    Some(SleepTypes { a: a & 7, b: b & 7 })
}

/// A constant integer at the start of `bytes`, its low byte, and what follows (20.2.3 "Data Objects Encoding").
fn integer(bytes: &[u8]) -> Option<(u8, &[u8])> {
    let (opcode, rest) = bytes.split_first()?;
    let len = match opcode {
        0x00 => return Some((0, rest)),
        0x01 => return Some((1, rest)),
        0xff => return Some((0xff, rest)),
        0x0a => 1,
        0x0b => 2,
        0x0c => 4,
        0x0e => 8,
        _ => return None,
    };
    Some((*rest.first()?, rest.get(len..)?))
}
