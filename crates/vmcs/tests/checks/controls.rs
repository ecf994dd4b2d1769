//! SDM 3C 27.2.1 "Checks on VMX Controls".

use vmcs::Access;
use vmcs::controls::{
    EntryControls, ExitControls, PinBased, PrimaryBased, SecondaryBased, SecondaryExitControls, TertiaryBased,
};
use vmcs::fields::*;
use vmcs::{EptVpid, EventInfo, InstructionError};

use crate::guest_segments::{guest_32_bit, restricted};
use crate::{Machine, PAGE, Row, TOO_WIDE};

fn pin(m: &mut Machine, controls: PinBased) {
    m.set(PIN_BASED_VM_EXEC_CONTROL, controls.bits());
}

fn primary(m: &mut Machine, controls: PrimaryBased) {
    m.set(CPU_BASED_VM_EXEC_CONTROL, controls.bits());
}

fn secondary(m: &mut Machine, controls: SecondaryBased) {
    m.set(SECONDARY_VM_EXEC_CONTROL, controls.bits());
}

fn tertiary(m: &mut Machine, controls: TertiaryBased) {
    primary(m, PrimaryBased::ACTIVATE_TERTIARY_CONTROLS);
    m.vmcs.write(TERTIARY_VM_EXEC_CONTROL, controls.bits());
}

/// Without EPT; the controls of the baseline that need it go too.
fn without_ept(m: &mut Machine) {
    m.clear(SECONDARY_VM_EXEC_CONTROL, (SecondaryBased::ENABLE_EPT | SecondaryBased::UNRESTRICTED_GUEST).bits());
}

/// Posted interrupts as they should be.
fn posted(m: &mut Machine) {
    pin(m, PinBased::PROCESS_POSTED_INTERRUPTS);
    secondary(m, SecondaryBased::VIRTUAL_INTERRUPT_DELIVERY);
    m.vmcs.write(POSTED_INTR_NV, 0xf2);
    m.vmcs.write(POSTED_INTR_DESC_ADDR, PAGE + 0x40);
}

fn inject(m: &mut Machine, word: u32) {
    m.vmcs.write(VM_ENTRY_INTERRUPTION_INFO, word);
    m.vmcs.write(VM_ENTRY_INSTRUCTION_LEN, 2);
}

fn eptp(m: &mut Machine, clear: u64, set: u64) {
    let value = m.vmcs.read(EPT_POINTER) & !clear | set;
    m.vmcs.write(EPT_POINTER, value);
}

