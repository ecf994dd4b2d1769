//! SDM 3C 27.2.1.2 "VM-Exit Control Fields" and the part of 27.2.1.3 "VM-Entry Control Fields" that is not about
//! injection.

pub(super) mod exit {
    use crate::controls::{ExitControls, PinBased};
    use crate::fields::*;

    rules! { "", "27.2.1.2", "VM-Exit Control Fields", CONTROLS, |s|
        EXIT_RESERVED [VM_EXIT_CONTROLS]
            "reserved bits of the primary VM-exit controls must have the values that the capability MSR allows"
            => s.exit.is_permitted();
        SECONDARY_EXIT_RESERVED [SECONDARY_VM_EXIT_CONTROLS]
            "with \"activate secondary controls\", reserved bits of the secondary VM-exit controls must be 0"
            => s.secondary_exit.is_permitted();
        SAVE_TIMER_NEEDS_TIMER [PIN_BASED_VM_EXEC_CONTROL, VM_EXIT_CONTROLS]
            "\"save VMX-preemption timer value\" needs \"activate VMX-preemption timer\""
            => !s.exit.has(ExitControls::SAVE_PREEMPTION_TIMER_VALUE)
                || s.pin.has(PinBased::ACTIVATE_PREEMPTION_TIMER);
        EXIT_MSR_STORE_LIST [VM_EXIT_MSR_STORE_ADDR, VM_EXIT_MSR_STORE_COUNT]
            "the VM-exit MSR-store address must be a multiple of 16 within the physical-address width, if the count is not 0"
            => s.is_msr_list(VM_EXIT_MSR_STORE_COUNT, VM_EXIT_MSR_STORE_ADDR);
        EXIT_MSR_STORE_LIST_END [VM_EXIT_MSR_STORE_ADDR, VM_EXIT_MSR_STORE_COUNT]
            "the last byte of the VM-exit MSR-store area must be within the physical-address width"
            => s.is_msr_list_end(VM_EXIT_MSR_STORE_COUNT, VM_EXIT_MSR_STORE_ADDR);
        EXIT_MSR_LOAD_LIST [VM_EXIT_MSR_LOAD_ADDR, VM_EXIT_MSR_LOAD_COUNT]
            "the VM-exit MSR-load address must be a multiple of 16 within the physical-address width, if the count is not 0"
            => s.is_msr_list(VM_EXIT_MSR_LOAD_COUNT, VM_EXIT_MSR_LOAD_ADDR);
        EXIT_MSR_LOAD_LIST_END [VM_EXIT_MSR_LOAD_ADDR, VM_EXIT_MSR_LOAD_COUNT]
            "the last byte of the VM-exit MSR-load area must be within the physical-address width"
            => s.is_msr_list_end(VM_EXIT_MSR_LOAD_COUNT, VM_EXIT_MSR_LOAD_ADDR);
    }
}

pub(super) mod entry {
    use crate::controls::EntryControls;
    use crate::fields::*;

    rules! { "", "27.2.1.3", "VM-Entry Control Fields", CONTROLS, |s|
        ENTRY_RESERVED [VM_ENTRY_CONTROLS]
            "reserved bits of the VM-entry controls must have the values that the capability MSR allows"
            => s.entry.is_permitted();
        ENTRY_MSR_LOAD_LIST [VM_ENTRY_MSR_LOAD_ADDR, VM_ENTRY_MSR_LOAD_COUNT]
            "the VM-entry MSR-load address must be a multiple of 16 within the physical-address width, if the count is not 0"
            => s.is_msr_list(VM_ENTRY_MSR_LOAD_COUNT, VM_ENTRY_MSR_LOAD_ADDR);
        ENTRY_MSR_LOAD_LIST_END [VM_ENTRY_MSR_LOAD_ADDR, VM_ENTRY_MSR_LOAD_COUNT]
            "the last byte of the VM-entry MSR-load area must be within the physical-address width"
            => s.is_msr_list_end(VM_ENTRY_MSR_LOAD_COUNT, VM_ENTRY_MSR_LOAD_ADDR);
        NOT_IN_SMM [VM_ENTRY_CONTROLS]
            "outside SMM, \"entry to SMM\" and \"deactivate dual-monitor treatment\" must be 0"
            => !s.entry.has(EntryControls::ENTRY_TO_SMM)
                && !s.entry.has(EntryControls::DEACTIVATE_DUAL_MONITOR_TREATMENT);
        LOAD_RTIT_CTL_WHILE_TRACING [VM_ENTRY_CONTROLS]
            "\"load IA32_RTIT_CTL\" must be 0 while IA32_RTIT_CTL.TraceEn is 1"
            => !s.environment.is_tracing || !s.entry.has(EntryControls::LOAD_IA32_RTIT_CTL);
    }
}
