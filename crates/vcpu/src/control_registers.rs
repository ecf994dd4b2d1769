//! CR0 and CR4 of a guest: which bits L0 owns, and which values a guest may write.
//!
//! The guest owns what has effect on the guest alone. L0 owns CR0.NE (VMX wants it set), CR0.CD and CR0.NW (they would
//! stay set while L0 runs), CR4.VMXE and CR4.MCE (VMX and machine checks are L0's), and every CR4 bit whose feature
//! CPUID does not show. A guest's MOV that changes an owned bit exits; L0 checks the whole value as the processor
//! would, moves the owned bits into the read shadow and lets the guest execute the instruction again: the second
//! time no owned bit differs, and the processor itself switches modes and loads the PDPTEs.
//! SDM 3C 27.3 "Changes to Instruction Behavior in VMX Non-Root Operation"; SDM 3A 2.5 "Control Registers".

use arch::control::{Cr0, Cr4, Efer};
use bit_field::BitField;

use crate::cpuid::CpuidTable;

/// CR0 bits that L0 owns.
pub const CR0_OWNED: Cr0 = Cr0::NE.union(Cr0::CD).union(Cr0::NW);

/// CR0 bits that exist; the rest of the low half is ignored, the high half must be zero.
const CR0_DEFINED: u64 = Cr0::all().bits();

/// Whether a MOV to CR0 with this value is legal; #GP(0) otherwise (SDM 2B "MOV—Move to/from Control Registers").
pub const fn cr0_is_legal(value: u64, cr4: Cr4, efer: Efer, code_segment_is_long: bool) -> bool {
    if value >> 32 != 0 {
        return false;
    }
    let cr0 = Cr0::from_bits_truncate(value);
    let paging = cr0.contains(Cr0::PG);
    if paging && !cr0.contains(Cr0::PE) || cr0.contains(Cr0::NW) && !cr0.contains(Cr0::CD) {
        return false;
    }
    if cr4.contains(Cr4::CET) && !cr0.contains(Cr0::WP) {
        return false;
    }
    if paging && efer.contains(Efer::LME) && !efer.contains(Efer::LMA) {
        // Entering IA-32e mode needs PAE, and not a 64-bit code segment.
        return cr4.contains(Cr4::PAE) && !code_segment_is_long;
    }
    // Paging cannot go off in 64-bit mode, nor with PCIDs on.
    paging || !(cr4.contains(Cr4::PCIDE) || efer.contains(Efer::LMA) && code_segment_is_long)
}

/// CR0 as the VMCS must hold it: the guest's bits with L0's instead of the owned ones.
pub const fn cr0_real(guest: u64) -> u64 {
    guest & CR0_DEFINED & !CR0_OWNED.bits() | Cr0::NE.bits()
}

/// The CR4 bits that a guest with this CPUID may set.
pub fn cr4_offered(cpuid: &CpuidTable) -> Cr4 {
    let [edx1, ecx1, ebx7, ecx7, edx_ext] = cpuid.feature_words();
    let mut offered = Cr4::DE | Cr4::PSE | Cr4::PAE | Cr4::TSD | Cr4::PCE | Cr4::OSXMMEXCPT;
    offered.set(Cr4::VMXE, ecx1.get_bit(5));
    offered.set(Cr4::VME | Cr4::PVI, edx1.get_bit(1));
    offered.set(Cr4::MCE, edx1.get_bit(7));
    offered.set(Cr4::PGE, edx1.get_bit(13));
    offered.set(Cr4::OSFXSR, edx1.get_bit(24));
    offered.set(Cr4::UMIP, ecx7.get_bit(2));
    offered.set(Cr4::LA57, ecx7.get_bit(16));
    offered.set(Cr4::FSGSBASE, ebx7.get_bit(0));
    offered.set(Cr4::PCIDE, ecx1.get_bit(17) && edx_ext.get_bit(29));
    offered.set(Cr4::OSXSAVE, ecx1.get_bit(26));
    offered.set(Cr4::SMEP, ebx7.get_bit(7));
    offered.set(Cr4::SMAP, ebx7.get_bit(20));
    offered.set(Cr4::PKE, ecx7.get_bit(3));
    offered
}

/// CR4 bits that L0 owns in a guest that may set `offered`.
pub const fn cr4_owned(offered: Cr4) -> u64 {
    !offered.bits() | Cr4::VMXE.bits() | Cr4::MCE.bits()
}

/// CR4 as the VMCS must hold it: the guest's bits, with VMXE and MCE always set.
pub const fn cr4_real(guest: u64, offered: Cr4) -> u64 {
    guest & offered.bits() | Cr4::VMXE.bits() | Cr4::MCE.bits()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The #GP conditions of MOV to CR0 in the manual's order, and what must stay legal beside each.
    #[test]
    fn mov_to_cr0_is_judged_as_the_manual_says() {
        let none = (Cr4::empty(), Efer::empty(), false);
        let lme = Efer::LME;
        let long = Efer::LME | Efer::LMA;
        for (value, (cr4, efer, cs_long), legal, why) in [
            (0x11, none, true, "protected mode"),
            (0x8000_0011, none, true, "paging"),
            (0x1_0000_0011, none, false, "high half"),
            (0x8000_0010, none, false, "PG without PE"),
            (0x2000_0011, none, false, "NW without CD"),
            (0x6000_0011, none, true, "NW with CD"),
            (0x1ff8_ffd1, none, true, "reserved low bits are ignored"),
            (0x8000_0011, (Cr4::empty(), lme, false), false, "LME without PAE"),
            (0x8000_0011, (Cr4::PAE, lme, false), true, "entering IA-32e mode"),
            (0x8000_0011, (Cr4::PAE, lme, true), false, "entering it with CS.L"),
            (0x11, (Cr4::PAE, long, true), false, "paging off in 64-bit mode"),
            (0x11, (Cr4::PAE, long, false), true, "paging off in compatibility mode"),
            (0x11, (Cr4::PAE | Cr4::PCIDE, long, false), false, "paging off with PCIDs"),
        ] {
            assert_eq!(cr0_is_legal(value, cr4, efer, cs_long), legal, "{why}");
        }
    }

    /// VMX operation needs NE, VMXE whatever the guest believes (SDM 3C 24.8 "Restrictions on VMX Operation").
    #[test]
    fn real_values_satisfy_vmx() {
        assert_eq!(cr0_real(0x6000_0010) & 0x6000_0020, 0x20);
        assert_eq!(cr4_real(0, Cr4::PAE) & 0x2000, 0x2000);
        assert_eq!(cr4_real(u64::MAX, Cr4::PAE), (Cr4::PAE | Cr4::VMXE | Cr4::MCE).bits());
    }
}
