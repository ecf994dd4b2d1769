//! SDM 3C 27.2.1.1 "VM-Execution Control Fields".

use super::state::State;
use crate::controls::{EntryControls, ExitControls, PinBased, PrimaryBased, SecondaryBased, TertiaryBased};
use crate::ept_vpid::EptVpid;
use crate::fields::*;

rules! { "", "27.2.1.1", "VM-Execution Control Fields", CONTROLS, |s|
    PIN_BASED_RESERVED [PIN_BASED_VM_EXEC_CONTROL]
        "reserved bits of the pin-based VM-execution controls must have the values that the capability MSR allows"
        => s.pin.is_permitted();
    PRIMARY_RESERVED [CPU_BASED_VM_EXEC_CONTROL]
        "reserved bits of the primary processor-based VM-execution controls must have the values that the capability MSR allows"
        => s.primary.is_permitted();
    SECONDARY_RESERVED [SECONDARY_VM_EXEC_CONTROL]
        "with \"activate secondary controls\", reserved bits of the secondary processor-based VM-execution controls must be 0"
        => s.secondary.is_permitted();
    TERTIARY_RESERVED [TERTIARY_VM_EXEC_CONTROL]
        "with \"activate tertiary controls\", reserved bits of the tertiary processor-based VM-execution controls must be 0"
        => s.tertiary.is_permitted();
    CR3_TARGET_COUNT_LIMIT [CR3_TARGET_COUNT]
        "the CR3-target count must not be above the number of CR3-target values that the processor has"
        => s.read(CR3_TARGET_COUNT) <= s.environment.capabilities.misc.cr3_targets();
    IO_BITMAPS [IO_BITMAP_A, IO_BITMAP_B]
        "with \"use I/O bitmaps\", both I/O-bitmap addresses must be page-aligned and within the physical-address width"
        => !s.primary.has(PrimaryBased::USE_IO_BITMAPS) || s.is_page(IO_BITMAP_A) && s.is_page(IO_BITMAP_B);
    MSR_BITMAPS [MSR_BITMAP]
        "with \"use MSR bitmaps\", the MSR-bitmap address must be page-aligned and within the physical-address width"
        => !s.primary.has(PrimaryBased::USE_MSR_BITMAPS) || s.is_page(MSR_BITMAP);
    VIRTUAL_APIC_PAGE [VIRTUAL_APIC_PAGE_ADDR]
        "with \"use TPR shadow\", the virtual-APIC address must be page-aligned and within the physical-address width"
        => !has_tpr_shadow(s) || s.is_page(VIRTUAL_APIC_PAGE_ADDR);
    TPR_THRESHOLD_RESERVED [TPR_THRESHOLD]
        "with \"use TPR shadow\" and without \"virtual-interrupt delivery\", bits 31:4 of the TPR threshold must be 0"
        => !has_tpr_shadow(s) || has_virtual_interrupts(s) || s.read(TPR_THRESHOLD) & !0xf == 0;
    TPR_THRESHOLD_ABOVE_VTPR [TPR_THRESHOLD, VIRTUAL_APIC_PAGE_ADDR]
        "with \"use TPR shadow\" and without \"virtualize APIC accesses\" and \"virtual-interrupt delivery\", bits 3:0 of the TPR threshold must not be above bits 7:4 of VTPR"
        => !has_tpr_shadow(s)
            || has_virtual_interrupts(s)
            || s.secondary.has(SecondaryBased::VIRTUALIZE_APIC_ACCESSES)
            || u64::from(s.read(TPR_THRESHOLD) & 0xf) <= vtpr(s) >> 4;
    VIRTUAL_NMIS_NEED_NMI_EXITING [PIN_BASED_VM_EXEC_CONTROL]
        "\"virtual NMIs\" needs \"NMI exiting\""
        => !s.pin.has(PinBased::VIRTUAL_NMIS) || s.pin.has(PinBased::NMI_EXITING);
    NMI_WINDOW_NEEDS_VIRTUAL_NMIS [PIN_BASED_VM_EXEC_CONTROL, CPU_BASED_VM_EXEC_CONTROL]
        "\"NMI-window exiting\" needs \"virtual NMIs\""
        => !s.primary.has(PrimaryBased::NMI_WINDOW_EXITING) || s.pin.has(PinBased::VIRTUAL_NMIS);
    APIC_ACCESS_PAGE [APIC_ACCESS_ADDR]
        "with \"virtualize APIC accesses\", the APIC-access address must be page-aligned and within the physical-address width"
        => !s.secondary.has(SecondaryBased::VIRTUALIZE_APIC_ACCESSES) || s.is_page(APIC_ACCESS_ADDR);
    APIC_VIRTUALIZATION_NEEDS_TPR_SHADOW [CPU_BASED_VM_EXEC_CONTROL, SECONDARY_VM_EXEC_CONTROL]
        "\"virtualize x2APIC mode\", \"APIC-register virtualization\", \"virtual-interrupt delivery\" and \"IPI virtualization\" need \"use TPR shadow\""
        => has_tpr_shadow(s)
            || !s.secondary.has(SecondaryBased::VIRTUALIZE_X2APIC_MODE)
                && !s.secondary.has(SecondaryBased::APIC_REGISTER_VIRTUALIZATION)
                && !has_virtual_interrupts(s)
                && !s.tertiary.has(TertiaryBased::IPI_VIRTUALIZATION);
    X2APIC_MODE_EXCLUDES_APIC_ACCESSES [SECONDARY_VM_EXEC_CONTROL]
        "\"virtualize x2APIC mode\" and \"virtualize APIC accesses\" must not both be 1"
        => !s.secondary.has(SecondaryBased::VIRTUALIZE_X2APIC_MODE | SecondaryBased::VIRTUALIZE_APIC_ACCESSES);
    VIRTUAL_INTERRUPTS_NEED_EXTERNAL_EXITING [PIN_BASED_VM_EXEC_CONTROL, SECONDARY_VM_EXEC_CONTROL]
        "\"virtual-interrupt delivery\" needs \"external-interrupt exiting\""
        => !has_virtual_interrupts(s) || s.pin.has(PinBased::EXTERNAL_INTERRUPT_EXITING);
    POSTED_NEEDS_VIRTUAL_INTERRUPTS [PIN_BASED_VM_EXEC_CONTROL, SECONDARY_VM_EXEC_CONTROL]
        "\"process posted interrupts\" needs \"virtual-interrupt delivery\""
        => !has_posted(s) || has_virtual_interrupts(s);
    POSTED_NEEDS_ACKNOWLEDGE [PIN_BASED_VM_EXEC_CONTROL, VM_EXIT_CONTROLS]
        "\"process posted interrupts\" needs \"acknowledge interrupt on exit\""
        => !has_posted(s) || s.exit.has(ExitControls::ACKNOWLEDGE_INTERRUPT_ON_EXIT);
    POSTED_VECTOR [POSTED_INTR_NV]
        "with \"process posted interrupts\", the notification vector must be 0 to 255"
        => !has_posted(s) || s.read(POSTED_INTR_NV) <= 0xff;
    POSTED_DESCRIPTOR_ALIGNMENT [POSTED_INTR_DESC_ADDR]
        "with \"process posted interrupts\", bits 5:0 of the posted-interrupt descriptor address must be 0"
        => !has_posted(s) || s.read(POSTED_INTR_DESC_ADDR) & 0x3f == 0;
    POSTED_DESCRIPTOR_WIDTH [POSTED_INTR_DESC_ADDR]
        "with \"process posted interrupts\", the posted-interrupt descriptor address must be within the physical-address width"
        => !has_posted(s) || s.is_structure_address(s.read(POSTED_INTR_DESC_ADDR));
    VPID_NOT_ZERO [VIRTUAL_PROCESSOR_ID]
        "with \"enable VPID\", the VPID must not be 0"
        => !s.secondary.has(SecondaryBased::ENABLE_VPID) || s.read(VIRTUAL_PROCESSOR_ID) != 0;
    EPTP_MEMORY_TYPE [EPT_POINTER]
        "with \"enable EPT\", bits 2:0 of EPTP must be a memory type that the processor supports"
        => !has_ept(s) || s.environment.capabilities.ept_vpid.supports_memory_type(s.read(EPT_POINTER) & 7);
    EPTP_PAGE_WALK [EPT_POINTER]
        "with \"enable EPT\", bits 5:3 of EPTP must be one less than a page-walk length that the processor supports"
        => !has_ept(s)
            || s.environment.capabilities.ept_vpid.supports_page_walk((s.read(EPT_POINTER) >> 3 & 7) + 1);
    EPTP_ACCESSED_DIRTY [EPT_POINTER]
        "with \"enable EPT\", bit 6 of EPTP must be 0 if the processor has no accessed and dirty flags for EPT"
        => !has_ept(s) || s.read(EPT_POINTER) & 1 << 6 == 0 || has_ept_capability(s, EptVpid::ACCESSED_DIRTY);
    EPTP_SHADOW_STACK [EPT_POINTER]
        "with \"enable EPT\", bit 7 of EPTP must be 0 if the processor has no supervisor shadow-stack control"
        => !has_ept(s)
            || s.read(EPT_POINTER) & 1 << 7 == 0
            || has_ept_capability(s, EptVpid::SUPERVISOR_SHADOW_STACK);
    EPTP_RESERVED [EPT_POINTER]
        "with \"enable EPT\", bits 11:8 of EPTP and those beyond the physical-address width must be 0"
        => !has_ept(s) || s.read(EPT_POINTER) & 0xf00 == 0 && s.is_physical(s.read(EPT_POINTER));
    PML_NEEDS_EPT [SECONDARY_VM_EXEC_CONTROL]
        "\"enable PML\" needs \"enable EPT\""
        => !s.secondary.has(SecondaryBased::ENABLE_PML) || has_ept(s);
    PML_PAGE [PML_ADDRESS]
        "with \"enable PML\", the PML address must be page-aligned and within the physical-address width"
        => !s.secondary.has(SecondaryBased::ENABLE_PML) || s.is_page(PML_ADDRESS);
    UNRESTRICTED_GUEST_NEEDS_EPT [SECONDARY_VM_EXEC_CONTROL]
        "\"unrestricted guest\" and \"mode-based execute control for EPT\" need \"enable EPT\""
        => has_ept(s)
            || !s.is_unrestricted() && !s.secondary.has(SecondaryBased::MODE_BASED_EXECUTE_CONTROL_FOR_EPT);
    SUB_PAGE_NEEDS_EPT [SECONDARY_VM_EXEC_CONTROL]
        "\"sub-page write permissions for EPT\" needs \"enable EPT\""
        => !s.secondary.has(SecondaryBased::SUB_PAGE_WRITE_PERMISSIONS_FOR_EPT) || has_ept(s);
    SUB_PAGE_TABLE [SPPTP]
        "with \"sub-page write permissions for EPT\", SPPTP must be page-aligned and within the physical-address width"
        => !s.secondary.has(SecondaryBased::SUB_PAGE_WRITE_PERMISSIONS_FOR_EPT) || s.is_page(SPPTP);
    VM_FUNCTIONS_RESERVED [VM_FUNCTION_CONTROL]
        "with \"enable VM functions\", reserved bits of the VM-function controls must be 0"
        => vm_functions(s) & !s.environment.capabilities.vm_functions == 0;
    EPTP_SWITCHING_NEEDS_EPT [VM_FUNCTION_CONTROL, SECONDARY_VM_EXEC_CONTROL]
        "\"EPTP switching\" needs \"enable EPT\""
        => !switches_eptp(s) || has_ept(s);
    EPTP_LIST [EPTP_LIST_ADDRESS]
        "with \"EPTP switching\", the EPTP-list address must be page-aligned and within the physical-address width"
        => !switches_eptp(s) || s.is_page(EPTP_LIST_ADDRESS);
    VMCS_SHADOWING_BITMAPS [VMREAD_BITMAP, VMWRITE_BITMAP]
        "with \"VMCS shadowing\", the VMREAD-bitmap and VMWRITE-bitmap addresses must be page-aligned and within the physical-address width"
        => !s.secondary.has(SecondaryBased::VMCS_SHADOWING) || s.is_page(VMREAD_BITMAP) && s.is_page(VMWRITE_BITMAP);
    VE_INFORMATION_PAGE [VE_INFORMATION_ADDRESS]
        "with \"EPT-violation #VE\", the virtualization-exception information address must be page-aligned and within the physical-address width"
        => !s.secondary.has(SecondaryBased::EPT_VIOLATION_VE) || s.is_page(VE_INFORMATION_ADDRESS);
    PT_GUEST_PHYSICAL_NEEDS [SECONDARY_VM_EXEC_CONTROL, VM_ENTRY_CONTROLS, VM_EXIT_CONTROLS]
        "\"Intel PT uses guest physical addresses\" needs \"enable EPT\", \"load IA32_RTIT_CTL\" and \"clear IA32_RTIT_CTL\""
        => !s.secondary.has(SecondaryBased::PT_USES_GUEST_PHYSICAL_ADDRESSES)
            || has_ept(s)
                && s.entry.has(EntryControls::LOAD_IA32_RTIT_CTL)
                && s.exit.has(ExitControls::CLEAR_IA32_RTIT_CTL);
    TSC_MULTIPLIER_NOT_ZERO [TSC_MULTIPLIER]
        "with \"use TSC scaling\", the TSC multiplier must not be 0"
        => !s.secondary.has(SecondaryBased::USE_TSC_SCALING) || s.read(TSC_MULTIPLIER) != 0;
    PASID_DIRECTORIES [LOW_PASID_DIRECTORY_ADDR, HIGH_PASID_DIRECTORY_ADDR]
        "with \"PASID translation\", both PASID directory addresses must be page-aligned and within the physical-address width"
        => !s.secondary.has(SecondaryBased::PASID_TRANSLATION)
            || s.is_page(LOW_PASID_DIRECTORY_ADDR) && s.is_page(HIGH_PASID_DIRECTORY_ADDR);
    HLAT_AND_PAGING_CONTROLS_NEED_EPT [SECONDARY_VM_EXEC_CONTROL, TERTIARY_VM_EXEC_CONTROL]
        "\"enable HLAT\", \"EPT paging-write control\" and \"guest-paging verification\" need \"enable EPT\""
        => has_ept(s)
            || !s.tertiary.has(TertiaryBased::ENABLE_HLAT)
                && !s.tertiary.has(TertiaryBased::EPT_PAGING_WRITE_CONTROL)
                && !s.tertiary.has(TertiaryBased::GUEST_PAGING_VERIFICATION);
    HLATP_RESERVED [HLATP]
        "with \"enable HLAT\", bits 2:0 and 11:5 of HLATP and those beyond the physical-address width must be 0"
        => !s.tertiary.has(TertiaryBased::ENABLE_HLAT) || s.read(HLATP) & 0xfe7 == 0 && s.is_physical(s.read(HLATP));
    HLAT_PREFIX [HLAT_PREFIX_SIZE]
        "with \"enable HLAT\", the HLAT prefix size must not be above the largest that the processor supports"
        => !s.tertiary.has(TertiaryBased::ENABLE_HLAT)
            || s.read(HLAT_PREFIX_SIZE) <= u16::from(s.environment.capabilities.ept_vpid.max_hlat_prefix_size());
    PID_POINTER_TABLE [PID_POINTER_TABLE_ADDR]
        "with \"IPI virtualization\", bits 2:0 of the PID-pointer table address and those beyond the physical-address width must be 0"
        => !s.tertiary.has(TertiaryBased::IPI_VIRTUALIZATION)
            || s.read(PID_POINTER_TABLE_ADDR) & 7 == 0 && s.is_structure_address(s.read(PID_POINTER_TABLE_ADDR));
    PID_POINTER_TABLE_END [PID_POINTER_TABLE_ADDR, LAST_PID_POINTER_INDEX]
        "with \"IPI virtualization\", the last entry of the PID-pointer table must be within the physical-address width"
        => !s.tertiary.has(TertiaryBased::IPI_VIRTUALIZATION)
            || s.read(PID_POINTER_TABLE_ADDR)
                .checked_add(u64::from(s.read(LAST_PID_POINTER_INDEX)) * 8)
                .is_some_and(|last| s.is_structure_address(last));
}

