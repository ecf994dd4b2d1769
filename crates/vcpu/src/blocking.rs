//! What keeps an event from the guest: the interruptibility state.

use arch::control::Rflags;
use vmcs::Access;
use vmcs::fields::*;

/// The field GUEST_INTERRUPTIBILITY_INFO (SDM 3C 25.4.2 "Guest Non-Register State").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Blocking(u32);

impl Blocking {
    /// By STI (bit 0) or by MOV SS (bit 1): both end with the next instruction.
    const SHADOW: u32 = 0b11;
    const NMI: u32 = 1 << 3;

    #[inline(always)]
    pub(crate) fn read(vmcs: &impl Access) -> Self {
        Self(vmcs.read(GUEST_INTERRUPTIBILITY_INFO))
    }

    #[inline(always)]
    pub(crate) fn write(self, vmcs: &mut impl Access) {
        vmcs.write(GUEST_INTERRUPTIBILITY_INFO, self.0);
    }

    /// Whether the instruction after STI, MOV SS or POP SS is still to come.
    #[inline(always)]
    pub(crate) const fn by_shadow(self) -> bool {
        self.0 & Self::SHADOW != 0
    }

    /// Whether the handler of an NMI runs.
    pub(crate) const fn by_nmi(self) -> bool {
        self.0 & Self::NMI != 0
    }

    pub(crate) const fn without_shadow(self) -> Self {
        Self(self.0 & !Self::SHADOW)
    }

    pub(crate) const fn without_nmi(self) -> Self {
        Self(self.0 & !Self::NMI)
    }
}

/// Whether RFLAGS.IF is set.
#[inline(always)]
pub(crate) fn interrupts_on(vmcs: &impl Access) -> bool {
    vmcs.read(GUEST_RFLAGS) & Rflags::IF.bits() != 0
}
