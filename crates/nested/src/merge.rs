//! vmcs02: vmcs12 with what L0 needs, written where vmcs12 changed.
//!
//! The controls of APIC virtualization, and all else that L1 asked for, come from vmcs12 alone; page-modification logging
//! and VMCS shadowing are never on, as L0 does for L2 what they do.

use arch::control::{Cr0, Cr4, Efer};
use arch::{GuestPhys, HostPhys};
use vmcs::Access;
use vmcs::controls::{EntryControls, ExitControls, PinBased, PrimaryBased, SecondaryBased};
use vmcs::fields::*;

use crate::current::Vmcs02;
use crate::field_use::{Merge, Topic, Topics};
use crate::seam::L1Memory;
use crate::slots::{Slot, SlotSet};
use crate::state::Nested;

/// What of L1's own state an entry into L2 keeps, because vmcs12's controls do not load it. Read from vmcs01.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kept {
    /// CR0's read shadow: CD and NW, which L0 owns, survive transitions.
    pub cr0: u64,
    pub efer: u64,
    pub pat: u64,
    pub dr7: u64,
    pub debugctl: u64,
}

/// Bits of CR0 that transitions leave alone (SDM 3C 27.3.2.1 "Loading Guest Control Registers, Debug Registers, and MSRs").
pub(crate) const CR0_KEPT: u64 = Cr0::CD.union(Cr0::NW).bits();

impl Nested {
    /// Brings vmcs02, which is current, up to date with vmcs12. `tsc_offset` is L1's TSC less the machine's.
    pub(crate) fn merge(
        &mut self,
        vmcs02: &mut Vmcs02<'_, impl Access>,
        memory: &impl L1Memory,
        kept: &Kept,
        tsc_offset: u64,
    ) {
        // L1 moves RIP nearly always.
        vmcs02.write(GUEST_RIP, self.vmcs12.read(GUEST_RIP));
        let mut topics = Topics::default();
        if !self.is_merged || !self.vmcs12.dirty.is_empty() {
            topics = self.merge_fields(vmcs02);
        }
        if (kept.cr0 ^ self.at_exit.cr0_kept) & CR0_KEPT != 0 {
            // L1 changed CD or NW of its own CR0, which L2 starts with (SDM 3C 27.3.2.1 "Loading Guest Control Registers,
            // Debug Registers, and MSRs").
            self.at_exit.cr0_kept = kept.cr0 & CR0_KEPT;
            self.read_from(vmcs02);
            topics.insert(Topic::ControlRegisters);
        }
        if !self.is_prepared {
            self.is_prepared = true;
            self.prepare(vmcs02);
        }
        if topics.contains(Topic::Controls) {
            // What is loaded and what is saved may be other fields than before.
            let saved = self.saved_fields();
            if saved != self.saved {
                // What the next exit does not save any more stands in vmcs02 for the last time.
                self.read_from(vmcs02);
                self.saved = saved;
            }
            topics.insert(Topic::Switched);
        }
        if !topics.is_empty() {
            self.merge_topics(vmcs02, memory, kept, topics, tsc_offset);
        }
        self.is_merged = true;
        self.load_switched(vmcs02, kept, topics.contains(Topic::Switched));
    }

    /// Writes the plain ones among the fields that vmcs02 does not have yet; the topics of the others.
    #[inline(never)]
    fn merge_fields(&mut self, vmcs02: &mut Vmcs02<'_, impl Access>) -> Topics {
        let mut topics = if self.is_merged { Topics::default() } else { Topics::ALL };
        if !self.is_merged {
            self.read_from(vmcs02);
        }
        let changed = if self.is_merged { &self.vmcs12.dirty } else { &self.uses.exists };
        changed.for_each(|slot| match self.uses.merge(slot) {
            Merge::Not => {}
            Merge::Plain => vmcs02.write_raw(slot.info().encoding, self.vmcs12.value(slot)),
            Merge::Topic(topic) => topics.insert(topic),
        });
        self.vmcs12.dirty = SlotSet::EMPTY;
        topics
    }

