//! How a VMX instruction of L1 ends.

use arch::control::Rflags;
use vmcs::InstructionError;

/// What a VMX instruction leaves in RFLAGS (SDM 3C 31.2 "Conventions").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// VMsucceed.
    Succeed,
    /// VMfailInvalid: there is no current VMCS to hold an error number.
    FailInvalid,
    /// VMfailValid; the error number is in the VM-instruction error field.
    FailValid(InstructionError),
}

/// CF, PF, AF, ZF, SF and OF: all that a VMX instruction defines.
const DEFINED: Rflags =
    Rflags::CF.union(Rflags::PF).union(Rflags::AF).union(Rflags::ZF).union(Rflags::SF).union(Rflags::OF);

impl Outcome {
    /// RFLAGS after the instruction, given those before it.
    #[inline(always)]
    pub const fn flags(self, before: u64) -> u64 {
        let set = match self {
            Self::Succeed => Rflags::empty(),
            Self::FailInvalid => Rflags::CF,
            Self::FailValid(_) => Rflags::ZF,
        };
        before & !DEFINED.bits() | set.bits()
    }
}
