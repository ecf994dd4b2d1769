//! VMXON, VMXOFF, VMCLEAR, VMPTRLD, VMPTRST.
//!
//! SDM 3C 31.3 "VMX Instructions", each under its name. That the instruction may be executed at all (mode, privilege) was
//! seen before: [`crate::instruction`].

use arch::{GuestMemory, GuestPhys, PAGE_SIZE};
use vmcs::InstructionError;

use crate::outcome::Outcome;
use crate::seam::{L1Memory, Processor};
use crate::state::{Nested, Operation};
use crate::vmcs12::{self, REVISION, SHADOW, Vmcs12};

impl Nested {
    /// VMXON with the pointer that its operand holds. Everything that makes it fault was checked.
    pub fn vmxon<P: Processor>(&mut self, cpu: &mut P, memory: &impl GuestMemory, pointer: u64) -> Outcome {
        if self.in_vmx_operation() {
            return self.fail(InstructionError::VMXON_IN_VMX_ROOT);
        }
        if !self.is_region_pointer(pointer) || memory.read_u32(GuestPhys(pointer)) != Ok(REVISION) {
            return Outcome::FailInvalid;
        }
        self.operation = Operation::Root;
        self.vmxon_region = GuestPhys(pointer);
        self.current = None;
        self.allow_shadow_access(cpu);
        Outcome::Succeed
    }

    /// VMXOFF. The cached VMCS goes back to memory, where a later VMPTRLD finds it.
    pub fn vmxoff<P: Processor>(&mut self, cpu: &mut P, memory: &impl L1Memory) -> Outcome {
        self.leave_current(cpu, memory);
        self.operation = Operation::Outside;
        self.forbid_shadow_access(cpu);
        Outcome::Succeed
    }

    /// VMCLEAR with the pointer that its operand holds.
    pub fn vmclear<P: Processor>(&mut self, cpu: &mut P, memory: &impl L1Memory, pointer: u64) -> Outcome {
        if !self.is_region_pointer(pointer) {
            return self.fail(InstructionError::VMCLEAR_INVALID_ADDRESS);
        }
        let region = GuestPhys(pointer);
        if region == self.vmxon_region {
            return self.fail(InstructionError::VMCLEAR_VMXON_POINTER);
        }
        if self.current == Some(region) {
            self.leave_current(cpu, memory);
        }
        vmcs12::clear_in_memory(memory, region);
        Outcome::Succeed
    }

    /// VMPTRLD with the pointer that its operand holds.
    pub fn vmptrld<P: Processor>(&mut self, cpu: &mut P, memory: &impl L1Memory, pointer: u64) -> Outcome {
        if !self.is_region_pointer(pointer) {
            return self.fail(InstructionError::VMPTRLD_INVALID_ADDRESS);
        }
        let region = GuestPhys(pointer);
        if region == self.vmxon_region {
            return self.fail(InstructionError::VMPTRLD_VMXON_POINTER);
        }
        // All ones where there is no memory: the wrong revision.
        let first = memory.read_u32(region).unwrap_or(u32::MAX);
        let is_shadow = first & SHADOW != 0;
        let may_be_shadow = self.capabilities.secondary.supports(vmcs::controls::SecondaryBased::VMCS_SHADOWING);
        if first & !SHADOW != REVISION || is_shadow && !may_be_shadow {
            return self.fail(InstructionError::VMPTRLD_WRONG_REVISION);
        }
        if self.current == Some(region) {
            return Outcome::Succeed;
        }
        self.leave_current(cpu, memory);
        let Some(vmcs12) = Vmcs12::load(memory, region) else {
            // The page began with the revision a moment ago, and L1's RAM does not go away.
            return self.fail(InstructionError::VMPTRLD_WRONG_REVISION);
        };
        self.vmcs12 = vmcs12;
        self.current = Some(region);
        self.is_shadow = is_shadow;
        self.is_merged = false;
        self.is_checked = false;
        self.show_shadow(cpu);
        Outcome::Succeed
    }

    /// The value that VMPTRST stores.
    pub fn vmptrst(&self) -> u64 {
        self.current.map_or(u64::MAX, GuestPhys::get)
    }

    /// The failure of an instruction: with an error number where there is a current VMCS to hold it.
    pub fn fail(&mut self, error: InstructionError) -> Outcome {
        if self.current.is_none() {
            return Outcome::FailInvalid;
        }
        vmcs::Access::write(&mut self.vmcs12, vmcs::fields::VM_INSTRUCTION_ERROR, error.0);
        Outcome::FailValid(error)
    }

    /// Whether a pointer to a VMXON or VMCS region is aligned and within the physical-address width.
    pub(crate) fn is_region_pointer(&self, pointer: u64) -> bool {
        pointer.is_multiple_of(PAGE_SIZE) && pointer >> self.base.physical_address_bits == 0
    }

    /// There is no current VMCS any more: what is cached of it, here and in vmcs02, goes back to L1's memory.
    pub(crate) fn leave_current<P: Processor>(&mut self, cpu: &mut P, memory: &impl L1Memory) {
        let Some(region) = self.current else { return };
        self.take_shadow(cpu);
        self.read_back(cpu);
        self.vmcs12.store(memory, region);
        self.current = None;
        self.is_merged = false;
        self.hide_shadow(cpu);
    }
}
