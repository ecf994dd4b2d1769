//! From vmcs02 back to vmcs12: what the processor saved at the exit from L2.
//!
//! Most of L2's state is the processor's alone until L1 asks for it, so it stays in vmcs02 and is read when it is asked for,
//! all of it at once: who reads one segment reads the others.

use vmcs::controls::{ExitControls, SecondaryBased};
use vmcs::fields::*;
use vmcs::{Access, Encoding};

use crate::current::Vmcs02;
use crate::merge::CR0_KEPT;
use crate::seam::{Processor, Which};
use crate::slots::{Slot, SlotSet};
use crate::state::Nested;

impl Nested {
    /// Reads the fields that are newer in vmcs02. The same VMCS is current before and after.
    #[cold]
    pub(crate) fn read_back<P: Processor>(&mut self, cpu: &mut P) {
        if self.stale.is_empty() {
            return;
        }
        if self.in_l2() {
            self.read_from(&Vmcs02::assume(cpu.vmcs()));
        } else {
            cpu.make_current(Which::Vmcs02);
            self.read_from(&Vmcs02::assume(cpu.vmcs()));
            cpu.make_current(Which::Vmcs01);
        }
    }

    #[inline(never)]
    pub(crate) fn read_from(&mut self, vmcs02: &Vmcs02<'_, impl Access>) {
        let stale = core::mem::replace(&mut self.stale, SlotSet::EMPTY);
        stale.for_each(|slot| {
            let value = self.stale_value(vmcs02, slot.info().encoding);
            self.vmcs12.set_value(slot, value);
        });
    }

    /// One of the fields that are newer in vmcs02.
    pub(crate) fn stale_value(&self, vmcs02: &impl Access, encoding: Encoding) -> u64 {
        if encoding == GUEST_CR0.encoding() {
            self.cr0_of_l2(vmcs02)
        } else if encoding == GUEST_CR4.encoding() {
            self.cr4_of_l2(vmcs02)
        } else {
            vmcs02.read_raw(encoding)
        }
    }

    /// The fields that an exit from L2 changes and that are not read at once: what the processor saves by vmcs12's controls
    /// (SDM 3C 28.3 "Saving Guest State").
    pub(crate) fn saved_fields(&self) -> SlotSet {
        let exit = ExitControls::from_bits_retain(self.vmcs12.read(VM_EXIT_CONTROLS));
        let mut kept = SlotSet::EMPTY;
        let mut keep = |fields: &[Encoding]| fields.iter().for_each(|&field| kept.insert(Slot::known(field)));
        if !exit.contains(ExitControls::SAVE_DEBUG_CONTROLS) {
            keep(&[GUEST_DR7.encoding(), GUEST_IA32_DEBUGCTL.encoding()]);
        }
        if !exit.contains(ExitControls::SAVE_IA32_PAT) {
            keep(&[GUEST_IA32_PAT.encoding()]);
        }
        if !exit.contains(ExitControls::SAVE_IA32_EFER) {
            keep(&[GUEST_IA32_EFER.encoding()]);
        }
        let secondary = self.secondary12();
        if !secondary.contains(SecondaryBased::ENABLE_EPT) {
            keep(&[GUEST_PDPTE0, GUEST_PDPTE1, GUEST_PDPTE2, GUEST_PDPTE3].map(|field| field.encoding()));
        }
        if !secondary.contains(SecondaryBased::VIRTUAL_INTERRUPT_DELIVERY) {
            keep(&[GUEST_INTERRUPT_STATUS.encoding()]);
        }
        self.uses.cold.without(&kept)
    }

    /// CR0 as L2's VMCS must show it: bits that L2 owns as the processor has them, bits that only L0 owns as L2 believes them
    /// to be, bits that L1 owns as L1 left them, since L2 cannot change them: CD and NW in its own CR0.
    pub(crate) fn cr0_of_l2(&self, vmcs02: &impl Access) -> u64 {
        let (l0, l1) = (self.base.cr0_owned, self.vmcs12.read(CR0_GUEST_HOST_MASK));
        let l0_only = l0 & !l1;
        let both = l0 & l1 & !CR0_KEPT;
        vmcs02.read(GUEST_CR0) & !l0
            | vmcs02.read(CR0_READ_SHADOW) & l0_only
            | self.vmcs12.read(GUEST_CR0) & both
            | self.at_exit.cr0_kept & l1
    }

    /// The same for CR4.
    pub(crate) fn cr4_of_l2(&self, vmcs02: &impl Access) -> u64 {
        let (l0, l1) = (self.base.cr4_owned, self.vmcs12.read(CR4_GUEST_HOST_MASK));
        let l0_only = l0 & !l1;
        let both = l0 & l1;
        vmcs02.read(GUEST_CR4) & !l0 | vmcs02.read(CR4_READ_SHADOW) & l0_only | self.vmcs12.read(GUEST_CR4) & both
    }

    /// The secondary controls of vmcs12, if they are activated.
    #[inline(always)]
    pub(crate) fn secondary12(&self) -> SecondaryBased {
        let primary = vmcs::controls::PrimaryBased::from_bits_retain(self.vmcs12.read(CPU_BASED_VM_EXEC_CONTROL));
        if primary.contains(vmcs::controls::PrimaryBased::ACTIVATE_SECONDARY_CONTROLS) {
            SecondaryBased::from_bits_retain(self.vmcs12.read(SECONDARY_VM_EXEC_CONTROL))
        } else {
            SecondaryBased::empty()
        }
    }
}
