//! SDM 3C 25.8 "VM-Entry Control Fields".

fields! { Entry, ENTRY;
    VM_ENTRY_CONTROLS: W32 = 0x4012, "VM-entry controls ([`crate::controls::EntryControls`]).";
    VM_ENTRY_MSR_LOAD_COUNT: W32 = 0x4014, "How many MSRs a VM entry loads.";
    VM_ENTRY_MSR_LOAD_ADDR: W64 = 0x200a, "Physical address of the list of MSRs that a VM entry loads.";
    VM_ENTRY_INTERRUPTION_INFO: W32 = 0x4016, "The event that the entry injects ([`crate::EventInfo`]).";
    VM_ENTRY_EXCEPTION_ERROR_CODE: W32 = 0x4018, "Its error code, if it delivers one.";
    VM_ENTRY_INSTRUCTION_LEN: W32 = 0x401a, "Bytes of the instruction that an injected software event stands for.";
}
