//! What ends L2, where that is simple.
//!
//! L2's first instruction is INT3, and every exception exits. Before it comes what is injected and what is pending after
//! the entry (SDM 3C 27.6 "Event Injection", 27.7 "Special Features of VM Entry"). Where a round changed more than what is modelled here, nothing is
//! predicted but that L2 exits.

use arch::Vector;
use arch::control::Rflags;
use vmcs::checks::PhysicalMemory;
use vmcs::controls::{PinBased, PrimaryBased, SecondaryBased};
use vmcs::field::Group;
use vmcs::fields::*;
use vmcs::{Access, Encoding, EventInfo, EventKind, ExitReason};

use crate::outcome::Outcome;
use crate::{Image, Round};

/// The exit of a round that passed all checks.
pub(crate) fn predict(round: &Round, memory: &dyn PhysicalMemory) -> Option<Outcome> {
    if !round.changes().all(|(field, before, value)| is_modelled(field, before ^ value, value)) {
        return None;
    }
    let vmcs = &round.vmcs;
    let event = EventInfo(vmcs.read(VM_ENTRY_INTERRUPTION_INFO));
    let exception = |vector: Vector| Outcome::Exit(ExitReason::EXCEPTION_OR_NMI, vector.0.into());
    if event.is_valid() && !event.is(EventKind::Other) {
        // L2's interrupt table is empty, so that the delivery faults, and that exits.
        return Some(exception(Vector::GP));
    }
    let exit = |reason| Outcome::Exit(reason, 0);
    if let Some(reason) = pending(vmcs, memory) {
        return Some(exit(reason));
    }
    match vmcs.read(GUEST_ACTIVITY_STATE) {
        0 => Some(exception(Vector::BP)),
        // Whether there is an instruction for the monitor trap flag to follow, is not said of a processor that sleeps.
        _ if vmcs.read(CPU_BASED_VM_EXEC_CONTROL) & PrimaryBased::MONITOR_TRAP_FLAG.bits() != 0 => None,
        _ => Some(exit(ExitReason::PREEMPTION_TIMER)),
    }
}

/// The exit before the first instruction, in the order of priority.
fn pending(vmcs: &Image, memory: &dyn PhysicalMemory) -> Option<ExitReason> {
    const STI: u32 = 1 << 0;
    const MOV_SS: u32 = 1 << 1;
    const NMI: u32 = 1 << 3;
    let has_pin = |control: PinBased| vmcs.read(PIN_BASED_VM_EXEC_CONTROL) & control.bits() != 0;
    let has_primary = |control: PrimaryBased| vmcs.read(CPU_BASED_VM_EXEC_CONTROL) & control.bits() != 0;
    let has_secondary = |control: SecondaryBased| {
        has_primary(PrimaryBased::ACTIVATE_SECONDARY_CONTROLS)
            && vmcs.read(SECONDARY_VM_EXEC_CONTROL) & control.bits() != 0
    };
    let is_blocked = |by: u32| vmcs.read(GUEST_INTERRUPTIBILITY_INFO) & by != 0;
    // 27.6.2 "Injection of Pending MTF VM Exits".
    if vmcs.read(VM_ENTRY_INTERRUPTION_INFO) >> 31 != 0 {
        return Some(ExitReason::MONITOR_TRAP_FLAG);
    }
    // 27.7.7 "VM Exits Induced by the TPR Threshold".
    if has_primary(PrimaryBased::USE_TPR_SHADOW)
        && has_secondary(SecondaryBased::VIRTUALIZE_APIC_ACCESSES)
        && !has_secondary(SecondaryBased::VIRTUAL_INTERRUPT_DELIVERY)
    {
        let vtpr = memory.read_u64(vmcs.read(VIRTUAL_APIC_PAGE_ADDR) + 0x80) & 0xff;
        if vtpr >> 4 < u64::from(vmcs.read(TPR_THRESHOLD) & 0xf) {
            return Some(ExitReason::TPR_BELOW_THRESHOLD);
        }
    }
    // 27.7.4 "VMX-Preemption Timer".
    if has_pin(PinBased::ACTIVATE_PREEMPTION_TIMER) && vmcs.read(VMX_PREEMPTION_TIMER_VALUE) == 0 {
        return Some(ExitReason::PREEMPTION_TIMER);
    }
    // 27.7.6 "NMI-Window Exiting".
    if has_primary(PrimaryBased::NMI_WINDOW_EXITING) && !is_blocked(NMI | MOV_SS | STI) {
        return Some(ExitReason::NMI_WINDOW);
    }
    // 27.7.5 "Interrupt-Window Exiting and Virtual-Interrupt Delivery".
    let accepts_interrupts = vmcs.read(GUEST_RFLAGS) & Rflags::IF.bits() != 0 && !is_blocked(STI | MOV_SS);
    let is_shut_down = vmcs.read(GUEST_ACTIVITY_STATE) == 2;
    (has_primary(PrimaryBased::INTERRUPT_WINDOW_EXITING) && accepts_interrupts && !is_shut_down)
        .then_some(ExitReason::INTERRUPT_WINDOW)
}

