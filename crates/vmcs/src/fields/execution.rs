//! SDM 3C 25.6 "VM-Execution Control Fields".

use crate::controls::{
    PinBased as Pin, PrimaryBased as Primary, SecondaryBased as Secondary, TertiaryBased as Tertiary,
};
use crate::field::Needs;

fields! { Execution, EXECUTION;
    PIN_BASED_VM_EXEC_CONTROL: W32 = 0x4000, "Pin-based VM-execution controls ([`crate::controls::PinBased`]).";
    CPU_BASED_VM_EXEC_CONTROL: W32 = 0x4002, "Primary processor-based VM-execution controls ([`crate::controls::PrimaryBased`]).";
    SECONDARY_VM_EXEC_CONTROL: W32 = 0x401e, "Secondary processor-based VM-execution controls ([`crate::controls::SecondaryBased`])." if [Needs::Primary(Primary::ACTIVATE_SECONDARY_CONTROLS)];
    TERTIARY_VM_EXEC_CONTROL: W64 = 0x2034, "Tertiary processor-based VM-execution controls ([`crate::controls::TertiaryBased`])." if [Needs::Primary(Primary::ACTIVATE_TERTIARY_CONTROLS)];
    EXCEPTION_BITMAP: W32 = 0x4004, "One bit for each exception vector: 1 makes it exit.";
    PAGE_FAULT_ERROR_CODE_MASK: W32 = 0x4006, "Which bits of a page fault's error code count for whether it exits.";
    PAGE_FAULT_ERROR_CODE_MATCH: W32 = 0x4008, "What the masked error code is compared with.";
    IO_BITMAP_A: W64 = 0x2000, "Physical address of the bitmap for ports 0 to 0x7fff.";
    IO_BITMAP_B: W64 = 0x2002, "Physical address of the bitmap for ports 0x8000 to 0xffff.";
    TSC_OFFSET: W64 = 0x2010, "Added to the TSC that the guest reads.";
    TSC_MULTIPLIER: W64 = 0x2032, "The guest's TSC runs this many times as fast, in units of 2^-48." if [Needs::Secondary(Secondary::USE_TSC_SCALING)];
    CR0_GUEST_HOST_MASK: Natural = 0x6000, "Bits of CR0 that the host owns.";
    CR4_GUEST_HOST_MASK: Natural = 0x6002, "Bits of CR4 that the host owns.";
    CR0_READ_SHADOW: Natural = 0x6004, "What the guest reads in the bits of CR0 that the host owns.";
    CR4_READ_SHADOW: Natural = 0x6006, "What the guest reads in the bits of CR4 that the host owns.";
    CR3_TARGET_COUNT: W32 = 0x400a, "How many of the CR3-target values count.";
    CR3_TARGET_VALUE0: Natural = 0x6008, "A value that MOV to CR3 loads without exit." if [Needs::MoreCr3TargetsThan(0)];
    CR3_TARGET_VALUE1: Natural = 0x600a, "A value that MOV to CR3 loads without exit." if [Needs::MoreCr3TargetsThan(1)];
    CR3_TARGET_VALUE2: Natural = 0x600c, "A value that MOV to CR3 loads without exit." if [Needs::MoreCr3TargetsThan(2)];
    CR3_TARGET_VALUE3: Natural = 0x600e, "A value that MOV to CR3 loads without exit." if [Needs::MoreCr3TargetsThan(3)];
    APIC_ACCESS_ADDR: W64 = 0x2014, "Physical address of the APIC-access page." if [Needs::Secondary(Secondary::VIRTUALIZE_APIC_ACCESSES)];
    VIRTUAL_APIC_PAGE_ADDR: W64 = 0x2012, "Physical address of the virtual-APIC page." if [Needs::Primary(Primary::USE_TPR_SHADOW)];
    TPR_THRESHOLD: W32 = 0x401c, "VTPR falling below this makes the guest exit (bits 3:0)." if [Needs::Primary(Primary::USE_TPR_SHADOW)];
    EOI_EXIT_BITMAP0: W64 = 0x201c, "Vectors 0 to 63 whose EOI exits." if [Needs::Secondary(Secondary::VIRTUAL_INTERRUPT_DELIVERY)];
    EOI_EXIT_BITMAP1: W64 = 0x201e, "Vectors 64 to 127 whose EOI exits." if [Needs::Secondary(Secondary::VIRTUAL_INTERRUPT_DELIVERY)];
    EOI_EXIT_BITMAP2: W64 = 0x2020, "Vectors 128 to 191 whose EOI exits." if [Needs::Secondary(Secondary::VIRTUAL_INTERRUPT_DELIVERY)];
    EOI_EXIT_BITMAP3: W64 = 0x2022, "Vectors 192 to 255 whose EOI exits." if [Needs::Secondary(Secondary::VIRTUAL_INTERRUPT_DELIVERY)];
    POSTED_INTR_NV: W16 = 0x0002, "Posted-interrupt notification vector." if [Needs::Pin(Pin::PROCESS_POSTED_INTERRUPTS)];
    POSTED_INTR_DESC_ADDR: W64 = 0x2016, "Physical address of the posted-interrupt descriptor." if [Needs::Pin(Pin::PROCESS_POSTED_INTERRUPTS)];
    LAST_PID_POINTER_INDEX: W16 = 0x0008, "Index of the last entry of the PID-pointer table." if [Needs::Tertiary(Tertiary::IPI_VIRTUALIZATION)];
    PID_POINTER_TABLE_ADDR: W64 = 0x2042, "Physical address of the PID-pointer table." if [Needs::Tertiary(Tertiary::IPI_VIRTUALIZATION)];
    MSR_BITMAP: W64 = 0x2004, "Physical address of the MSR bitmaps." if [Needs::Primary(Primary::USE_MSR_BITMAPS)];
    EXECUTIVE_VMCS_POINTER: W64 = 0x200c, "Used by the dual-monitor treatment of SMM only.";
    EPT_POINTER: W64 = 0x201a, "EPTP: where the EPT structures are, and their memory type and depth." if [Needs::Secondary(Secondary::ENABLE_EPT)];
    VIRTUAL_PROCESSOR_ID: W16 = 0x0000, "VPID: tags the guest's cached translations." if [Needs::Secondary(Secondary::ENABLE_VPID)];
    PLE_GAP: W32 = 0x4020, "Most TSC ticks between two PAUSEs of one loop." if [Needs::Secondary(Secondary::PAUSE_LOOP_EXITING)];
    PLE_WINDOW: W32 = 0x4022, "Most TSC ticks that a loop of PAUSEs may take." if [Needs::Secondary(Secondary::PAUSE_LOOP_EXITING)];
    VM_FUNCTION_CONTROL: W64 = 0x2018, "Which VM functions VMFUNC may invoke." if [Needs::Secondary(Secondary::ENABLE_VM_FUNCTIONS)];
    EPTP_LIST_ADDRESS: W64 = 0x2024, "Physical address of the 512 EPTPs that VM function 0 switches among." if [Needs::VmFunction(0)];
    EPTP_INDEX: W16 = 0x0004, "Index of the EPTP in force." if [Needs::Secondary(Secondary::EPT_VIOLATION_VE)];
    VE_INFORMATION_ADDRESS: W64 = 0x202a, "Physical address of the virtualization-exception information area." if [Needs::Secondary(Secondary::EPT_VIOLATION_VE)];
    VMREAD_BITMAP: W64 = 0x2026, "Physical address of the bitmap of fields whose VMREAD by the guest exits." if [Needs::Secondary(Secondary::VMCS_SHADOWING)];
    VMWRITE_BITMAP: W64 = 0x2028, "Physical address of the bitmap of fields whose VMWRITE by the guest exits." if [Needs::Secondary(Secondary::VMCS_SHADOWING)];
    ENCLS_EXITING_BITMAP: W64 = 0x202e, "Leaves of ENCLS that exit." if [Needs::Secondary(Secondary::ENABLE_ENCLS_EXITING)];
    ENCLV_EXITING_BITMAP: W64 = 0x2036, "Leaves of ENCLV that exit." if [Needs::Secondary(Secondary::ENABLE_ENCLV_EXITING)];
    PCONFIG_EXITING_BITMAP: W64 = 0x203e, "Leaves of PCONFIG that exit." if [Needs::Secondary(Secondary::ENABLE_PCONFIG)];
    PML_ADDRESS: W64 = 0x200e, "Physical address of the page-modification log." if [Needs::Secondary(Secondary::ENABLE_PML)];
    XSS_EXIT_BITMAP: W64 = 0x202c, "State components whose XSAVES and XRSTORS exit." if [Needs::Secondary(Secondary::ENABLE_XSAVES_XRSTORS)];
    SPPTP: W64 = 0x2030, "Physical address of the sub-page-permission table." if [Needs::Secondary(Secondary::SUB_PAGE_WRITE_PERMISSIONS_FOR_EPT)];
    LOW_PASID_DIRECTORY_ADDR: W64 = 0x2038, "Physical address of the PASID directory for PASIDs with bit 19 clear." if [Needs::Secondary(Secondary::PASID_TRANSLATION)];
    HIGH_PASID_DIRECTORY_ADDR: W64 = 0x203a, "Physical address of the PASID directory for PASIDs with bit 19 set." if [Needs::Secondary(Secondary::PASID_TRANSLATION)];
    INSTRUCTION_TIMEOUT_CONTROL: W32 = 0x4024, "Most crystal-clock ticks between two chances to interrupt the guest." if [Needs::Secondary(Secondary::INSTRUCTION_TIMEOUT)];
    HLATP: W64 = 0x2040, "Where hypervisor-managed linear-address translation starts." if [Needs::Tertiary(Tertiary::ENABLE_HLAT)];
    HLAT_PREFIX_SIZE: W16 = 0x0006, "How many upper bits of a linear address choose HLAT paging." if [Needs::Tertiary(Tertiary::ENABLE_HLAT)];
    IA32_SPEC_CTRL_MASK: W64 = 0x204a, "Bits of IA32_SPEC_CTRL that the guest cannot change." if [Needs::Tertiary(Tertiary::VIRTUALIZE_IA32_SPEC_CTRL)];
    IA32_SPEC_CTRL_SHADOW: W64 = 0x204c, "What the guest believes IA32_SPEC_CTRL to be." if [Needs::Tertiary(Tertiary::VIRTUALIZE_IA32_SPEC_CTRL)];
}
