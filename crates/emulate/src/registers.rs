//! The registers of the vCPU whose instruction is executed: the seam to whoever holds them.

use arch::control::Rflags;
use arch::segment::{Segment, SegmentName};
use arch::{Gpr, Width};

use crate::operand::{CodeSize, Register};
use crate::walk::Paging;

/// A vCPU's registers. Only what an instruction needs is asked for, since each may be a VMREAD.
pub trait Registers {
    /// All 64 bits of a general-purpose register, RSP included.
    fn gpr(&self, register: Gpr) -> u64;

    /// Sets all 64 bits.
    fn set_gpr(&mut self, register: Gpr, value: u64);

    /// RIP: where the instruction starts.
    fn rip(&self) -> u64;

    /// Moves RIP past an instruction that is complete. The end of an instruction also ends blocking by STI and MOV SS,
    /// clears RFLAGS.RF and owes a single-step trap if RFLAGS.TF is set: those are the caller's.
    fn set_rip(&mut self, value: u64);

    /// RFLAGS.
    fn rflags(&self) -> Rflags;

    /// Sets RFLAGS.
    fn set_rflags(&mut self, value: Rflags);

    /// A segment register with its hidden part.
    fn segment(&self, name: SegmentName) -> Segment;

    /// The size of code that CS selects: [`CodeSize::of`].
    fn code_size(&self) -> CodeSize;

    /// How linear addresses are translated, and who asks.
    fn paging(&self) -> Paging;

    /// The same in the most frequent case: 64-bit mode, privilege level 0, paging of four levels. `None` elsewhere.
    fn kernel(&self) -> Option<Kernel>;
}

/// A 64-bit kernel's paging.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// CR3.
    pub cr3: u64,
    /// Bits that no entry of a paging structure may have: beyond the physical-address width, and execute-disable where it is off.
    pub reserved: u64,
}

/// The value of `register` as an operand of `width`, zero-extended.
#[inline]
pub(crate) fn read(registers: &impl Registers, register: Register, width: Width) -> u64 {
    let value = registers.gpr(register.gpr);
    if register.high_byte { value >> 8 & 0xff } else { value & width.mask() }
}

/// Sets `register` as an operand of `width`: bytes and words leave the rest alone, doublewords clear bits 63:32
/// (SDM 1, 3.4.1.1 "General-Purpose Registers in 64-Bit Mode").
#[inline]
pub(crate) fn write(registers: &mut impl Registers, register: Register, width: Width, value: u64) {
    let value = match width {
        Width::Qword => value,
        Width::Dword => value & 0xffff_ffff,
        _ if register.high_byte => registers.gpr(register.gpr) & !0xff00 | (value & 0xff) << 8,
        _ => registers.gpr(register.gpr) & !width.mask() | value & width.mask(),
    };
    registers.set_gpr(register.gpr, value);
}

/// AL, AX, EAX or RAX.
pub(crate) const ACCUMULATOR: Register = Register { gpr: Gpr::Rax, high_byte: false };

/// Adds to SI, DI or CX, ESI, … as wide as `width` says.
#[inline(never)]
pub(crate) fn advance(registers: &mut impl Registers, gpr: Gpr, width: Width, by: u64) {
    let value = registers.gpr(gpr).wrapping_add(by);
    write(registers, Register { gpr, high_byte: false }, width, value);
}
