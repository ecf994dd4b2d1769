//! VMREAD and VMWRITE by L1, and by L2 on a shadow VMCS of L1's.
//!
//! SDM 3C 31.3 "VMREAD—Read Field from Virtual-Machine Control Structure" and "VMWRITE—Write Field to Virtual-Machine Control
//! Structure".

use arch::GuestMemory;
use arch::GuestPhys;
use vmcs::field::Area;
use vmcs::fields::VMCS_LINK_POINTER;
use vmcs::{Access, Encoding, InstructionError};

use crate::field_use::{Merge, Topic};
use crate::outcome::Outcome;
use crate::seam::Processor;
use crate::slots::Slot;
use crate::state::Nested;
use crate::vmcs12;

impl Nested {
    /// VMREAD, where it takes no more than looking: of a whole field that exists and is not newer in vmcs02.
    #[inline(always)]
    pub fn vmread_at_hand(&self, encoding: u64) -> Option<u64> {
        let slot = self.uses.lookup.full(encoding)?;
        if self.stale.contains(slot) { None } else { Some(self.vmcs12.value(slot)) }
    }

    /// VMREAD of the field with this encoding, in VMX root operation and with a current VMCS.
    ///
    /// # Errors
    /// How the instruction fails.
    pub fn vmread<P: Processor>(&mut self, cpu: &mut P, encoding: u64) -> Result<u64, Outcome> {
        let (slot, encoding) = self.field(encoding)?;
        if self.stale.contains(slot) {
            self.read_back(cpu);
        }
        Ok(self.vmcs12.vmread(slot, encoding))
    }

    /// VMWRITE of the field with this encoding, in VMX root operation and with a current VMCS.
    #[inline(always)]
    pub fn vmwrite<P: Processor>(&mut self, cpu: &mut P, encoding: u64, value: u64) -> Outcome {
        let Some(slot) = self.uses.plain.full(encoding) else {
            return self.vmwrite_slowly(cpu, encoding, value);
        };
        self.stale.remove(slot);
        self.vmcs12.dirty.insert(slot);
        self.vmcs12.set_value(slot, value & self.uses.masks[slot.index()]);
        Outcome::Succeed
    }

    /// The same of a field that takes more, of half a field, or of none.
    #[inline(never)]
    fn vmwrite_slowly<P: Processor>(&mut self, cpu: &mut P, encoding: u64, value: u64) -> Outcome {
        let (slot, encoding) = match self.writable_field(encoding) {
            Ok(field) => field,
            Err(outcome) => return outcome,
        };
        // What the processor saved was saved under the old masks of CR0 and CR4, and halves of a field belong together.
        if encoding.is_high_half() || self.uses.merge(slot) == Merge::Topic(Topic::ControlRegisters) {
            self.read_back(cpu);
        }
        self.stale.remove(slot);
        self.vmcs12.vmwrite(slot, encoding, value);
        if self.uses.copied.contains(slot) {
            self.update_shadow(cpu, slot);
        }
        Outcome::Succeed
    }

    /// VMREAD by L2, which L1 lets act on the shadow VMCS that the link pointer names: the value, or how it fails. An error's number is
    /// left in the current VMCS, which is vmcs12, not in the shadow VMCS.
    pub fn vmread_by_l2(&mut self, memory: &impl GuestMemory, encoding: u64) -> Result<u64, Outcome> {
        let region = self.shadow_of_l2().ok_or(Outcome::FailInvalid)?;
        let (slot, encoding) = self.field(encoding)?;
        let value = vmcs12::read_field(memory, region, slot);
        Ok(if encoding.is_high_half() { value >> 32 } else { slot.info().encoding.truncate(value) })
    }

    /// VMWRITE by L2, likewise.
    pub fn vmwrite_by_l2(&mut self, memory: &impl GuestMemory, encoding: u64, value: u64) -> Outcome {
        let Some(region) = self.shadow_of_l2() else { return Outcome::FailInvalid };
        let (slot, encoding) = match self.writable_field(encoding) {
            Ok(field) => field,
            Err(outcome) => return outcome,
        };
        let value = if encoding.is_high_half() {
            vmcs12::read_field(memory, region, slot) & 0xffff_ffff | value << 32
        } else {
            encoding.truncate(value)
        };
        vmcs12::write_field(memory, region, slot, value);
        Outcome::Succeed
    }

    /// The shadow VMCS of L2.
    fn shadow_of_l2(&self) -> Option<GuestPhys> {
        match self.vmcs12.read(VMCS_LINK_POINTER) {
            u64::MAX => None,
            region => Some(GuestPhys(region)),
        }
    }

    #[inline(always)]
    fn field(&mut self, encoding: u64) -> Result<(Slot, Encoding), Outcome> {
        match self.find(encoding) {
            Some(field) => Ok(field),
            None => Err(self.fail(InstructionError::UNSUPPORTED_FIELD)),
        }
    }

    #[inline(always)]
    fn writable_field(&mut self, encoding: u64) -> Result<(Slot, Encoding), Outcome> {
        let field = self.field(encoding)?;
        if field.1.area() == Area::ReadOnly && !self.capabilities.misc.can_write_all_fields() {
            return Err(self.fail(InstructionError::READ_ONLY_FIELD));
        }
        Ok(field)
    }

    /// The field that a register of VMREAD or VMWRITE names, if L1's processor has it.
    #[inline(always)]
    fn find(&self, encoding: u64) -> Option<(Slot, Encoding)> {
        let encoding = Encoding(u32::try_from(encoding).ok()?);
        let slot = Slot::of(encoding)?;
        self.uses.exists.contains(slot).then_some((slot, encoding))
    }
}
