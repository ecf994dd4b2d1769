//! Why an entry came back, as a line of a log: what the manual defines for the exit, no address and no time.

use core::fmt;

use arch::{Gpr, GuestRegs};
use vmcs::fields::{
    EXIT_QUALIFICATION, EXIT_REASON, IDT_VECTORING_ERROR_CODE, IDT_VECTORING_INFO, VM_EXIT_INSTRUCTION_INFO,
    VM_EXIT_INSTRUCTION_LEN, VM_EXIT_INTERRUPTION_ERROR_CODE, VM_EXIT_INTERRUPTION_INFO,
};
use vmcs::{Access, EventInfo, ExitReason, InstructionInfo};

use super::operand::Operands;
use super::{Current, DONE, VmFail};

/// What came of [`super::L2::run`].
#[derive(Clone, Copy, Debug)]
pub enum Report {
    /// The instruction failed.
    Failed(VmFail),
    /// A VM exit.
    Exit {
        /// The whole field.
        reason: u32,
        /// Exit qualification.
        qualification: u64,
        /// VM-exit instruction length.
        length: u32,
        /// VM-exit interruption information and error code.
        interruption: (EventInfo, u32),
        /// IDT-vectoring information and error code.
        vectoring: (EventInfo, u32),
        /// VM-exit instruction information.
        operands: InstructionInfo,
        /// RAX: the number of a VMCALL.
        rax: u64,
    },
}

impl Report {
    /// The exit that just happened.
    pub fn read(regs: &GuestRegs) -> Self {
        let current = Current;
        Self::Exit {
            reason: current.read(EXIT_REASON),
            qualification: current.read(EXIT_QUALIFICATION),
            length: current.read(VM_EXIT_INSTRUCTION_LEN),
            interruption: (
                EventInfo(current.read(VM_EXIT_INTERRUPTION_INFO)),
                current.read(VM_EXIT_INTERRUPTION_ERROR_CODE),
            ),
            vectoring: (EventInfo(current.read(IDT_VECTORING_INFO)), current.read(IDT_VECTORING_ERROR_CODE)),
            operands: InstructionInfo(current.read(VM_EXIT_INSTRUCTION_INFO)),
            rax: regs.get(Gpr::Rax),
        }
    }

    /// The basic exit reason; none when the instruction failed.
    pub fn reason(&self) -> Option<ExitReason> {
        match *self {
            Self::Failed(_) => None,
            Self::Exit { reason, .. } => Some(ExitReason(reason as u16)),
        }
    }

    /// The exit qualification; 0 when the instruction failed.
    pub fn qualification(&self) -> u64 {
        match *self {
            Self::Failed(_) => 0,
            Self::Exit { qualification, .. } => qualification,
        }
    }

    /// Whether an instruction exited, so that there is something behind it to go on with.
    pub fn is_instruction(&self) -> bool {
        self.reason().is_some_and(has_length)
    }

    /// Whether the guest was not entered.
    pub fn is_entry_failure(&self) -> bool {
        matches!(self, Self::Exit { reason, .. } if reason >> 31 != 0)
    }

    /// Whether the guest's code came to its end.
    pub fn is_done(&self) -> bool {
        self.called() == Some(DONE)
    }

    /// The number that the guest called with.
    pub fn called(&self) -> Option<u64> {
        match *self {
            Self::Exit { rax, .. } if self.reason() == Some(ExitReason::VMCALL) => Some(rax),
            _ => None,
        }
    }
}

/// Whether the qualification of an exit for this reason holds bits, not an address and not nothing: SDM 3C 28.2.1 "Basic
/// VM-Exit Information".
fn has_bits(reason: ExitReason, event: EventInfo) -> bool {
    match reason {
        // A page fault's is the address.
        ExitReason::EXCEPTION_OR_NMI => event.vector().0 == 1,
        ExitReason::SIPI
        | ExitReason::TASK_SWITCH
        | ExitReason::CONTROL_REGISTER
        | ExitReason::DEBUG_REGISTER
        | ExitReason::IO
        | ExitReason::ENTRY_FAILURE_GUEST_STATE
        | ExitReason::ENTRY_FAILURE_MSR_LOADING
        | ExitReason::MWAIT
        | ExitReason::APIC_ACCESS
        | ExitReason::VIRTUALIZED_EOI
        | ExitReason::APIC_WRITE
        | ExitReason::EPT_VIOLATION
        | ExitReason::PML_FULL => true,
        _ => false,
    }
}

/// Whether the instruction length of an exit for this reason is defined always: SDM 3C 28.2.5 "Information for VM Exits Due
/// to Instruction Execution". Exits due to events have it for software events only.
fn has_length(reason: ExitReason) -> bool {
    matches!(reason.0, 10..=32 | 36 | 39 | 40 | 46 | 47 | 50 | 51 | 53..=55 | 57..=61 | 63..=69)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let &Self::Exit { reason: whole, qualification, length, interruption, vectoring, operands, .. } = self else {
            let Self::Failed(failure) = self else { return Ok(()) };
            return write!(f, "{failure}");
        };
        let reason = ExitReason(whole as u16);
        if self.is_done() {
            return write!(f, "done");
        }
        if let Some(number) = self.called() {
            return write!(f, "call {number:#x}");
        }
        write!(f, "exit {} {}", reason.0, reason.name())?;
        write!(f, "{}", Operands(reason, operands, qualification))?;
        if has_bits(reason, interruption.0) {
            // Bits 11:9 of an EPT violation's come with advanced information only, which a hypervisor may keep to itself.
            let defined = if reason == ExitReason::EPT_VIOLATION { !0xe00 } else { !0 };
            write!(f, ", qualification {:#x}", qualification & defined)?;
        }
        if self.is_entry_failure() {
            return Ok(());
        }
        let is_vectored = matches!(reason, ExitReason::EXCEPTION_OR_NMI | ExitReason::EXTERNAL_INTERRUPT);
        if is_vectored && interruption.0.is_valid() {
            event(f, interruption)?;
        }
        let is_software = is_vectored && interruption.0.is_valid() && interruption.0.kind().is_software();
        if has_length(reason) || is_software {
            write!(f, ", length {length}")?;
        }
        if vectoring.0.is_valid() {
            write!(f, ", while delivering")?;
            event(f, vectoring)?;
            if vectoring.0.kind().is_software() {
                write!(f, ", length {length}")?;
            }
        }
        Ok(())
    }
}

fn event(f: &mut fmt::Formatter<'_>, (event, error): (EventInfo, u32)) -> fmt::Result {
    write!(f, " {event:?}")?;
    if event.has_error_code() { write!(f, " {error:#x}") } else { Ok(()) }
}
