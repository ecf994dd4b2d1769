//! The lists of MSRs that transitions load and store.
//!
//! SDM 3C 27.4 "Loading MSRs", 28.4 "Saving MSRs" and 28.6 "Loading MSRs". An entry is 16 bytes: number, a reserved word,
//! value. A list is L1's memory, which another processor may change: each entry is read once.

use arch::{GuestMemory, GuestPhys, Msr};

use crate::seam::{L1Memory, Msrs};

/// Bytes of an entry.
const ENTRY: u64 = 16;
/// Entries beyond this are refused, so that a list cannot keep L0 busy: IA32_VMX_MISC recommends at most 4096, and where more
/// are used "unpredictable behavior (including a machine check) may result during the VMX transition".
const MOST: u32 = 4096;

/// Loads the list of an entry, vmcs02 being current, or of an exit, vmcs01 being current.
///
/// # Errors
/// The position, from 1, of the entry that cannot be loaded: for an exit a VMX abort.
pub(crate) fn load<P>(
    cpu: &mut P,
    memory: &impl L1Memory,
    msrs: &mut impl Msrs<P>,
    list: GuestPhys,
    count: u32,
) -> Result<(), u32> {
    for_each(memory, list, count, |at, msr| {
        // FS and GS bases are in the guest-state area.
        if matches!(msr, Msr::FS_BASE | Msr::GS_BASE) {
            return None;
        }
        msrs.store(cpu, msr, memory.read_u64(at.add(8)).ok()?).ok()
    })
}

/// Stores the list of an exit, vmcs02 being current.
///
/// # Errors
/// The position of the entry that cannot be stored: a VMX abort.
pub(crate) fn store<P>(
    cpu: &mut P,
    memory: &impl L1Memory,
    msrs: &mut impl Msrs<P>,
    list: GuestPhys,
    count: u32,
) -> Result<(), u32> {
    for_each(memory, list, count, |at, msr| {
        let value = msrs.load(cpu, msr).ok()?;
        memory.write(at.add(8), &value.to_le_bytes()).ok()
    })
}

/// Acts on each entry of a list, given where it is and its MSR, as long as that succeeds.
fn for_each(
    memory: &impl L1Memory,
    list: GuestPhys,
    count: u32,
    mut act: impl FnMut(GuestPhys, Msr) -> Option<()>,
) -> Result<(), u32> {
    for position in 0..count {
        let at = list.add(ENTRY * u64::from(position));
        let entry = number(memory, at).filter(|_| position < MOST);
        // x2APIC's registers are not to be touched while the page may be in use.
        let sound = entry.filter(|&(msr, reserved)| msr.0 >> 8 != 8 && reserved == 0);
        sound.and_then(|(msr, _)| act(at, msr)).ok_or(position + 1)?;
    }
    Ok(())
}

/// The entry at `position`, from 1, of a list: MSR and value, as they are by now. For the log.
pub(crate) fn entry(memory: &impl GuestMemory, list: GuestPhys, position: u32) -> Option<(Msr, u64)> {
    let at = list.add(ENTRY * u64::from(position.checked_sub(1).filter(|&index| index < MOST)?));
    let (msr, _) = number(memory, at)?;
    Some((msr, memory.read_u64(at.add(8)).ok()?))
}

/// The first eight bytes of an entry: MSR number and what is reserved.
fn number(memory: &impl GuestMemory, at: GuestPhys) -> Option<(Msr, u32)> {
    let word = memory.read_u64(at).ok()?;
    #[expect(clippy::cast_possible_truncation, reason = "the halves of a word")]
    let halves = (Msr(word as u32), (word >> 32) as u32);
    Some(halves)
}