/// Whether it is known here what a change has to do with the first exit: `changed` are the bits.
fn is_modelled(field: Encoding, changed: u64, value: u64) -> bool {
    const FLAGS: Encoding = GUEST_RFLAGS.encoding();
    const INTERRUPTIBILITY: Encoding = GUEST_INTERRUPTIBILITY_INFO.encoding();
    match field {
        // Single steps and virtual-8086 mode are another matter, and what RF does.
        FLAGS => changed & (Rflags::TF | Rflags::VM | Rflags::RF).bits() == 0,
        // Whether STI blocks NMIs and with them their window, the manual leaves to the processor.
        INTERRUPTIBILITY => value & 1 == 0,
        _ => {
            WITHOUT_PART.contains(&field)
                || PENDING.contains(&field)
                || vmcs::field::info(field).is_some_and(|field| matches!(field.group, Group::Host | Group::Exit))
        }
    }
}

/// What [`predict`] reads.
const PENDING: [Encoding; 8] = [
    VM_ENTRY_INTERRUPTION_INFO.encoding(),
    GUEST_ACTIVITY_STATE.encoding(),
    PIN_BASED_VM_EXEC_CONTROL.encoding(),
    CPU_BASED_VM_EXEC_CONTROL.encoding(),
    SECONDARY_VM_EXEC_CONTROL.encoding(),
    VIRTUAL_APIC_PAGE_ADDR.encoding(),
    TPR_THRESHOLD.encoding(),
    VMX_PREEMPTION_TIMER_VALUE.encoding(),
];

/// What has no part in how L2 starts.
const WITHOUT_PART: [Encoding; 34] = [
    IO_BITMAP_A.encoding(),
    IO_BITMAP_B.encoding(),
    MSR_BITMAP.encoding(),
    TSC_OFFSET.encoding(),
    TSC_MULTIPLIER.encoding(),
    CR0_GUEST_HOST_MASK.encoding(),
    CR4_GUEST_HOST_MASK.encoding(),
    CR0_READ_SHADOW.encoding(),
    CR4_READ_SHADOW.encoding(),
    CR3_TARGET_COUNT.encoding(),
    CR3_TARGET_VALUE0.encoding(),
    CR3_TARGET_VALUE1.encoding(),
    CR3_TARGET_VALUE2.encoding(),
    CR3_TARGET_VALUE3.encoding(),
    APIC_ACCESS_ADDR.encoding(),
    VIRTUAL_PROCESSOR_ID.encoding(),
    PLE_GAP.encoding(),
    PLE_WINDOW.encoding(),
    PML_ADDRESS.encoding(),
    VM_FUNCTION_CONTROL.encoding(),
    EPTP_LIST_ADDRESS.encoding(),
    VMREAD_BITMAP.encoding(),
    VMWRITE_BITMAP.encoding(),
    VMCS_LINK_POINTER.encoding(),
    XSS_EXIT_BITMAP.encoding(),
    GUEST_SYSENTER_CS.encoding(),
    GUEST_SYSENTER_ESP.encoding(),
    GUEST_SYSENTER_EIP.encoding(),
    GUEST_RSP.encoding(),
    VM_ENTRY_EXCEPTION_ERROR_CODE.encoding(),
    VM_ENTRY_INSTRUCTION_LEN.encoding(),
    VM_ENTRY_MSR_LOAD_COUNT.encoding(),
    GUEST_TR_BASE.encoding(),
    GUEST_LDTR_BASE.encoding(),
];
