//! What the processors do once the machine is up.

use hw::halt;

use crate::machine::{self, Machine};
use crate::{console, end};

/// The boot processor, with everything up.
pub(crate) fn boot_processor(machine: &Machine) -> ! {
    defmt::info!("{=u32} processors are in VMX root operation", machine.processors);
    end::refuse(format_args!("no guest was given"))
}

/// Where every other processor begins.
pub(crate) fn processor_main() -> ! {
    // SAFETY: once on this processor, whose VMXON region was given before it was started.
    let _ = unsafe { machine::this_processor() };
    defmt::debug!("processor {=u32} is up", hw::percpu::number());
    while !end::is_ending() {
        console::pump();
        halt::wait();
    }
    halt::forever()
}
