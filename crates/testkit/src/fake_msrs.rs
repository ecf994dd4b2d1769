//! L1's model-specific registers.

use std::collections::BTreeMap;

use arch::Msr;
use nested::{Msrs, NoSuchMsr, Processor};
use vmcs::Access;
use vmcs::fields::*;

/// MSRs in a map; what a test has not put there does not exist. IA32_PAT, IA32_EFER and IA32_SYSENTER_EIP are those of the
/// current VMCS.
#[derive(Clone, Debug, Default)]
pub struct FakeMsrs {
    /// The registers.
    pub values: BTreeMap<u32, u64>,
}

impl<P: Processor> Msrs<P> for FakeMsrs {
    fn load(&mut self, cpu: &mut P, msr: Msr) -> Result<u64, NoSuchMsr> {
        match msr {
            Msr::PAT => Ok(cpu.vmcs().read(GUEST_IA32_PAT)),
            Msr::EFER => Ok(cpu.vmcs().read(GUEST_IA32_EFER)),
            Msr::SYSENTER_EIP => Ok(cpu.vmcs().read(GUEST_SYSENTER_EIP)),
            _ => self.values.get(&msr.0).copied().ok_or(NoSuchMsr),
        }
    }

    fn store(&mut self, cpu: &mut P, msr: Msr, value: u64) -> Result<(), NoSuchMsr> {
        match msr {
            Msr::PAT => cpu.vmcs().write(GUEST_IA32_PAT, value),
            Msr::EFER => cpu.vmcs().write(GUEST_IA32_EFER, value),
            Msr::SYSENTER_EIP => cpu.vmcs().write(GUEST_SYSENTER_EIP, value),
            _ => *self.values.get_mut(&msr.0).ok_or(NoSuchMsr)? = value,
        }
        Ok(())
    }
}