    /// What never changes in vmcs02.
    #[cold]
    fn prepare(&self, vmcs02: &mut Vmcs02<'_, impl Access>) {
        vmcs02.write(VM_EXIT_CONTROLS, self.base.exit.bits());
        vmcs02.write(VM_EXIT_MSR_STORE_COUNT, 0);
        vmcs02.write(VM_EXIT_MSR_LOAD_COUNT, 0);
        vmcs02.write(VM_ENTRY_MSR_LOAD_COUNT, 0);
        vmcs02.write(VM_ENTRY_INTERRUPTION_INFO, 0);
        vmcs02.write(VMCS_LINK_POINTER, u64::MAX);
        vmcs02.write(GUEST_ACTIVITY_STATE, 0);
        if self.base.secondary.contains(SecondaryBased::ENABLE_VPID) {
            vmcs02.write(VIRTUAL_PROCESSOR_ID, self.base.vpid);
        }
        if self.capabilities.primary.supports(PrimaryBased::USE_MSR_BITMAPS) {
            vmcs02.write(MSR_BITMAP, self.pages.msr_bitmap.at.get());
        }
        if self.capabilities.secondary.supports(SecondaryBased::ENABLE_VM_FUNCTIONS) {
            // Each VMFUNC exits: L0 switches the EPT.
            vmcs02.write(VM_FUNCTION_CONTROL, 0);
        }
    }

    #[inline(never)]
    fn merge_topics(
        &mut self,
        vmcs02: &mut Vmcs02<'_, impl Access>,
        memory: &impl L1Memory,
        kept: &Kept,
        topics: Topics,
        tsc_offset: u64,
    ) {
        let posted = self.posted;
        if topics.contains(Topic::Apic) || topics.contains(Topic::Controls) {
            self.posted = self.posting(memory);
        }
        if topics.contains(Topic::Controls) || posted.is_some() != self.posted.is_some() {
            self.merge_controls(vmcs02);
        }
        if topics.contains(Topic::ControlRegisters) {
            self.merge_control_registers(vmcs02, kept);
        }
        if topics.contains(Topic::Exceptions) {
            vmcs02.write(EXCEPTION_BITMAP, self.base.exceptions | self.vmcs12.read(EXCEPTION_BITMAP));
        }
        if topics.contains(Topic::Tsc) || topics.contains(Topic::Controls) {
            self.merge_tsc(vmcs02, tsc_offset);
        }
        if topics.contains(Topic::Apic) || topics.contains(Topic::Controls) {
            self.merge_apic(vmcs02, memory);
        }
        if topics.contains(Topic::AddressSpace) || topics.contains(Topic::Controls) {
            self.set_ept12();
            self.copy(vmcs02, GUEST_CR3.encoding());
            if self.secondary12().contains(SecondaryBased::ENABLE_EPT) {
                for pdpte in [GUEST_PDPTE0, GUEST_PDPTE1, GUEST_PDPTE2, GUEST_PDPTE3] {
                    self.copy(vmcs02, pdpte.encoding());
                }
            }
        }
    }

    fn merge_controls(&mut self, vmcs02: &mut Vmcs02<'_, impl Access>) {
        let mut pin = self.base.pin | PinBased::from_bits_retain(self.vmcs12.read(PIN_BASED_VM_EXEC_CONTROL));
        pin.set(PinBased::PROCESS_POSTED_INTERRUPTS, self.posted.is_some());
        vmcs02.write(PIN_BASED_VM_EXEC_CONTROL, pin.bits());
        vmcs02.write(CPU_BASED_VM_EXEC_CONTROL, (self.primary02() | self.window_controls).bits());
        vmcs02.write(SECONDARY_VM_EXEC_CONTROL, self.secondary02().bits());
        let entry = EntryControls::from_bits_retain(self.vmcs12.read(VM_ENTRY_CONTROLS));
        let entry = self.base.entry | entry & EntryControls::IA32E_MODE_GUEST;
        vmcs02.write(VM_ENTRY_CONTROLS, entry.bits());
    }

    pub(crate) fn primary02(&self) -> PrimaryBased {
        let l1 = PrimaryBased::from_bits_retain(self.vmcs12.read(CPU_BASED_VM_EXEC_CONTROL));
        let mut primary = self.base.primary | l1;
        // Ports are L0's to judge, by both bitmaps.
        primary.remove(PrimaryBased::USE_IO_BITMAPS);
        primary.insert(PrimaryBased::UNCONDITIONAL_IO_EXITING);
        // Without a bitmap of L1's every access is L1's.
        primary.set(PrimaryBased::USE_MSR_BITMAPS, l1.contains(PrimaryBased::USE_MSR_BITMAPS));
        if l1.contains(PrimaryBased::USE_TPR_SHADOW) {
            // CR8 is the virtual-APIC page's.
            let cr8 = PrimaryBased::CR8_LOAD_EXITING | PrimaryBased::CR8_STORE_EXITING;
            primary.remove(cr8);
            primary |= l1 & cr8;
        }
        primary
    }

