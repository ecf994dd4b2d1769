//! The field table against a second source, and against the rules of encoding.

use std::collections::HashSet;

use vmcs::field::{self, Area, Encoding, FieldWidth, Group};
use vmcs::fields::*;
use x86::vmx::vmcs::{control, guest, host, ro};

/// Our name, and the constants of the `x86` crate that mean the same field: the whole one, and for 64-bit fields its high
/// half.
macro_rules! same {
    ($($ours:ident = $module:ident::$full:ident $(, $high_module:ident::$high:ident)?;)*) => {
        vec![$((
            stringify!($ours),
            $ours.encoding(),
            $module::$full,
            None $(.or(Some($high_module::$high)))?,
        )),*]
    };
}

/// The `x86` crate typed the same manual in another way. All of its 198 encodings are here, each under the name it has with
/// us, so a field with another's number shows.
#[test]
fn encodings_agree_with_the_x86_crate() {
    let same: Vec<(&str, Encoding, u32, Option<u32>)> = same! {
    VIRTUAL_PROCESSOR_ID = control::VPID;
    POSTED_INTR_NV = control::POSTED_INTERRUPT_NOTIFICATION_VECTOR;
    EPTP_INDEX = control::EPTP_INDEX;
    IO_BITMAP_A = control::IO_BITMAP_A_ADDR_FULL, control::IO_BITMAP_A_ADDR_HIGH;
    IO_BITMAP_B = control::IO_BITMAP_B_ADDR_FULL, control::IO_BITMAP_B_ADDR_HIGH;
    MSR_BITMAP = control::MSR_BITMAPS_ADDR_FULL, control::MSR_BITMAPS_ADDR_HIGH;
    VM_EXIT_MSR_STORE_ADDR = control::VMEXIT_MSR_STORE_ADDR_FULL, control::VMEXIT_MSR_STORE_ADDR_HIGH;
    VM_EXIT_MSR_LOAD_ADDR = control::VMEXIT_MSR_LOAD_ADDR_FULL, control::VMEXIT_MSR_LOAD_ADDR_HIGH;
    VM_ENTRY_MSR_LOAD_ADDR = control::VMENTRY_MSR_LOAD_ADDR_FULL, control::VMENTRY_MSR_LOAD_ADDR_HIGH;
    EXECUTIVE_VMCS_POINTER = control::EXECUTIVE_VMCS_PTR_FULL, control::EXECUTIVE_VMCS_PTR_HIGH;
    PML_ADDRESS = control::PML_ADDR_FULL, control::PML_ADDR_HIGH;
    TSC_OFFSET = control::TSC_OFFSET_FULL, control::TSC_OFFSET_HIGH;
    VIRTUAL_APIC_PAGE_ADDR = control::VIRT_APIC_ADDR_FULL, control::VIRT_APIC_ADDR_HIGH;
    APIC_ACCESS_ADDR = control::APIC_ACCESS_ADDR_FULL, control::APIC_ACCESS_ADDR_HIGH;
    POSTED_INTR_DESC_ADDR = control::POSTED_INTERRUPT_DESC_ADDR_FULL, control::POSTED_INTERRUPT_DESC_ADDR_HIGH;
    VM_FUNCTION_CONTROL = control::VM_FUNCTION_CONTROLS_FULL, control::VM_FUNCTION_CONTROLS_HIGH;
    EPT_POINTER = control::EPTP_FULL, control::EPTP_HIGH;
    EOI_EXIT_BITMAP0 = control::EOI_EXIT0_FULL, control::EOI_EXIT0_HIGH;
    EOI_EXIT_BITMAP1 = control::EOI_EXIT1_FULL, control::EOI_EXIT1_HIGH;
    EOI_EXIT_BITMAP2 = control::EOI_EXIT2_FULL, control::EOI_EXIT2_HIGH;
    EOI_EXIT_BITMAP3 = control::EOI_EXIT3_FULL, control::EOI_EXIT3_HIGH;
    EPTP_LIST_ADDRESS = control::EPTP_LIST_ADDR_FULL, control::EPTP_LIST_ADDR_HIGH;
    VMREAD_BITMAP = control::VMREAD_BITMAP_ADDR_FULL, control::VMREAD_BITMAP_ADDR_HIGH;
    VMWRITE_BITMAP = control::VMWRITE_BITMAP_ADDR_FULL, control::VMWRITE_BITMAP_ADDR_HIGH;
    VE_INFORMATION_ADDRESS = control::VIRT_EXCEPTION_INFO_ADDR_FULL, control::VIRT_EXCEPTION_INFO_ADDR_HIGH;
    XSS_EXIT_BITMAP = control::XSS_EXITING_BITMAP_FULL, control::XSS_EXITING_BITMAP_HIGH;
    ENCLS_EXITING_BITMAP = control::ENCLS_EXITING_BITMAP_FULL, control::ENCLS_EXITING_BITMAP_HIGH;
    SPPTP = control::SUBPAGE_PERM_TABLE_PTR_FULL, control::SUBPAGE_PERM_TABLE_PTR_HIGH;
    TSC_MULTIPLIER = control::TSC_MULTIPLIER_FULL, control::TSC_MULTIPLIER_HIGH;
    PIN_BASED_VM_EXEC_CONTROL = control::PINBASED_EXEC_CONTROLS;
    CPU_BASED_VM_EXEC_CONTROL = control::PRIMARY_PROCBASED_EXEC_CONTROLS;
    EXCEPTION_BITMAP = control::EXCEPTION_BITMAP;
    PAGE_FAULT_ERROR_CODE_MASK = control::PAGE_FAULT_ERR_CODE_MASK;
    PAGE_FAULT_ERROR_CODE_MATCH = control::PAGE_FAULT_ERR_CODE_MATCH;
    CR3_TARGET_COUNT = control::CR3_TARGET_COUNT;
    VM_EXIT_CONTROLS = control::VMEXIT_CONTROLS;
    VM_EXIT_MSR_STORE_COUNT = control::VMEXIT_MSR_STORE_COUNT;
    VM_EXIT_MSR_LOAD_COUNT = control::VMEXIT_MSR_LOAD_COUNT;
    VM_ENTRY_CONTROLS = control::VMENTRY_CONTROLS;
    VM_ENTRY_MSR_LOAD_COUNT = control::VMENTRY_MSR_LOAD_COUNT;
    VM_ENTRY_INTERRUPTION_INFO = control::VMENTRY_INTERRUPTION_INFO_FIELD;
    VM_ENTRY_EXCEPTION_ERROR_CODE = control::VMENTRY_EXCEPTION_ERR_CODE;
    VM_ENTRY_INSTRUCTION_LEN = control::VMENTRY_INSTRUCTION_LEN;
    TPR_THRESHOLD = control::TPR_THRESHOLD;
    SECONDARY_VM_EXEC_CONTROL = control::SECONDARY_PROCBASED_EXEC_CONTROLS;
    PLE_GAP = control::PLE_GAP;
    PLE_WINDOW = control::PLE_WINDOW;
    CR0_GUEST_HOST_MASK = control::CR0_GUEST_HOST_MASK;
    CR4_GUEST_HOST_MASK = control::CR4_GUEST_HOST_MASK;
    CR0_READ_SHADOW = control::CR0_READ_SHADOW;
    CR4_READ_SHADOW = control::CR4_READ_SHADOW;
    CR3_TARGET_VALUE0 = control::CR3_TARGET_VALUE0;
    CR3_TARGET_VALUE1 = control::CR3_TARGET_VALUE1;
    CR3_TARGET_VALUE2 = control::CR3_TARGET_VALUE2;
    CR3_TARGET_VALUE3 = control::CR3_TARGET_VALUE3;
    GUEST_ES_SELECTOR = guest::ES_SELECTOR;
    GUEST_CS_SELECTOR = guest::CS_SELECTOR;
    GUEST_SS_SELECTOR = guest::SS_SELECTOR;
    GUEST_DS_SELECTOR = guest::DS_SELECTOR;
    GUEST_FS_SELECTOR = guest::FS_SELECTOR;
    GUEST_GS_SELECTOR = guest::GS_SELECTOR;
    GUEST_LDTR_SELECTOR = guest::LDTR_SELECTOR;
    GUEST_TR_SELECTOR = guest::TR_SELECTOR;
    GUEST_INTERRUPT_STATUS = guest::INTERRUPT_STATUS;
    GUEST_PML_INDEX = guest::PML_INDEX;
    VMCS_LINK_POINTER = guest::LINK_PTR_FULL, guest::LINK_PTR_HIGH;
    GUEST_IA32_DEBUGCTL = guest::IA32_DEBUGCTL_FULL, guest::IA32_DEBUGCTL_HIGH;
    GUEST_IA32_PAT = guest::IA32_PAT_FULL, guest::IA32_PAT_HIGH;
    GUEST_IA32_EFER = guest::IA32_EFER_FULL, guest::IA32_EFER_HIGH;
    GUEST_IA32_PERF_GLOBAL_CTRL = guest::IA32_PERF_GLOBAL_CTRL_FULL, guest::IA32_PERF_GLOBAL_CTRL_HIGH;
    GUEST_PDPTE0 = guest::PDPTE0_FULL, guest::PDPTE0_HIGH;
    GUEST_PDPTE1 = guest::PDPTE1_FULL, guest::PDPTE1_HIGH;
    GUEST_PDPTE2 = guest::PDPTE2_FULL, guest::PDPTE2_HIGH;
    GUEST_PDPTE3 = guest::PDPTE3_FULL, guest::PDPTE3_HIGH;
    GUEST_BNDCFGS = guest::IA32_BNDCFGS_FULL, guest::IA32_BNDCFGS_HIGH;
    GUEST_IA32_RTIT_CTL = guest::IA32_RTIT_CTL_FULL, guest::IA32_RTIT_CTL_HIGH;
    GUEST_ES_LIMIT = guest::ES_LIMIT;
    GUEST_CS_LIMIT = guest::CS_LIMIT;
    GUEST_SS_LIMIT = guest::SS_LIMIT;
    GUEST_DS_LIMIT = guest::DS_LIMIT;
    GUEST_FS_LIMIT = guest::FS_LIMIT;
    GUEST_GS_LIMIT = guest::GS_LIMIT;
    GUEST_LDTR_LIMIT = guest::LDTR_LIMIT;
    GUEST_TR_LIMIT = guest::TR_LIMIT;
    GUEST_GDTR_LIMIT = guest::GDTR_LIMIT;
    GUEST_IDTR_LIMIT = guest::IDTR_LIMIT;
    GUEST_ES_ACCESS_RIGHTS = guest::ES_ACCESS_RIGHTS;
    GUEST_CS_ACCESS_RIGHTS = guest::CS_ACCESS_RIGHTS;
    GUEST_SS_ACCESS_RIGHTS = guest::SS_ACCESS_RIGHTS;
    GUEST_DS_ACCESS_RIGHTS = guest::DS_ACCESS_RIGHTS;
    GUEST_FS_ACCESS_RIGHTS = guest::FS_ACCESS_RIGHTS;
    GUEST_GS_ACCESS_RIGHTS = guest::GS_ACCESS_RIGHTS;
    GUEST_LDTR_ACCESS_RIGHTS = guest::LDTR_ACCESS_RIGHTS;
    GUEST_TR_ACCESS_RIGHTS = guest::TR_ACCESS_RIGHTS;
    GUEST_INTERRUPTIBILITY_INFO = guest::INTERRUPTIBILITY_STATE;
    GUEST_ACTIVITY_STATE = guest::ACTIVITY_STATE;
    GUEST_SMBASE = guest::SMBASE;
    GUEST_SYSENTER_CS = guest::IA32_SYSENTER_CS;
    VMX_PREEMPTION_TIMER_VALUE = guest::VMX_PREEMPTION_TIMER_VALUE;
    GUEST_CR0 = guest::CR0;
    GUEST_CR3 = guest::CR3;
    GUEST_CR4 = guest::CR4;
    GUEST_ES_BASE = guest::ES_BASE;
    GUEST_CS_BASE = guest::CS_BASE;
    GUEST_SS_BASE = guest::SS_BASE;
    GUEST_DS_BASE = guest::DS_BASE;
    GUEST_FS_BASE = guest::FS_BASE;
    GUEST_GS_BASE = guest::GS_BASE;
    GUEST_LDTR_BASE = guest::LDTR_BASE;
    GUEST_TR_BASE = guest::TR_BASE;
    GUEST_GDTR_BASE = guest::GDTR_BASE;
    GUEST_IDTR_BASE = guest::IDTR_BASE;
    GUEST_DR7 = guest::DR7;
    GUEST_RSP = guest::RSP;
    GUEST_RIP = guest::RIP;
    GUEST_RFLAGS = guest::RFLAGS;
    GUEST_PENDING_DBG_EXCEPTIONS = guest::PENDING_DBG_EXCEPTIONS;
    GUEST_SYSENTER_ESP = guest::IA32_SYSENTER_ESP;
    GUEST_SYSENTER_EIP = guest::IA32_SYSENTER_EIP;
    HOST_ES_SELECTOR = host::ES_SELECTOR;
    HOST_CS_SELECTOR = host::CS_SELECTOR;
    HOST_SS_SELECTOR = host::SS_SELECTOR;
    HOST_DS_SELECTOR = host::DS_SELECTOR;
    HOST_FS_SELECTOR = host::FS_SELECTOR;
    HOST_GS_SELECTOR = host::GS_SELECTOR;
    HOST_TR_SELECTOR = host::TR_SELECTOR;
    HOST_IA32_PAT = host::IA32_PAT_FULL, host::IA32_PAT_HIGH;
    HOST_IA32_EFER = host::IA32_EFER_FULL, host::IA32_EFER_HIGH;
    HOST_IA32_PERF_GLOBAL_CTRL = host::IA32_PERF_GLOBAL_CTRL_FULL, host::IA32_PERF_GLOBAL_CTRL_HIGH;
    HOST_IA32_SYSENTER_CS = host::IA32_SYSENTER_CS;
    HOST_CR0 = host::CR0;
    HOST_CR3 = host::CR3;
    HOST_CR4 = host::CR4;
    HOST_FS_BASE = host::FS_BASE;
    HOST_GS_BASE = host::GS_BASE;
    HOST_TR_BASE = host::TR_BASE;
    HOST_GDTR_BASE = host::GDTR_BASE;
    HOST_IDTR_BASE = host::IDTR_BASE;
    HOST_IA32_SYSENTER_ESP = host::IA32_SYSENTER_ESP;
    HOST_IA32_SYSENTER_EIP = host::IA32_SYSENTER_EIP;
    HOST_RSP = host::RSP;
    HOST_RIP = host::RIP;
    GUEST_PHYSICAL_ADDRESS = ro::GUEST_PHYSICAL_ADDR_FULL, ro::GUEST_PHYSICAL_ADDR_HIGH;
    VM_INSTRUCTION_ERROR = ro::VM_INSTRUCTION_ERROR;
    EXIT_REASON = ro::EXIT_REASON;
    VM_EXIT_INTERRUPTION_INFO = ro::VMEXIT_INTERRUPTION_INFO;
    VM_EXIT_INTERRUPTION_ERROR_CODE = ro::VMEXIT_INTERRUPTION_ERR_CODE;
    IDT_VECTORING_INFO = ro::IDT_VECTORING_INFO;
    IDT_VECTORING_ERROR_CODE = ro::IDT_VECTORING_ERR_CODE;
    VM_EXIT_INSTRUCTION_LEN = ro::VMEXIT_INSTRUCTION_LEN;
    VM_EXIT_INSTRUCTION_INFO = ro::VMEXIT_INSTRUCTION_INFO;
    EXIT_QUALIFICATION = ro::EXIT_QUALIFICATION;
    IO_RCX = ro::IO_RCX;
    IO_RSI = ro::IO_RSI;
    IO_RDI = ro::IO_RDI;
    IO_RIP = ro::IO_RIP;
    GUEST_LINEAR_ADDRESS = ro::GUEST_LINEAR_ADDR;    };
    let mut theirs = 0;
    for (name, ours, full, high) in same {
        assert_eq!(ours.0, full, "{name}");
        assert_eq!(ours.high_half().map(|high| high.0), high, "high half of {name}");
        theirs += 1 + usize::from(high.is_some());
    }
    assert_eq!(theirs, 198);
}

