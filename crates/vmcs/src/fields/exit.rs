//! SDM 3C 25.7 "VM-Exit Control Fields".

use crate::controls::ExitControls as Exit;
use crate::field::Needs;

fields! { Exit, EXIT;
    VM_EXIT_CONTROLS: W32 = 0x400c, "Primary VM-exit controls ([`crate::controls::ExitControls`]).";
    SECONDARY_VM_EXIT_CONTROLS: W64 = 0x2044, "Secondary VM-exit controls ([`crate::controls::SecondaryExitControls`])." if [Needs::Exit(Exit::ACTIVATE_SECONDARY_CONTROLS)];
    VM_EXIT_MSR_STORE_COUNT: W32 = 0x400e, "How many MSRs a VM exit stores.";
    VM_EXIT_MSR_STORE_ADDR: W64 = 0x2006, "Physical address of the list of MSRs that a VM exit stores.";
    VM_EXIT_MSR_LOAD_COUNT: W32 = 0x4010, "How many MSRs a VM exit loads.";
    VM_EXIT_MSR_LOAD_ADDR: W64 = 0x2008, "Physical address of the list of MSRs that a VM exit loads.";
}
