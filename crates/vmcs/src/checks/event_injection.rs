//! The part of SDM 3C 27.2.1.3 "VM-Entry Control Fields" that is about the injected event.

use arch::Vector;
use arch::control::Cr0;

use super::state::State;
use crate::controls::PrimaryBased;
use crate::event::EventKind;
use crate::fields::*;

rules! { "", "27.2.1.3", "VM-Entry Control Fields", CONTROLS, |s|
    INJECTION_TYPE [VM_ENTRY_INTERRUPTION_INFO]
        "the type of an injected event must not be 1, nor 7 on a processor without \"monitor trap flag\""
        => !s.injects(EventKind::Reserved) && (!s.injects(EventKind::Other) || has_monitor_trap_flag(s));
    INJECTION_VECTOR [VM_ENTRY_INTERRUPTION_INFO]
        "the vector of an injected event must fit its type: 2 for an NMI, at most 31 for a hardware exception, 0 for type 7"
        => match s.event.kind() {
            _ if !s.event.is_valid() => true,
            EventKind::Nmi => s.event.vector() == Vector::NMI,
            EventKind::HardwareException => s.event.vector().0 <= 31,
            EventKind::Other => s.event.vector().0 == 0,
            _ => true,
        };
    INJECTION_ERROR_CODE_PRESENT [VM_ENTRY_INTERRUPTION_INFO, GUEST_CR0, SECONDARY_VM_EXEC_CONTROL]
        "an injected hardware exception that delivers an error code must say so (bit 11), if CR0.PE is 1, as it is without \"unrestricted guest\""
        => s.event.has_error_code() || !must_have_error_code(s);
    INJECTION_ERROR_CODE_ABSENT [VM_ENTRY_INTERRUPTION_INFO, GUEST_CR0, SECONDARY_VM_EXEC_CONTROL]
        "an injected event that delivers no error code must not have bit 11 set"
        => !s.event.is_valid() || !s.event.has_error_code() || may_have_error_code(s);
    INJECTION_RESERVED [VM_ENTRY_INTERRUPTION_INFO]
        "bits 30:12 of the VM-entry interruption information must be 0"
        => !s.event.is_valid() || s.event.0 & 0x7fff_f000 == 0;
    INJECTION_ERROR_CODE_RESERVED [VM_ENTRY_EXCEPTION_ERROR_CODE]
        "bits 31:16 of an injected error code must be 0"
        => !s.event.is_valid() || !s.event.has_error_code() || s.read(VM_ENTRY_EXCEPTION_ERROR_CODE) >> 16 == 0;
    INJECTION_INSTRUCTION_LENGTH [VM_ENTRY_INSTRUCTION_LEN]
        "the instruction length of an injected software event must be 1 to 15, or 0 where the processor allows it"
        => !s.event.is_valid()
            || !s.event.kind().is_software()
            || match s.read(VM_ENTRY_INSTRUCTION_LEN) {
                0 => s.environment.capabilities.misc.allows_zero_instruction_length(),
                length => length <= 15,
            };
}

fn has_monitor_trap_flag(s: &State<'_>) -> bool {
    s.environment.capabilities.primary.supports(PrimaryBased::MONITOR_TRAP_FLAG)
}

/// Whether the guest can be delivered an error code: it starts in protected mode. Without "unrestricted guest" it has to, which
/// is checked later. Earlier editions of the manual say so here; processors judge the error code by that.
fn is_protected(s: &State<'_>) -> bool {
    !s.is_unrestricted() || s.guest_cr0().contains(Cr0::PE)
}

/// The exceptions with error code that the checks know: not #CP, which older processors have not.
fn has_classic_error_code(vector: Vector) -> bool {
    vector.has_error_code() && vector != Vector::CP
}

fn must_have_error_code(s: &State<'_>) -> bool {
    s.injects(EventKind::HardwareException)
        && is_protected(s)
        && !s.environment.capabilities.basic.has_free_error_codes()
        && has_classic_error_code(s.event.vector())
}

fn may_have_error_code(s: &State<'_>) -> bool {
    s.injects(EventKind::HardwareException)
        && is_protected(s)
        && (s.environment.capabilities.basic.has_free_error_codes() || has_classic_error_code(s.event.vector()))
}