pub(crate) const ROWS: &[Row] = &[
    ("PIN_BASED_RESERVED", |m| m.clear(PIN_BASED_VM_EXEC_CONTROL, 2)),
    ("PIN_BASED_RESERVED", |m| m.set(PIN_BASED_VM_EXEC_CONTROL, 1 << 31)),
    ("PRIMARY_RESERVED", |m| m.clear(CPU_BASED_VM_EXEC_CONTROL, 2)),
    ("SECONDARY_RESERVED", |m| m.set(SECONDARY_VM_EXEC_CONTROL, 1 << 29)),
    ("", |m| {
        // "Operates as if all bits were 0": reserved bits do not matter then.
        m.clear(CPU_BASED_VM_EXEC_CONTROL, PrimaryBased::ACTIVATE_SECONDARY_CONTROLS.bits());
        m.set(SECONDARY_VM_EXEC_CONTROL, u32::MAX);
    }),
    ("TERTIARY_RESERVED", |m| tertiary(m, TertiaryBased::from_bits_retain(1 << 63))),
    ("CR3_TARGET_COUNT_LIMIT", |m| m.vmcs.write(CR3_TARGET_COUNT, 5)),
    ("IO_BITMAPS", |m| m.vmcs.write(IO_BITMAP_A, 0x800)),
    ("IO_BITMAPS", |m| m.vmcs.write(IO_BITMAP_B, TOO_WIDE)),
    ("MSR_BITMAPS", |m| m.vmcs.write(MSR_BITMAP, 0x800)),
    ("VIRTUAL_APIC_PAGE", |m| m.vmcs.write(VIRTUAL_APIC_PAGE_ADDR, 0x1_3010)),
    ("TPR_THRESHOLD_RESERVED", |m| m.vmcs.write(TPR_THRESHOLD, 0x10)),
    ("", |m| {
        secondary(m, SecondaryBased::VIRTUAL_INTERRUPT_DELIVERY);
        m.vmcs.write(TPR_THRESHOLD, 0x1f);
    }),
    ("TPR_THRESHOLD_ABOVE_VTPR", |m| {
        m.memory.set(0x1_3080, 0x3f);
        m.vmcs.write(TPR_THRESHOLD, 4);
    }),
    ("", |m| {
        m.memory.set(0x1_3080, 0x40);
        m.vmcs.write(TPR_THRESHOLD, 4);
    }),
    ("", |m| {
        secondary(m, SecondaryBased::VIRTUALIZE_APIC_ACCESSES);
        m.vmcs.write(APIC_ACCESS_ADDR, PAGE);
        m.vmcs.write(TPR_THRESHOLD, 4);
    }),
    ("VIRTUAL_NMIS_NEED_NMI_EXITING", |m| m.clear(PIN_BASED_VM_EXEC_CONTROL, PinBased::NMI_EXITING.bits())),
    ("NMI_WINDOW_NEEDS_VIRTUAL_NMIS", |m| {
        m.clear(PIN_BASED_VM_EXEC_CONTROL, PinBased::VIRTUAL_NMIS.bits());
        primary(m, PrimaryBased::NMI_WINDOW_EXITING);
    }),
    ("APIC_ACCESS_PAGE", |m| {
        secondary(m, SecondaryBased::VIRTUALIZE_APIC_ACCESSES);
        m.vmcs.write(APIC_ACCESS_ADDR, PAGE + 1);
    }),
    ("APIC_VIRTUALIZATION_NEEDS_TPR_SHADOW", |m| {
        m.clear(CPU_BASED_VM_EXEC_CONTROL, PrimaryBased::USE_TPR_SHADOW.bits());
        secondary(m, SecondaryBased::APIC_REGISTER_VIRTUALIZATION);
    }),
    ("APIC_VIRTUALIZATION_NEEDS_TPR_SHADOW", |m| {
        m.clear(CPU_BASED_VM_EXEC_CONTROL, PrimaryBased::USE_TPR_SHADOW.bits());
        tertiary(m, TertiaryBased::IPI_VIRTUALIZATION);
    }),
    ("X2APIC_MODE_EXCLUDES_APIC_ACCESSES", |m| {
        secondary(m, SecondaryBased::VIRTUALIZE_X2APIC_MODE | SecondaryBased::VIRTUALIZE_APIC_ACCESSES);
    }),
    ("VIRTUAL_INTERRUPTS_NEED_EXTERNAL_EXITING", |m| {
        m.clear(PIN_BASED_VM_EXEC_CONTROL, PinBased::EXTERNAL_INTERRUPT_EXITING.bits());
        secondary(m, SecondaryBased::VIRTUAL_INTERRUPT_DELIVERY);
    }),
    ("", posted),
    ("POSTED_NEEDS_VIRTUAL_INTERRUPTS", |m| {
        posted(m);
        m.clear(SECONDARY_VM_EXEC_CONTROL, SecondaryBased::VIRTUAL_INTERRUPT_DELIVERY.bits());
    }),
    ("POSTED_NEEDS_ACKNOWLEDGE", |m| {
        posted(m);
        m.clear(VM_EXIT_CONTROLS, ExitControls::ACKNOWLEDGE_INTERRUPT_ON_EXIT.bits());
    }),
    ("POSTED_VECTOR", |m| {
        posted(m);
        m.vmcs.write(POSTED_INTR_NV, 0x100);
    }),
    ("POSTED_DESCRIPTOR_ALIGNMENT", |m| {
        posted(m);
        m.vmcs.write(POSTED_INTR_DESC_ADDR, PAGE + 0x20);
    }),
    ("POSTED_DESCRIPTOR_WIDTH", |m| {
        posted(m);
        m.vmcs.write(POSTED_INTR_DESC_ADDR, TOO_WIDE);
    }),
    ("VPID_NOT_ZERO", |m| m.vmcs.write(VIRTUAL_PROCESSOR_ID, 0)),
    ("EPTP_MEMORY_TYPE", |m| eptp(m, 7, 1)),
    ("EPTP_PAGE_WALK", |m| eptp(m, 7 << 3, 2 << 3)),
    ("", |m| eptp(m, 7 << 3, 4 << 3)),
    ("EPTP_PAGE_WALK", |m| {
        m.capabilities.ept_vpid.remove(EptVpid::PAGE_WALK_5);
        eptp(m, 7 << 3, 4 << 3);
    }),
    ("", |m| eptp(m, 0, 3 << 6)),
    ("EPTP_ACCESSED_DIRTY", |m| {
        m.capabilities.ept_vpid.remove(EptVpid::ACCESSED_DIRTY);
        eptp(m, 0, 1 << 6);
    }),
    ("EPTP_SHADOW_STACK", |m| {
        m.capabilities.ept_vpid.remove(EptVpid::SUPERVISOR_SHADOW_STACK);
        eptp(m, 0, 1 << 7);
    }),
    ("EPTP_RESERVED", |m| eptp(m, 0, 1 << 8)),
    ("EPTP_RESERVED", |m| eptp(m, 0, TOO_WIDE)),
    ("PML_NEEDS_EPT", |m| {
        without_ept(m);
        secondary(m, SecondaryBased::ENABLE_PML);
    }),
    ("PML_PAGE", |m| {
        secondary(m, SecondaryBased::ENABLE_PML);
        m.vmcs.write(PML_ADDRESS, PAGE + 8);
    }),
    ("UNRESTRICTED_GUEST_NEEDS_EPT", |m| {
        m.clear(SECONDARY_VM_EXEC_CONTROL, SecondaryBased::ENABLE_EPT.bits());
    }),
    ("UNRESTRICTED_GUEST_NEEDS_EPT", |m| {
        without_ept(m);
        secondary(m, SecondaryBased::MODE_BASED_EXECUTE_CONTROL_FOR_EPT);
    }),
    ("SUB_PAGE_NEEDS_EPT", |m| {
        without_ept(m);
        secondary(m, SecondaryBased::SUB_PAGE_WRITE_PERMISSIONS_FOR_EPT);
    }),
    ("SUB_PAGE_TABLE", |m| {
        secondary(m, SecondaryBased::SUB_PAGE_WRITE_PERMISSIONS_FOR_EPT);
        m.vmcs.write(SPPTP, PAGE + 1);
    }),
    ("VM_FUNCTIONS_RESERVED", |m| {
        secondary(m, SecondaryBased::ENABLE_VM_FUNCTIONS);
        m.vmcs.write(VM_FUNCTION_CONTROL, 2);
    }),
    ("", |m| m.vmcs.write(VM_FUNCTION_CONTROL, 2)),
    ("EPTP_SWITCHING_NEEDS_EPT", |m| {
        without_ept(m);
        secondary(m, SecondaryBased::ENABLE_VM_FUNCTIONS);
        m.vmcs.write(VM_FUNCTION_CONTROL, 1);
    }),
    ("EPTP_LIST", |m| {
        secondary(m, SecondaryBased::ENABLE_VM_FUNCTIONS);
        m.vmcs.write(VM_FUNCTION_CONTROL, 1);
        m.vmcs.write(EPTP_LIST_ADDRESS, PAGE + 8);
    }),
    ("VMCS_SHADOWING_BITMAPS", |m| {
        secondary(m, SecondaryBased::VMCS_SHADOWING);
        m.vmcs.write(VMREAD_BITMAP, PAGE + 1);
    }),
    ("VMCS_SHADOWING_BITMAPS", |m| {
        secondary(m, SecondaryBased::VMCS_SHADOWING);
        m.vmcs.write(VMWRITE_BITMAP, TOO_WIDE);
    }),
    ("VE_INFORMATION_PAGE", |m| {
        secondary(m, SecondaryBased::EPT_VIOLATION_VE);
        m.vmcs.write(VE_INFORMATION_ADDRESS, TOO_WIDE);
    }),
    ("PT_GUEST_PHYSICAL_NEEDS", |m| {
        secondary(m, SecondaryBased::PT_USES_GUEST_PHYSICAL_ADDRESSES);
        m.set(VM_EXIT_CONTROLS, ExitControls::CLEAR_IA32_RTIT_CTL.bits());
    }),
    ("", |m| {
        secondary(m, SecondaryBased::PT_USES_GUEST_PHYSICAL_ADDRESSES);
        m.set(VM_EXIT_CONTROLS, ExitControls::CLEAR_IA32_RTIT_CTL.bits());
        m.set(VM_ENTRY_CONTROLS, EntryControls::LOAD_IA32_RTIT_CTL.bits());
    }),
    ("TSC_MULTIPLIER_NOT_ZERO", |m| secondary(m, SecondaryBased::USE_TSC_SCALING)),
    ("PASID_DIRECTORIES", |m| {
        secondary(m, SecondaryBased::PASID_TRANSLATION);
        m.vmcs.write(HIGH_PASID_DIRECTORY_ADDR, PAGE + 1);
    }),
    ("HLAT_AND_PAGING_CONTROLS_NEED_EPT", |m| {
        without_ept(m);
        tertiary(m, TertiaryBased::GUEST_PAGING_VERIFICATION);
    }),
    ("HLATP_RESERVED", |m| {
        tertiary(m, TertiaryBased::ENABLE_HLAT);
        m.vmcs.write(HLATP, PAGE | 1 << 5);
    }),
    ("", |m| {
        tertiary(m, TertiaryBased::ENABLE_HLAT);
        m.vmcs.write(HLATP, PAGE | 3 << 3);
    }),
    ("HLAT_PREFIX", |m| {
        tertiary(m, TertiaryBased::ENABLE_HLAT);
        m.vmcs.write(HLAT_PREFIX_SIZE, 53);
    }),
    ("PID_POINTER_TABLE", |m| {
        tertiary(m, TertiaryBased::IPI_VIRTUALIZATION);
        m.vmcs.write(PID_POINTER_TABLE_ADDR, PAGE + 4);
    }),
    ("PID_POINTER_TABLE_END", |m| {
        tertiary(m, TertiaryBased::IPI_VIRTUALIZATION);
        m.vmcs.write(PID_POINTER_TABLE_ADDR, TOO_WIDE - 8);
        m.vmcs.write(LAST_PID_POINTER_INDEX, 1);
    }),
    ("EXIT_RESERVED", |m| m.clear(VM_EXIT_CONTROLS, 1)),
    ("SECONDARY_EXIT_RESERVED", |m| {
        m.set(VM_EXIT_CONTROLS, ExitControls::ACTIVATE_SECONDARY_CONTROLS.bits());
        m.vmcs.write(SECONDARY_VM_EXIT_CONTROLS, 1 << 62);
    }),
    ("", |m| {
        m.set(VM_EXIT_CONTROLS, ExitControls::ACTIVATE_SECONDARY_CONTROLS.bits());
        m.vmcs.write(SECONDARY_VM_EXIT_CONTROLS, SecondaryExitControls::PREMATURELY_BUSY_SHADOW_STACK.bits());
    }),
    ("SAVE_TIMER_NEEDS_TIMER", |m| m.set(VM_EXIT_CONTROLS, ExitControls::SAVE_PREEMPTION_TIMER_VALUE.bits())),
    ("EXIT_MSR_STORE_LIST", |m| {
        m.vmcs.write(VM_EXIT_MSR_STORE_COUNT, 1);
        m.vmcs.write(VM_EXIT_MSR_STORE_ADDR, PAGE + 8);
    }),
    ("", |m| m.vmcs.write(VM_EXIT_MSR_STORE_ADDR, u64::MAX)),
    ("EXIT_MSR_STORE_LIST_END", |m| {
        m.vmcs.write(VM_EXIT_MSR_STORE_COUNT, 2);
        m.vmcs.write(VM_EXIT_MSR_STORE_ADDR, TOO_WIDE - 16);
    }),
    ("", |m| {
        m.vmcs.write(VM_EXIT_MSR_STORE_COUNT, 1);
        m.vmcs.write(VM_EXIT_MSR_STORE_ADDR, TOO_WIDE - 16);
    }),
    ("EXIT_MSR_LOAD_LIST EXIT_MSR_LOAD_LIST_END", |m| {
        m.vmcs.write(VM_EXIT_MSR_LOAD_COUNT, 1);
        m.vmcs.write(VM_EXIT_MSR_LOAD_ADDR, u64::MAX - 15);
    }),
    ("EXIT_MSR_LOAD_LIST", |m| {
        m.vmcs.write(VM_EXIT_MSR_LOAD_COUNT, 1);
        m.vmcs.write(VM_EXIT_MSR_LOAD_ADDR, PAGE + 8);
    }),
    ("EXIT_MSR_LOAD_LIST_END", |m| {
        m.vmcs.write(VM_EXIT_MSR_LOAD_COUNT, u32::MAX);
        m.vmcs.write(VM_EXIT_MSR_LOAD_ADDR, TOO_WIDE - 0x10_0000);
    }),
    ("ENTRY_RESERVED", |m| m.clear(VM_ENTRY_CONTROLS, 1)),
    ("ENTRY_MSR_LOAD_LIST", |m| {
        m.vmcs.write(VM_ENTRY_MSR_LOAD_COUNT, 1);
        m.vmcs.write(VM_ENTRY_MSR_LOAD_ADDR, PAGE + 8);
    }),
    ("ENTRY_MSR_LOAD_LIST_END", |m| {
        m.vmcs.write(VM_ENTRY_MSR_LOAD_COUNT, 2);
        m.vmcs.write(VM_ENTRY_MSR_LOAD_ADDR, TOO_WIDE - 16);
    }),
    ("NOT_IN_SMM", |m| m.set(VM_ENTRY_CONTROLS, EntryControls::ENTRY_TO_SMM.bits())),
    ("NOT_IN_SMM", |m| m.set(VM_ENTRY_CONTROLS, EntryControls::DEACTIVATE_DUAL_MONITOR_TREATMENT.bits())),
    ("LOAD_RTIT_CTL_WHILE_TRACING", |m| {
        m.is_tracing = true;
        m.set(VM_ENTRY_CONTROLS, EntryControls::LOAD_IA32_RTIT_CTL.bits());
    }),
    ("INJECTION_TYPE", |m| inject(m, 0x8000_0120)),
    ("INJECTION_TYPE", |m| {
        m.capabilities.primary.allowed1.remove(PrimaryBased::MONITOR_TRAP_FLAG);
        inject(m, EventInfo::pending_mtf().0);
    }),
    ("", |m| inject(m, EventInfo::pending_mtf().0)),
    ("INJECTION_VECTOR", |m| inject(m, 0x8000_0203)),
    ("INJECTION_VECTOR", |m| inject(m, 0x8000_0320)),
    ("INJECTION_VECTOR", |m| inject(m, 0x8000_0701)),
    ("INJECTION_ERROR_CODE_PRESENT", |m| inject(m, 0x8000_030d)),
    ("", |m| inject(m, 0x8000_0b0d)),
    ("INJECTION_ERROR_CODE_ABSENT", |m| {
        // Real mode, where exceptions have no error codes.
        guest_32_bit(m);
        m.vmcs.write(GUEST_CR0, 0x30);
        inject(m, 0x8000_0b0d);
    }),
    ("INJECTION_ERROR_CODE_PRESENT GUEST_CR0_FIXED", |m| {
        // Without "unrestricted guest" there is no real mode: CR0 breaks a rule, but one of those that come later.
        guest_32_bit(m);
        restricted(m);
        m.vmcs.write(GUEST_CR0, 0x30);
        inject(m, 0x8000_030d);
    }),
    ("INJECTION_ERROR_CODE_ABSENT", |m| inject(m, 0x8000_0b06)),
    ("INJECTION_ERROR_CODE_ABSENT", |m| inject(m, 0x8000_0a02)),
    ("INJECTION_ERROR_CODE_ABSENT", |m| {
        // #CP has an error code, but a processor that checks does not know #CP.
        inject(m, 0x8000_0b15);
    }),
    ("", |m| {
        m.capabilities.basic.0 |= 1 << 56;
        inject(m, 0x8000_0b15);
    }),
    ("INJECTION_RESERVED", |m| inject(m, 0x8000_1306)),
    ("INJECTION_RESERVED", |m| inject(m, 0xc000_0306)),
    ("INJECTION_ERROR_CODE_RESERVED", |m| {
        inject(m, 0x8000_0b0d);
        m.vmcs.write(VM_ENTRY_EXCEPTION_ERROR_CODE, 0x1_0000);
    }),
    ("INJECTION_INSTRUCTION_LENGTH", |m| {
        inject(m, 0x8000_0480);
        m.vmcs.write(VM_ENTRY_INSTRUCTION_LEN, 16);
    }),
    ("", |m| {
        inject(m, 0x8000_0480);
        m.vmcs.write(VM_ENTRY_INSTRUCTION_LEN, 0);
    }),
    ("INJECTION_INSTRUCTION_LENGTH", |m| {
        m.capabilities.misc.0 &= !(1 << 30);
        inject(m, 0x8000_0480);
        m.vmcs.write(VM_ENTRY_INSTRUCTION_LEN, 0);
    }),
];

/// Bit 48 of IA32_VMX_BASIC limits the addresses of VMX structures to 32 bits, but not what EPTP points to.
#[test]
fn structures_may_be_limited_to_32_bits() {
    let mut machine = Machine::new();
    machine.capabilities.basic.0 |= 1 << 48;
    machine.vmcs.write(MSR_BITMAP, 1 << 32);
    assert_eq!(machine.broken(), ["MSR_BITMAPS"]);
    machine.vmcs.write(MSR_BITMAP, PAGE);
    eptp(&mut machine, 0, 1 << 32);
    assert_eq!(machine.broken(), [""; 0]);
}

/// The error's text is what the log shows beside the rule.
#[test]
fn error_7_says_controls() {
    assert_eq!(
        InstructionError::INVALID_CONTROL_FIELDS.to_string(),
        "VM entry found invalid control fields (VM-instruction error 7)"
    );
}
