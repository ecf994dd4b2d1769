//! The current VMCS in the log: for a panic and for a failed entry.

use hw::vmx::{self, CurrentVmcs};
use hw::percpu;
use vmcs::dump::dump_existing;

use crate::console;

/// Logs every field of this processor's current VMCS, if it has one.
pub(crate) fn current_vmcs() {
    let Some(region) = percpu::current_vmcs() else { return };
    let Ok(capabilities) = vmx::check() else { return };
    // SAFETY: there is a current VMCS; whoever else worked on it does not go on.
    let vmcs = unsafe { CurrentVmcs::assume() };
    defmt::error!("the VMCS at {=u64:#x} on processor {=u32}:", region.0, percpu::number());
    let mut group = None;
    dump_existing(&vmcs, &capabilities, |field, value| {
        if group != Some(field.group) {
            group = Some(field.group);
            defmt::error!("{=str}:", field.group.name());
        }
        defmt::error!("  {=str} = {=u64:#x}", field.name, value);
        console::flush();
    });
}