/// Encodings of the fields that the `x86` crate does not have yet, from SDM 3D appendix B.
#[test]
fn newer_fields_have_the_manuals_encodings() {
    let expected = [
        (HLAT_PREFIX_SIZE.encoding(), 0x0006),
        (LAST_PID_POINTER_INDEX.encoding(), 0x0008),
        (GUEST_UINV.encoding(), 0x0814),
        (TERTIARY_VM_EXEC_CONTROL.encoding(), 0x2034),
        (ENCLV_EXITING_BITMAP.encoding(), 0x2036),
        (LOW_PASID_DIRECTORY_ADDR.encoding(), 0x2038),
        (HIGH_PASID_DIRECTORY_ADDR.encoding(), 0x203a),
        (PCONFIG_EXITING_BITMAP.encoding(), 0x203e),
        (HLATP.encoding(), 0x2040),
        (PID_POINTER_TABLE_ADDR.encoding(), 0x2042),
        (SECONDARY_VM_EXIT_CONTROLS.encoding(), 0x2044),
        (IA32_SPEC_CTRL_MASK.encoding(), 0x204a),
        (IA32_SPEC_CTRL_SHADOW.encoding(), 0x204c),
        (GUEST_IA32_LBR_CTL.encoding(), 0x2816),
        (GUEST_IA32_PKRS.encoding(), 0x2818),
        (HOST_IA32_PKRS.encoding(), 0x2c06),
        (INSTRUCTION_TIMEOUT_CONTROL.encoding(), 0x4024),
        (GUEST_S_CET.encoding(), 0x6828),
        (GUEST_SSP.encoding(), 0x682a),
        (GUEST_INTR_SSP_TABLE.encoding(), 0x682c),
        (HOST_S_CET.encoding(), 0x6c18),
        (HOST_SSP.encoding(), 0x6c1a),
        (HOST_INTR_SSP_TABLE.encoding(), 0x6c1c),
    ];
    for (encoding, number) in expected {
        assert_eq!(encoding.0, number, "{encoding:?}");
    }
    assert_eq!(FIELDS.len(), 157 + expected.len(), "the table has a field that neither test looks at");
}

