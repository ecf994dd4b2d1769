//! SDM 3C 25.9 "VM-Exit Information Fields". Read-only.

use crate::controls::SecondaryBased as Secondary;
use crate::field::Needs;

fields! { ExitInformation, EXIT_INFORMATION;
    EXIT_REASON: W32 = 0x4402, "Why the guest stopped ([`crate::ExitReason`]).";
    EXIT_QUALIFICATION: Natural = 0x6400, "What else there is to know, by exit reason.";
    GUEST_LINEAR_ADDRESS: Natural = 0x640a, "The linear address of the access that exited.";
    GUEST_PHYSICAL_ADDRESS: W64 = 0x2400, "The guest-physical address of an EPT violation or misconfiguration." if [Needs::Secondary(Secondary::ENABLE_EPT)];
    VM_EXIT_INTERRUPTION_INFO: W32 = 0x4404, "The exception, NMI or interrupt that exited ([`crate::EventInfo`]).";
    VM_EXIT_INTERRUPTION_ERROR_CODE: W32 = 0x4406, "Its error code.";
    IDT_VECTORING_INFO: W32 = 0x4408, "The event that was being delivered when the guest exited ([`crate::EventInfo`]).";
    IDT_VECTORING_ERROR_CODE: W32 = 0x440a, "Its error code.";
    VM_EXIT_INSTRUCTION_LEN: W32 = 0x440c, "Bytes of the instruction that exited.";
    VM_EXIT_INSTRUCTION_INFO: W32 = 0x440e, "Operands of the instruction that exited ([`crate::InstructionInfo`]).";
    IO_RCX: Natural = 0x6402, "RCX before an I/O instruction that was interrupted by an SMI.";
    IO_RSI: Natural = 0x6404, "RSI before an I/O instruction that was interrupted by an SMI.";
    IO_RDI: Natural = 0x6406, "RDI before an I/O instruction that was interrupted by an SMI.";
    IO_RIP: Natural = 0x6408, "RIP before an I/O instruction that was interrupted by an SMI.";
    VM_INSTRUCTION_ERROR: W32 = 0x4400, "Why the last VMX instruction failed ([`crate::InstructionError`]).";
}
