//! Whether L1 may execute a VMX instruction at all: the faults that come before the operand is looked at.
//!
//! The processor itself raises #UD in real mode, virtual-8086 mode and compatibility mode before the instruction exits; what
//! it does not know is whether L1 is in VMX operation. SDM 3C 31.3 "VMX Instructions", the first lines of each operation.

use arch::Fault;
use arch::control::{Cr0, Cr4};

use crate::state::{Nested, Operation};

/// What of L1's state decides about VMXON.
#[derive(Clone, Copy, Debug)]
pub struct Permission {
    /// CR0 as L1 sees it.
    pub cr0: u64,
    /// CR4 as L1 sees it.
    pub cr4: u64,
    /// Current privilege level, 0 to 3.
    pub cpl: u32,
}

impl Nested {
    /// VMXON: #UD without CR4.VMXE; #GP(0) above privilege level 0, and outside VMX operation with a CR0 or CR4 that VMX
    /// operation does not take. IA32_FEATURE_CONTROL of L1 is locked with VMX on.
    ///
    /// # Errors
    /// The fault that L1 gets.
    pub fn may_vmxon(&self, permission: Permission) -> Result<(), Fault> {
        if permission.cr4 & Cr4::VMXE.bits() == 0 {
            return Err(Fault::Ud);
        }
        if permission.cpl != 0 {
            return Err(Fault::Gp(0));
        }
        let fits = self.capabilities.cr0.permits(permission.cr0 & Cr0::all().bits())
            && self.capabilities.cr4.permits(permission.cr4);
        if self.operation == Operation::Outside && !fits { Err(Fault::Gp(0)) } else { Ok(()) }
    }

    /// All other VMX instructions: #UD outside VMX operation, #GP(0) above privilege level 0.
    ///
    /// # Errors
    /// The fault that L1 gets.
    #[inline(always)]
    pub fn may_execute(&self, cpl: u32) -> Result<(), Fault> {
        if self.operation == Operation::Outside {
            Err(Fault::Ud)
        } else if cpl != 0 {
            Err(Fault::Gp(0))
        } else {
            Ok(())
        }
    }

    /// Whether VMREAD and VMWRITE have a VMCS to act on.
    #[inline(always)]
    pub fn has_current(&self) -> bool {
        self.current.is_some()
    }
}