/// A field is one row, and the manual's area of its encoding is the one that its group implies.
#[test]
fn rows_are_unique_and_in_their_area() {
    let encodings: HashSet<_> = FIELDS.iter().map(|field| field.encoding).collect();
    let names: HashSet<_> = FIELDS.iter().map(|field| field.name).collect();
    assert_eq!((encodings.len(), names.len()), (FIELDS.len(), FIELDS.len()));
    for field in FIELDS {
        let area = match field.group {
            Group::Guest => Area::Guest,
            Group::Host => Area::Host,
            Group::ExitInformation => Area::ReadOnly,
            Group::Execution | Group::Exit | Group::Entry => Area::Control,
        };
        assert_eq!(field.encoding.area(), area, "{}", field.name);
        assert_eq!(field.is_read_only(), area == Area::ReadOnly, "{}", field.name);
    }
}

/// A guest's VMREAD may name anything: reserved bits, high halves of narrow fields, fields that nobody has.
#[test]
fn encodings_that_mean_nothing_have_no_row() {
    let find = |encoding| field::info(Encoding(encoding)).map(|field| field.name);
    assert_eq!(find(0x681e), Some("GUEST_RIP"));
    assert_eq!(find(0x2011), Some("TSC_OFFSET"), "its high half");
    assert_eq!(find(0x681f), None, "natural-width fields have no high half");
    assert_eq!(find(0x4001), None, "32-bit fields have no high half");
    assert_eq!(find(0x781e), None, "bit 12 is reserved");
    assert_eq!(find(0x1_681e), None, "bits 31:15 are reserved");
    assert_eq!(find(0x2100), None, "no such index");
    assert_eq!(find(u32::MAX), None);
}

/// What VMWRITE keeps of a value.
#[test]
fn values_are_cut_to_the_fields_width() {
    for (encoding, width, kept) in [
        (GUEST_CS_SELECTOR.encoding(), FieldWidth::Bits16, 0xffff),
        (GUEST_CS_LIMIT.encoding(), FieldWidth::Bits32, 0xffff_ffff),
        (TSC_OFFSET.encoding(), FieldWidth::Bits64, u64::MAX),
        (GUEST_RIP.encoding(), FieldWidth::Natural, u64::MAX),
    ] {
        assert_eq!(encoding.width(), width);
        assert_eq!(encoding.truncate(u64::MAX), kept, "{encoding:?}");
    }
}
