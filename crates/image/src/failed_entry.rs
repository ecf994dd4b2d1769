//! Why a VM entry failed: hardware says "error 7" or "exit 33"; the rules of the manual say which bullet it was.

use hw::vmx::{self, CurrentVmcs};
use hw::{cpuid, percpu};
use vmcs::checks::{Environment, PhysicalMemory, for_each_broken};
use vmcs::fields::{EXIT_QUALIFICATION, EXIT_REASON};
use vmcs::{Access as _, InstructionError};

use crate::dump;

/// Logs which rules the current VMCS breaks, and all of its fields.
pub(crate) fn explain() {
    let (Some(region), Ok(capabilities)) = (percpu::current_vmcs(), vmx::check()) else { return };
    // SAFETY: there is a current VMCS, and whoever worked on it has given it back.
    let vmcs = unsafe { CurrentVmcs::assume() };
    let error = vmx::instruction_error().map_or("none", InstructionError::text);
    defmt::error!(
        "VM entry failed: instruction error: {=str}; exit reason {=u32:#x}, qualification {=u64:#x}",
        error,
        vmcs.read(EXIT_REASON),
        vmcs.read(EXIT_QUALIFICATION)
    );
    // At most 52 bits.
    let bits = u8::try_from(cpuid::physical_address_bits()).unwrap_or(52);
    let environment = Environment::new(&capabilities, bits, region.get(), &NoMemory);
    let mut broken = 0_u32;
    for_each_broken(&vmcs, &environment, |rule| {
        broken += 1;
        defmt::error!("broken rule: {}", rule);
    });
    if broken == 0 {
        defmt::error!("no rule of the manual is broken: the processor has a reason that the checks do not know");
    }
    dump::current_vmcs();
}

/// The memory that an entry looks at by addresses in the VMCS: L0's VMCSs have no shadow VMCS and no virtual-APIC page.
struct NoMemory;

impl PhysicalMemory for NoMemory {
    fn read_u64(&self, _: u64) -> u64 {
        u64::MAX
    }
}