    fn secondary02(&self) -> SecondaryBased {
        const L0_ALONE: SecondaryBased = SecondaryBased::ENABLE_EPT.union(SecondaryBased::ENABLE_VPID);
        let mut secondary = self.secondary12();
        secondary.remove(SecondaryBased::VMCS_SHADOWING | SecondaryBased::ENABLE_PML);
        secondary | self.base.secondary & L0_ALONE
    }

    fn merge_control_registers(&self, vmcs02: &mut Vmcs02<'_, impl Access>, kept: &Kept) {
        let base = &self.base;
        let mask = self.vmcs12.read(CR0_GUEST_HOST_MASK);
        let cr0 = self.vmcs12.read(GUEST_CR0) & !CR0_KEPT | kept.cr0 & CR0_KEPT;
        vmcs02.write(GUEST_CR0, cr0 & !base.cr0_owned | Cr0::NE.bits());
        vmcs02.write(CR0_GUEST_HOST_MASK, mask | base.cr0_owned);
        vmcs02.write(CR0_READ_SHADOW, self.vmcs12.read(CR0_READ_SHADOW) & mask | cr0 & !mask);
        let mask = self.vmcs12.read(CR4_GUEST_HOST_MASK);
        let cr4 = self.vmcs12.read(GUEST_CR4);
        let real = cr4 & base.cr4_offered.bits() & !(Cr4::VMXE | Cr4::MCE).bits() | (Cr4::VMXE | Cr4::MCE).bits();
        vmcs02.write(GUEST_CR4, real);
        vmcs02.write(CR4_GUEST_HOST_MASK, mask | base.cr4_owned);
        vmcs02.write(CR4_READ_SHADOW, self.vmcs12.read(CR4_READ_SHADOW) & mask | cr4 & !mask);
    }

    /// L2's TSC is vmcs12's multiple of L1's, plus vmcs12's offset (SDM 3C 26.3 "Changes to Instruction Behavior in VMX
    /// Non-Root Operation", RDTSC).
    pub(crate) fn merge_tsc(&self, vmcs02: &mut Vmcs02<'_, impl Access>, tsc_offset: u64) {
        let l1 = PrimaryBased::from_bits_retain(self.vmcs12.read(CPU_BASED_VM_EXEC_CONTROL));
        let offsets = l1.contains(PrimaryBased::USE_TSC_OFFSETTING);
        let scales = offsets && self.secondary12().contains(SecondaryBased::USE_TSC_SCALING);
        let scaled = if scales { scale(tsc_offset, self.vmcs12.read(TSC_MULTIPLIER)) } else { tsc_offset };
        let own = if offsets { self.vmcs12.read(TSC_OFFSET) } else { 0 };
        vmcs02.write(TSC_OFFSET, scaled.wrapping_add(own));
        if self.capabilities.secondary.supports(SecondaryBased::USE_TSC_SCALING) {
            // Without offsetting by L1 the multiplier has no effect; L0's offsetting would give it one.
            vmcs02.write(TSC_MULTIPLIER, if scales { self.vmcs12.read(TSC_MULTIPLIER) } else { 1 << 48 });
        }
    }

    fn merge_apic(&self, vmcs02: &mut Vmcs02<'_, impl Access>, memory: &impl L1Memory) {
        let primary = PrimaryBased::from_bits_retain(self.vmcs12.read(CPU_BASED_VM_EXEC_CONTROL));
        if primary.contains(PrimaryBased::USE_TPR_SHADOW) {
            vmcs02.write(VIRTUAL_APIC_PAGE_ADDR, self.page(memory, self.vmcs12.read(VIRTUAL_APIC_PAGE_ADDR)).get());
        }
        if self.secondary12().contains(SecondaryBased::VIRTUALIZE_APIC_ACCESSES) {
            vmcs02.write(APIC_ACCESS_ADDR, self.page(memory, self.vmcs12.read(APIC_ACCESS_ADDR)).get());
        }
        if let (Some(posted), Some(posting)) = (&self.posted, &self.base.posting) {
            let at = posted.descriptor;
            vmcs02.write(POSTED_INTR_NV, posting.notification.into());
            vmcs02.write(POSTED_INTR_DESC_ADDR, self.page(memory, at.page().get()).get() | at.get() & 0xfff);
        }
    }