fn has_tpr_shadow(s: &State<'_>) -> bool {
    s.primary.has(PrimaryBased::USE_TPR_SHADOW)
}

fn has_virtual_interrupts(s: &State<'_>) -> bool {
    s.secondary.has(SecondaryBased::VIRTUAL_INTERRUPT_DELIVERY)
}

fn has_posted(s: &State<'_>) -> bool {
    s.pin.has(PinBased::PROCESS_POSTED_INTERRUPTS)
}

fn has_ept(s: &State<'_>) -> bool {
    s.secondary.has(SecondaryBased::ENABLE_EPT)
}

fn has_ept_capability(s: &State<'_>, capability: EptVpid) -> bool {
    s.environment.capabilities.ept_vpid.contains(capability)
}

/// The VM-function controls in force.
fn vm_functions(s: &State<'_>) -> u64 {
    if s.secondary.has(SecondaryBased::ENABLE_VM_FUNCTIONS) { s.read(VM_FUNCTION_CONTROL) } else { 0 }
}

fn switches_eptp(s: &State<'_>) -> bool {
    vm_functions(s) & s.environment.capabilities.vm_functions & 1 != 0
}

/// Byte 0x80 of the virtual-APIC page; 0xff where the address is no page.
fn vtpr(s: &State<'_>) -> u64 {
    if s.is_page(VIRTUAL_APIC_PAGE_ADDR) {
        s.environment.memory.read_u64(s.read(VIRTUAL_APIC_PAGE_ADDR) + 0x80) & 0xff
    } else {
        0xff
    }
}
