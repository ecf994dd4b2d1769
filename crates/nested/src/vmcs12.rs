//! vmcs12: what L1 wrote for L2, cached while it is L1's current VMCS.
//!
//! The region in L1's memory has a format of our own, as the manual lets every processor have (SDM 3C 25.2 "Format of
//! the VMCS Region"): revision and abort indicator, which are architectural, the launch state, then one word for each
//! row of the field table. L1 may write anything there; what is read is cut to each field's width.

use arch::{GuestMemory, GuestPhys, OutsideMemory};
use vmcs::{Access, Encoding};

use crate::slots::{COUNT, Slot, SlotSet};

/// The revision identifier that L1 finds in IA32_VMX_BASIC. It changes with the format of the region.
pub const REVISION: u32 = 0x4e53_0001;
/// Bit 31 of the first word: the region is a shadow VMCS.
pub(crate) const SHADOW: u32 = 1 << 31;
/// Offset of the VMX-abort indicator (SDM 3C 28.7 "VMX Aborts").
pub(crate) const ABORT_OFFSET: u64 = 4;
const LAUNCHED_OFFSET: u64 = 8;
const VALUES_OFFSET: u64 = 16;
const _: () = assert!(VALUES_OFFSET + 8 * COUNT as u64 <= 4096, "a VMCS region has 4 KiB");

/// The fields of one VMCS of L1, and which of them were written since vmcs02 last took them.
#[derive(Clone, Debug)]
pub struct Vmcs12 {
    values: [u64; COUNT],
    /// Written by L1, and not yet in vmcs02.
    pub(crate) dirty: SlotSet,
    /// The launch state: VMLAUNCH has succeeded since the last VMCLEAR.
    pub(crate) launched: bool,
}

impl Default for Vmcs12 {
    fn default() -> Self {
        Self { values: [0; COUNT], dirty: SlotSet::EMPTY, launched: false }
    }
}

impl Vmcs12 {
    /// The value in `slot`.
    #[inline(always)]
    pub(crate) fn value(&self, slot: Slot) -> u64 {
        self.values[slot.index()]
    }

    /// Sets the value in `slot`, cut to the field's width by the caller.
    #[inline(always)]
    pub(crate) fn set_value(&mut self, slot: Slot, value: u64) {
        self.values[slot.index()] = value;
    }

    /// What VMWRITE does: bits above the field's width are lost, the high half of a field leaves the low one alone.
    #[inline(always)]
    pub(crate) fn vmwrite(&mut self, slot: Slot, encoding: Encoding, value: u64) {
        let field = &mut self.values[slot.index()];
        *field = if encoding.is_high_half() { *field & 0xffff_ffff | value << 32 } else { encoding.truncate(value) };
        self.dirty.insert(slot);
    }

    /// What VMREAD gives.
    #[inline(always)]
    pub(crate) fn vmread(&self, slot: Slot, encoding: Encoding) -> u64 {
        let value = self.values[slot.index()];
        if encoding.is_high_half() { value >> 32 } else { value }
    }

    /// Reads the region at `at`.
    pub(crate) fn load(memory: &impl GuestMemory, at: GuestPhys) -> Result<Self, OutsideMemory> {
        let mut vmcs12 = Self { launched: memory.read_u32(at.add(LAUNCHED_OFFSET))? != 0, ..Self::default() };
        for slot in Slot::all() {
            let value = memory.read_u64(at.add(VALUES_OFFSET + 8 * slot.index() as u64))?;
            vmcs12.values[slot.index()] = slot.info().encoding.truncate(value);
        }
        Ok(vmcs12)
    }

    /// Writes the region at `at` back. L1's RAM does not go away, so this fails only where loading would have.
    pub(crate) fn store(&self, memory: &impl GuestMemory, at: GuestPhys) -> Result<(), OutsideMemory> {
        memory.write(at.add(LAUNCHED_OFFSET), &u32::from(self.launched).to_le_bytes())?;
        for (value, slot) in self.values.iter().zip(0u64..) {
            memory.write(at.add(VALUES_OFFSET + 8 * slot), &value.to_le_bytes())?;
        }
        Ok(())
    }
}

/// One field of a region in L1's memory: for VMREAD and VMWRITE by L2 on a shadow VMCS.
pub(crate) fn read_field(memory: &impl GuestMemory, at: GuestPhys, slot: Slot) -> u64 {
    memory.read_u64(at.add(VALUES_OFFSET + 8 * slot.index() as u64)).unwrap_or(u64::MAX)
}

/// Sets one field of a region in L1's memory; lost where there is no memory.
pub(crate) fn write_field(memory: &impl GuestMemory, at: GuestPhys, slot: Slot, value: u64) {
    let _ = memory.write(at.add(VALUES_OFFSET + 8 * slot.index() as u64), &value.to_le_bytes());
}

/// Makes the region at `at`, which is not the cached one, "clear" (SDM 3C 25.11.3 "Initializing a VMCS").
pub(crate) fn clear_in_memory(memory: &impl GuestMemory, at: GuestPhys) {
    // On a machine too, what is written where there is no memory is lost.
    let _ = memory.write(at.add(LAUNCHED_OFFSET), &[0; 4]);
}

impl Access for Vmcs12 {
    #[inline(always)]
    fn read_raw(&self, encoding: Encoding) -> u64 {
        let value = self.values[Slot::known(encoding).index()];
        if encoding.is_high_half() { value >> 32 } else { value }
    }

    #[inline(always)]
    fn write_raw(&mut self, encoding: Encoding, value: u64) {
        self.values[Slot::known(encoding).index()] = encoding.truncate(value);
    }
}
