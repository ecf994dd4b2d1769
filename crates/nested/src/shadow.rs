//! VMCS shadowing: L1 reads and writes the fields that it uses at every exit without an exit of its own.
//!
//! The shadow VMCS has the processor's format and holds copies of some fields of vmcs12. Copies go in when L1 is about to
//! run, and come out when it enters L2 or leaves the VMCS. SDM 3C 25.10 "VMCS Types: Ordinary and Shadow".
//!
//! A pair of bitmaps for all vCPUs says which fields do not exit ([`fill_bitmaps`]).

use vmcs::controls::SecondaryBased;
use vmcs::fields::*;
use vmcs::{Access, Encoding};

use crate::current::Vmcs01;
use crate::seam::{Processor, Which};
use crate::slots::Slot;
use crate::state::Nested;

/// Exit information: L1 reads it without an exit; its writes, which hardly anybody makes, exit.
pub(crate) const READ: [Encoding; 9] = [
    EXIT_REASON.encoding(),
    EXIT_QUALIFICATION.encoding(),
    GUEST_LINEAR_ADDRESS.encoding(),
    VM_EXIT_INTERRUPTION_INFO.encoding(),
    VM_EXIT_INTERRUPTION_ERROR_CODE.encoding(),
    IDT_VECTORING_INFO.encoding(),
    IDT_VECTORING_ERROR_CODE.encoding(),
    VM_EXIT_INSTRUCTION_LEN.encoding(),
    VM_EXIT_INSTRUCTION_INFO.encoding(),
];

/// The same, where EPT exists.
const READ_WITH_EPT: Encoding = GUEST_PHYSICAL_ADDRESS.encoding();

/// What L1 reads and writes without an exit.
pub(crate) const READ_WRITE: [Encoding; 9] = [
    GUEST_RIP.encoding(),
    GUEST_RSP.encoding(),
    GUEST_RFLAGS.encoding(),
    GUEST_INTERRUPTIBILITY_INFO.encoding(),
    VM_ENTRY_INTERRUPTION_INFO.encoding(),
    VM_ENTRY_EXCEPTION_ERROR_CODE.encoding(),
    VM_ENTRY_INSTRUCTION_LEN.encoding(),
    CPU_BASED_VM_EXEC_CONTROL.encoding(),
    HOST_RSP.encoding(),
];

/// Fills the VMREAD and the VMWRITE bitmap (SDM 3C 25.6.15 "VMCS Shadowing Bitmap Addresses"): a set bit exits.
pub fn fill_bitmaps(vmread: &mut [u8; 4096], vmwrite: &mut [u8; 4096]) {
    vmread.fill(0xff);
    vmwrite.fill(0xff);
    let pass = |page: &mut [u8; 4096], encoding: Encoding| page[(encoding.0 / 8) as usize] &= !(1 << (encoding.0 % 8));
    for encoding in READ.into_iter().chain([READ_WITH_EPT]) {
        pass(vmread, encoding);
    }
    for encoding in READ_WRITE {
        pass(vmread, encoding);
        pass(vmwrite, encoding);
    }
}

impl Nested {
    /// L1 entered VMX operation: its VMREAD and VMWRITE of the fields above no longer exit. While there is no current VMCS the
    /// link pointer names none, and they fail as on the machine (VMfailInvalid).
    pub(crate) fn allow_shadow_access<P: Processor>(&mut self, cpu: &mut P) {
        self.set_shadowing(cpu, true);
    }

    /// L1 left VMX operation: VMREAD and VMWRITE exit again, to get #UD.
    pub(crate) fn forbid_shadow_access<P: Processor>(&mut self, cpu: &mut P) {
        self.set_shadowing(cpu, false);
    }

    fn set_shadowing<P: Processor>(&self, cpu: &mut P, on: bool) {
        if self.pages.shadow_vmcs.is_some() {
            let mut vmcs01 = Vmcs01::assume(cpu.vmcs());
            let mut controls = self.base.secondary;
            controls.set(SecondaryBased::VMCS_SHADOWING, on);
            vmcs01.write(SECONDARY_VM_EXEC_CONTROL, controls.bits());
            vmcs01.write(VMCS_LINK_POINTER, u64::MAX);
        }
    }

    /// There is a current VMCS: the shadow VMCS gets its values. vmcs01 is current before and after.
    pub(crate) fn show_shadow<P: Processor>(&mut self, cpu: &mut P) {
        let Some(region) = self.pages.shadow_vmcs else { return };
        cpu.make_current(Which::Shadow);
        self.fill_shadow(cpu.vmcs());
        cpu.make_current(Which::Vmcs01);
        Vmcs01::assume(cpu.vmcs()).write(VMCS_LINK_POINTER, region.get());
    }

    /// There is no current VMCS any more.
    pub(crate) fn hide_shadow<P: Processor>(&self, cpu: &mut P) {
        if self.pages.shadow_vmcs.is_some() {
            Vmcs01::assume(cpu.vmcs()).write(VMCS_LINK_POINTER, u64::MAX);
        }
    }

    /// Writes the copies; the shadow VMCS is current.
    #[inline(always)]
    pub(crate) fn fill_shadow(&self, shadow: &mut impl Access) {
        for encoding in READ.into_iter().chain(READ_WRITE) {
            shadow.write_raw(encoding, self.vmcs12.value(Slot::known(encoding)));
        }
        if self.capabilities.secondary.supports(SecondaryBased::ENABLE_EPT) {
            shadow.write_raw(READ_WITH_EPT, self.vmcs12.value(Slot::known(READ_WITH_EPT)));
        }
    }

    /// Takes over what L1 has written into the shadow VMCS. vmcs01 is current before and after.
    #[inline]
    pub(crate) fn take_shadow<P: Processor>(&mut self, cpu: &mut P) {
        if self.pages.shadow_vmcs.is_none() || self.current.is_none() {
            return;
        }
        cpu.make_current(Which::Shadow);
        self.read_shadow(cpu.vmcs());
        cpu.make_current(Which::Vmcs01);
    }

    /// The same, while the shadow VMCS is current.
    #[inline(always)]
    pub(crate) fn read_shadow(&mut self, shadow: &impl Access) {
        for encoding in READ_WRITE {
            let slot = Slot::known(encoding);
            let value = shadow.read_raw(encoding);
            if value != self.vmcs12.value(slot) {
                self.vmcs12.set_value(slot, value);
                self.vmcs12.dirty.insert(slot);
            }
        }
    }

    /// A field that has a copy in the shadow VMCS was changed by VMWRITE with an exit, or by L0, while L1 runs.
    pub(crate) fn update_shadow<P: Processor>(&mut self, cpu: &mut P, slot: Slot) {
        let encoding = slot.info().encoding;
        let has_copy = READ.contains(&encoding) || encoding == READ_WITH_EPT || READ_WRITE.contains(&encoding);
        if self.pages.shadow_vmcs.is_some() && has_copy {
            let value = self.vmcs12.value(slot);
            cpu.make_current(Which::Shadow);
            cpu.vmcs().write_raw(encoding, value);
            cpu.make_current(Which::Vmcs01);
        }
    }
}
