//! SDM 3C 27.3.1.4 "Checks on Guest RIP, RFLAGS, and SSP".

use arch::control::{Cr0, Rflags};

use super::state::State;
use crate::controls::EntryControls;
use crate::event::EventKind;
use crate::fields::*;

rules! { "GUEST_", "27.3.1.4", "Checks on Guest RIP, RFLAGS, and SSP", GUEST, |s|
    RIP_32_BIT [GUEST_RIP]
        "bits 63:32 of the guest's RIP must be 0 unless the guest starts in 64-bit mode"
        => s.is_64_bit_code() || s.read(GUEST_RIP) >> 32 == 0;
    RIP_WIDTH [GUEST_RIP]
        "in 64-bit mode, the bits of the guest's RIP beyond the linear-address width must all be equal"
        => !s.is_64_bit_code() || is_within_linear_width(s, s.read(GUEST_RIP));
    RFLAGS_RESERVED [GUEST_RFLAGS]
        "bits 63:22, 15, 5 and 3 of the guest's RFLAGS must be 0, and bit 1 must be 1"
        => s.read(GUEST_RFLAGS) & !0x3f_7fd7 == 0 && s.read(GUEST_RFLAGS) & 2 != 0;
    RFLAGS_VM [GUEST_RFLAGS]
        "the guest's RFLAGS.VM must be 0 with \"IA-32e mode guest\" or if CR0.PE is 0"
        => !s.is_virtual_8086() || !s.is_ia32e_guest() && s.guest_cr0().contains(Cr0::PE);
    RFLAGS_IF [GUEST_RFLAGS, VM_ENTRY_INTERRUPTION_INFO]
        "the guest's RFLAGS.IF must be 1 if an external interrupt is injected"
        => !s.injects(EventKind::ExternalInterrupt) || s.guest_rflags().contains(Rflags::IF);
    SSP_ALIGNMENT [GUEST_SSP]
        "with \"load CET state\", bits 1:0 of the guest's SSP must be 0"
        => !s.entry.has(EntryControls::LOAD_CET_STATE) || s.read(GUEST_SSP) & 3 == 0;
    SSP_WIDTH [GUEST_SSP]
        "with \"load CET state\", the bits of the guest's SSP beyond the linear-address width must all be equal"
        => !s.entry.has(EntryControls::LOAD_CET_STATE) || is_within_linear_width(s, s.read(GUEST_SSP));
}

/// Whether all bits from the linear-address width up are equal. That is one bit less than canonical asks for: RIP may be
/// left one byte beyond the last canonical address, and then faults in the guest.
fn is_within_linear_width(s: &State<'_>, address: u64) -> bool {
    let high = address.cast_signed() >> s.environment.linear_address_bits.min(63);
    high == 0 || high == -1
}
