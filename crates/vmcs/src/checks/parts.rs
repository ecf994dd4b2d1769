//! The checks in parts, so that an entry after which little has changed judges little.

use bitflags::bitflags;

bitflags! {
    /// Groups of rules that are judged together. Order is the processor's: controls, host state, guest state.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct Parts: u16 {
        /// VM-execution, VM-exit and VM-entry controls, but for the injected event.
        const CONTROLS = 1 << 0;
        /// The injected event.
        const EVENT = 1 << 1;
        /// Host state.
        const HOST = 1 << 2;
        /// Guest control and debug registers and MSRs.
        const REGISTERS = 1 << 3;
        /// ES, CS, SS, DS, FS and GS.
        const SEGMENTS = 1 << 4;
        /// GDTR and IDTR.
        const TABLES = 1 << 5;
        /// RIP and RFLAGS.
        const RIP_RFLAGS = 1 << 6;
        /// Activity state, interruptibility and pending debug exceptions.
        const NON_REGISTER = 1 << 7;
        /// VMCS link pointer.
        const LINK_POINTER = 1 << 8;
        /// Page-directory-pointer-table entries.
        const PDPTES = 1 << 9;
        /// TR.
        const TR = 1 << 10;
        /// LDTR.
        const LDTR = 1 << 11;
        /// All of the guest state.
        const GUEST = Self::REGISTERS.bits() | Self::SEGMENTS.bits() | Self::TABLES.bits() | Self::RIP_RFLAGS.bits()
            | Self::TR.bits() | Self::LDTR.bits() | Self::NON_REGISTER.bits() | Self::LINK_POINTER.bits() | Self::PDPTES.bits();
    }
}
