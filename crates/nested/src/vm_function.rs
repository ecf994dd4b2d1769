//! VMFUNC by L2: L0 switches the EPT in L1's name.
//!
//! SDM 3C 26.5.6 "VM Functions". vmcs02 enables VM functions and allows none, so each VMFUNC exits.

use arch::{GuestMemory, GuestPhys};
use vmcs::Access;
use vmcs::fields::{EPT_POINTER, EPTP_LIST_ADDRESS, VM_FUNCTION_CONTROL};

use crate::seam::Processor;
use crate::state::Nested;

/// Entries in the list of EPTPs.
const LIST: u32 = 512;

impl Nested {
    /// VMFUNC of L2 with these values of EAX and ECX; vmcs02 is current. True when the function was executed, so that L2 goes
    /// on behind it; false when L1 gets the exit.
    pub fn vm_function<P: Processor>(&mut self, cpu: &mut P, memory: &impl GuestMemory, eax: u32, ecx: u32) -> bool {
        if eax != 0 || self.vmcs12.read(VM_FUNCTION_CONTROL) & 1 == 0 || ecx >= LIST {
            return false;
        }
        let entry = GuestPhys(self.vmcs12.read(EPTP_LIST_ADDRESS)).add(8 * u64::from(ecx));
        let eptp = memory.read_u64(entry).unwrap_or(u64::MAX);
        if !self.is_valid_eptp(eptp) {
            return false;
        }
        self.vmcs12.write(EPT_POINTER, eptp);
        self.set_ept12();
        self.select_ept(cpu);
        true
    }
}