    /// The page of L1's at `at`, or the one that stands for a place without memory.
    fn page(&self, memory: &impl L1Memory, at: u64) -> HostPhys {
        memory.host(GuestPhys(at)).unwrap_or(self.pages.nowhere.at)
    }

    /// DR7, IA32_DEBUGCTL, IA32_PAT and IA32_EFER. Where an exit saves what an entry loads, they are in vmcs02 already.
    #[inline(always)]
    fn load_switched(&self, vmcs02: &mut Vmcs02<'_, impl Access>, kept: &Kept, changed: bool) {
        let entry = EntryControls::from_bits_retain(self.vmcs12.read(VM_ENTRY_CONTROLS));
        let exit = ExitControls::from_bits_retain(self.vmcs12.read(VM_EXIT_CONTROLS));
        if !entry.contains(EntryControls::LOAD_DEBUG_CONTROLS) {
            vmcs02.write(GUEST_DR7, kept.dr7);
            vmcs02.write(GUEST_IA32_DEBUGCTL, kept.debugctl);
        } else if changed || !exit.contains(ExitControls::SAVE_DEBUG_CONTROLS) {
            self.copy(vmcs02, GUEST_DR7.encoding());
            self.copy(vmcs02, GUEST_IA32_DEBUGCTL.encoding());
        }
        if !entry.contains(EntryControls::LOAD_IA32_PAT) {
            vmcs02.write(GUEST_IA32_PAT, kept.pat);
        } else if changed || !exit.contains(ExitControls::SAVE_IA32_PAT) {
            self.copy(vmcs02, GUEST_IA32_PAT.encoding());
        }
        if !entry.contains(EntryControls::LOAD_IA32_EFER) {
            let paging = vmcs02.read(GUEST_CR0) & Cr0::PG.bits() != 0;
            vmcs02.write(GUEST_IA32_EFER, efer_without_load(kept.efer, entry, paging));
        } else if changed || !exit.contains(ExitControls::SAVE_IA32_EFER) {
            self.copy(vmcs02, GUEST_IA32_EFER.encoding());
        }
    }

    /// One field as vmcs12 has it, unless vmcs02 has the newer value.
    #[inline(always)]
    fn copy(&self, vmcs02: &mut Vmcs02<'_, impl Access>, encoding: vmcs::Encoding) {
        let slot = Slot::known(encoding);
        if !self.stale.contains(slot) {
            vmcs02.write_raw(encoding, self.vmcs12.value(slot));
        }
    }
}

/// IA32_EFER where "load IA32_EFER" is 0: LMA follows "IA-32e mode guest", LME too if CR0.PG will be 1.
fn efer_without_load(efer: u64, entry: EntryControls, paging: bool) -> u64 {
    let mut efer = Efer::from_bits_retain(efer);
    let long = entry.contains(EntryControls::IA32E_MODE_GUEST);
    efer.set(Efer::LMA, long);
    if paging {
        efer.set(Efer::LME, long);
    }
    efer.bits()
}

/// A signed number of ticks times a multiplier in units of 2^-48.
fn scale(ticks: u64, multiplier: u64) -> u64 {
    let product = i128::from(ticks.cast_signed()) * i128::from(multiplier);
    #[expect(clippy::cast_possible_truncation, reason = "the TSC wraps at 64 bits")]
    let scaled = (product >> 48) as u64;
    scaled
}

#[cfg(test)]
mod tests {
    use super::scale;

    /// The offset keeps its sign, and a multiplier of one changes nothing.
    #[test]
    fn offsets_scale_with_their_sign() {
        let minus = |ticks: u64| 0u64.wrapping_sub(ticks);
        for (ticks, multiplier, scaled) in [
            (1000, 1 << 48, 1000),
            (minus(1000), 1 << 48, minus(1000)),
            (1000, 1 << 47, 500),
            (minus(1000), 3 << 47, minus(1500)),
            (u64::MAX >> 1, 1 << 47, u64::MAX >> 2),
        ] {
            assert_eq!(scale(ticks, multiplier), scaled, "{ticks} times {multiplier:#x}");
        }
    }
}
