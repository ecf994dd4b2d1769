//! The MSRs that an entry loads (SDM 3C 27.4 "Loading MSRs").

use arch::control::Efer;
use vmcs::Access;
use vmcs::checks::{PhysicalMemory, ReservedMsrBits};
use vmcs::fields::{VM_ENTRY_MSR_LOAD_ADDR, VM_ENTRY_MSR_LOAD_COUNT};

use crate::image::Image;
use crate::pages::PLAIN_MSRS;

/// The number, counted from 1, of the first entry that cannot be loaded: the exit qualification of the failed entry.
pub(crate) fn first_refused(vmcs: &Image, memory: &dyn PhysicalMemory) -> Option<u64> {
    // An address that the checks refuse may be anything.
    let address = vmcs.read(VM_ENTRY_MSR_LOAD_ADDR) & !0xf & (u64::MAX >> 1);
    let count = u64::from(vmcs.read(VM_ENTRY_MSR_LOAD_COUNT));
    (0..count)
        .find(|entry| !is_accepted(memory.read_u64(address + 16 * entry), memory.read_u64(address + 16 * entry + 8)))
        .map(|entry| entry + 1)
}

/// Whether an entry may load `value` into the MSR of `word`, of those that the rounds name.
fn is_accepted(word: u64, value: u64) -> bool {
    const PAT: u64 = 0x277;
    const LSTAR: u64 = PLAIN_MSRS[1];
    const EFER: u64 = 0xc000_0080;
    const SYSENTER_ESP: u64 = 0x175;
    match word {
        // Bits 63:32 are reserved.
        _ if word >> 32 != 0 => false,
        // An x2APIC register.
        0x800..=0x8ff => false,
        // What WRMSR refuses the value of.
        PAT => value.to_le_bytes().iter().all(|memory_type| matches!(memory_type, 0 | 1 | 4..=7)),
        EFER => value & ReservedMsrBits::ARCHITECTURAL.efer == 0 && value & Efer::LME.bits() != 0,
        LSTAR | SYSENTER_ESP => value.cast_signed() >> 47 == 0 || value.cast_signed() >> 47 == -1,
        // IA32_FS_BASE and IA32_GS_BASE, what only SMM may write, what cannot be written and what there is not.
        _ => PLAIN_MSRS.contains(&word),
    }
}
