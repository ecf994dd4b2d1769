//! INS and OUTS, with and without REP, that exited for their port.
//!
//! SDM 2A, "INS/INSB/INSW/INSD—Input from Port to String", SDM 2B, "OUTS/OUTSB/OUTSW/OUTSD—Output String to Port".

use arch::segment::SegmentName;
use arch::{Gpr, GuestMemory, OutsideMemory, Width};

use crate::decode::MAX_LENGTH;
use crate::execute::next_rip;
use crate::outcome::{Done, Failure};
use crate::registers::{Registers, advance};
use crate::strings::{batch, count, element, step};
use crate::walk::AccessKind;

/// What a VM exit for INS or OUTS says of it. The permission to use the port was checked before the exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct IoString {
    /// INS; OUTS otherwise.
    pub input: bool,
    /// The port, from DX.
    pub port: u16,
    /// Byte, word or dword.
    pub width: Width,
    /// The segment that OUTS reads from; INS writes to ES.
    pub segment: SegmentName,
    /// Width of SI or DI and of CX: word, dword or qword.
    pub address_width: Width,
    /// With a REP prefix.
    pub repeat: bool,
    /// Length of the instruction in bytes, 1 to 15.
    pub length: u8,
}

/// The ports of the guest's machine.
pub trait Ports {
    /// IN: only the low bits of the result count. Where no device answers: all ones.
    fn read(&mut self, port: u16, width: Width) -> u32;

    /// OUT of the low bits of `value`.
    fn write(&mut self, port: u16, width: Width, value: u32);
}

/// Executes INS or OUTS; with REP, as many iterations as [`BATCH`](crate::strings::BATCH) says.
///
/// # Errors
/// [`Failure::Fault`] for the guest's memory operand, found before the port is touched; [`Failure::Unsupported`], with
/// no bytes, where that operand is not in RAM. Never [`Failure::NotDevice`].
pub fn string_io(
    registers: &mut impl Registers,
    memory: &dyn GuestMemory,
    ports: &mut dyn Ports,
    io: &IoString,
) -> Result<Done, Failure> {
    let code = registers.code_size();
    let flags = registers.rflags();
    let step = step(flags, io.width);
    if !io.repeat {
        iterate(registers, memory, ports, io, step)?;
    } else {
        for _ in 0..batch(flags) {
            if count(registers, io.address_width) == 0 {
                break;
            }
            iterate(registers, memory, ports, io, step)?;
            advance(registers, Gpr::Rcx, io.address_width, u64::MAX);
        }
        if count(registers, io.address_width) != 0 {
            return Ok(Done::Repeating);
        }
    }
    registers.set_rip(next_rip(registers.rip(), code, io.length));
    Ok(Done::Complete)
}

fn iterate(
    registers: &mut impl Registers,
    memory: &dyn GuestMemory,
    ports: &mut dyn Ports,
    io: &IoString,
    step: u64,
) -> Result<(), Failure> {
    let (segment, index, kind) = if io.input {
        (SegmentName::Es, Gpr::Rdi, AccessKind::WRITE)
    } else {
        (io.segment, Gpr::Rsi, AccessKind::READ)
    };
    let (paging, code) = (registers.paging(), registers.code_size());
    let widths = (io.width, io.address_width);
    let place = element(registers, memory, &paging, code, (segment, index), widths, kind)?;
    let outside = |OutsideMemory| Failure::Unsupported { bytes: [0; MAX_LENGTH], length: 0 };
    // Also for INS: a port whose value finds no place to go must not be read.
    let old = place.load_ram(memory, io.width).map_err(outside)?;
    if io.input {
        let value = ports.read(io.port, io.width);
        place.store_ram(memory, io.width, value.into()).map_err(outside)?;
    } else {
        #[expect(clippy::cast_possible_truncation, reason = "a port is at most 32 bits wide")]
        ports.write(io.port, io.width, old as u32);
    }
    advance(registers, index, io.address_width, step);
    Ok(())
}
