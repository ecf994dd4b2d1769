//! A VM exit, decoded once: why the guest stopped, with what there is to know about it.

use arch::{GuestPhys, Linear, Vector};

use crate::access::Access;
use crate::event::{EventInfo, EventKind};
use crate::exit_reason::ExitReason;
use crate::fields;
use crate::instruction_info::{DescriptorTableInstruction, InstructionInfo, InstructionOperand};
use crate::qualification::{
    ApicAccess, CrAccess, DrAccess, EntryFailure, EptQualification, EptViolation, IoAccess, TaskSwitch,
};

/// An exception or NMI that exited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct ExceptionExit {
    /// Which one.
    pub info: EventInfo,
    /// Its error code, if it delivers one.
    pub error_code: Option<u32>,
    /// For #PF the linear address, for #DB the bits that DR6 would get; 0 for all others.
    pub qualification: u64,
}

/// A VMX instruction of the guest, but VMCALL and VMFUNC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[expect(missing_docs, reason = "the instructions' names")]
pub enum VmxInstruction {
    Vmclear(InstructionOperand),
    Vmlaunch,
    Vmptrld(InstructionOperand),
    Vmptrst(InstructionOperand),
    Vmread(InstructionOperand),
    Vmresume,
    Vmwrite(InstructionOperand),
    Vmxoff,
    Vmxon(InstructionOperand),
    Invept(InstructionOperand),
    Invvpid(InstructionOperand),
}

/// A VM exit: one variant for each basic exit reason (SDM 3D appendix C "VMX Basic Exit Reasons").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Exit {
    /// An exception that the exception bitmap selects, or an NMI.
    ExceptionOrNmi(ExceptionExit),
    /// An external interrupt; with its vector if "acknowledge interrupt on exit" is 1.
    ExternalInterrupt(Option<u8>),
    /// The guest's triple fault.
    TripleFault,
    /// An INIT signal arrived.
    Init,
    /// A start-up IPI arrived in the wait-for-SIPI state.
    Sipi {
        /// Its vector: the start address divided by 4096.
        vector: u8,
    },
    /// An SMI right after an I/O instruction.
    IoSmi,
    /// Another SMI.
    OtherSmi,
    /// The guest can take interrupts now.
    InterruptWindow,
    /// The guest can take NMIs now.
    NmiWindow,
    /// A task switch.
    TaskSwitch(TaskSwitch),
    /// CPUID.
    Cpuid,
    /// GETSEC.
    Getsec,
    /// HLT.
    Hlt,
    /// INVD.
    Invd,
    /// INVLPG of this address.
    Invlpg(Linear),
    /// RDPMC.
    Rdpmc,
    /// RDTSC.
    Rdtsc,
    /// RSM outside SMM.
    Rsm,
    /// VMCALL.
    Vmcall,
    /// Another VMX instruction.
    Vmx(VmxInstruction),
    /// MOV CR, CLTS or LMSW.
    ControlRegister(CrAccess),
    /// MOV DR.
    DebugRegister(DrAccess),
    /// IN, INS, OUT or OUTS.
    Io(IoAccess),
    /// RDMSR; ECX has the MSR's number.
    Rdmsr,
    /// WRMSR; ECX has the MSR's number.
    Wrmsr,
    /// The entry failed after the guest state began to load; the guest did not run.
    EntryFailed(EntryFailure),
    /// MWAIT.
    Mwait {
        /// Whether address-range monitoring was armed.
        is_armed: bool,
    },
    /// Monitor trap flag.
    MonitorTrapFlag,
    /// MONITOR.
    Monitor,
    /// PAUSE, or a loop of them.
    Pause,
    /// VTPR fell below the TPR threshold.
    TprBelowThreshold,
    /// An access to the APIC-access page.
    ApicAccess(ApicAccess),
    /// An EOI of a vector that the EOI-exit bitmap selects.
    VirtualizedEoi {
        /// The vector.
        vector: u8,
    },
    /// LGDT, LIDT, SGDT, SIDT, LLDT, LTR, SLDT or STR.
    DescriptorTable(DescriptorTableInstruction, InstructionOperand),
    /// EPT does not allow an access.
    EptViolation(EptViolation),
    /// An EPT entry that means nothing was met.
    EptMisconfiguration {
        /// The address whose translation met it.
        guest_physical: GuestPhys,
    },
    /// RDTSCP.
    Rdtscp,
    /// The VMX-preemption timer counted down to zero.
    PreemptionTimer,
    /// WBINVD or WBNOINVD.
    Wbinvd,
    /// XSETBV; ECX has the register's number.
    Xsetbv,
    /// A virtualized write to the virtual-APIC page was done and needs more.
    ApicWrite {
        /// Offset of the register.
        offset: u16,
    },
    /// RDRAND.
    Rdrand(InstructionInfo),
    /// INVPCID.
    Invpcid(InstructionOperand),
    /// VMFUNC that the processor did not do itself.
    Vmfunc,
    /// ENCLS.
    Encls,
    /// RDSEED.
    Rdseed(InstructionInfo),
    /// The page-modification log is full.
    PmlFull {
        /// An IRET had unblocked NMIs.
        is_nmi_unblocking: bool,
    },
    /// XSAVES.
    Xsaves(InstructionOperand),
    /// XRSTORS.
    Xrstors(InstructionOperand),
    /// PCONFIG.
    Pconfig,
    /// The sub-page-permission table has no entry, or a wrong one.
    SppEvent {
        /// An entry is missing; misconfigured otherwise.
        is_miss: bool,
        /// The address that was accessed.
        guest_physical: GuestPhys,
    },
    /// UMWAIT.
    Umwait(InstructionInfo),
    /// TPAUSE.
    Tpause(InstructionInfo),
    /// LOADIWKEY.
    Loadiwkey(InstructionInfo),
    /// ENCLV.
    Enclv,
    /// ENQCMD whose PASID has no translation.
    EnqcmdPasid,
    /// ENQCMDS whose PASID has no translation.
    EnqcmdsPasid,
    /// The guest took a bus lock.
    BusLock,
    /// The guest could not be interrupted for too long.
    InstructionTimeout {
        /// The guest's context may be corrupt.
        is_context_invalid: bool,
    },
    /// SEAMCALL.
    Seamcall,
    /// TDCALL.
    Tdcall,
    /// RDMSRLIST.
    Rdmsrlist,
    /// WRMSRLIST.
    Wrmsrlist,
    /// A basic exit reason that the manual does not define.
    Unknown(u16),
}

/// The operand fields, which only instructions with a memory operand have.
#[inline(always)]
fn operand(vmcs: &impl Access) -> InstructionOperand {
    InstructionOperand { displacement: vmcs.read(fields::EXIT_QUALIFICATION), info: info(vmcs) }
}

#[inline(always)]
fn info(vmcs: &impl Access) -> InstructionInfo {
    InstructionInfo(vmcs.read(fields::VM_EXIT_INSTRUCTION_INFO))
}

#[inline(always)]
fn guest_physical(vmcs: &impl Access) -> GuestPhys {
    GuestPhys(vmcs.read(fields::GUEST_PHYSICAL_ADDRESS))
}

impl ExceptionExit {
    #[inline]
    fn read(vmcs: &impl Access) -> Self {
        let info = EventInfo(vmcs.read(fields::VM_EXIT_INTERRUPTION_INFO));
        let has_qualification = info.kind() == EventKind::HardwareException
            && matches!(info.vector(), Vector::PF | Vector::DB)
            || info.kind() == EventKind::PrivilegedSoftwareException;
        Self {
            info,
            error_code: info.has_error_code().then(|| vmcs.read(fields::VM_EXIT_INTERRUPTION_ERROR_CODE)),
            qualification: if has_qualification { vmcs.read(fields::EXIT_QUALIFICATION) } else { 0 },
        }
    }
}

impl EptViolation {
    /// The EPT violation that was the last exit.
    #[inline]
    pub fn read(vmcs: &impl Access) -> Self {
        let qualification = EptQualification::from_bits_retain(vmcs.read(fields::EXIT_QUALIFICATION));
        Self {
            qualification,
            guest_physical: guest_physical(vmcs),
            linear: qualification
                .contains(EptQualification::LINEAR_VALID)
                .then(|| Linear(vmcs.read(fields::GUEST_LINEAR_ADDRESS))),
        }
    }
}

impl Exit {
    /// Decodes the exit that just happened. Reads the exit reason, and each other field only where it means something:
    /// an exit that has nothing more to tell costs one VMREAD.
    #[inline]
    pub fn read(vmcs: &impl Access) -> Self {
        Self::decode(ExitReason::read(vmcs), vmcs)
    }

    /// Decodes the exit that just happened, for `reason`, which was read from the same VMCS: for a caller that tells the
    /// most frequent reasons apart before it looks further.
    #[inline(always)]
    pub fn decode(reason: ExitReason, vmcs: &impl Access) -> Self {
        let qualification = || vmcs.read(fields::EXIT_QUALIFICATION);
        match reason {
            ExitReason::EXCEPTION_OR_NMI => Self::ExceptionOrNmi(ExceptionExit::read(vmcs)),
            ExitReason::EXTERNAL_INTERRUPT => {
                let info = EventInfo(vmcs.read(fields::VM_EXIT_INTERRUPTION_INFO));
                Self::ExternalInterrupt(info.is_valid().then_some(info.vector().0))
            }
            ExitReason::TRIPLE_FAULT => Self::TripleFault,
            ExitReason::INIT => Self::Init,
            ExitReason::SIPI => Self::Sipi { vector: (qualification() & 0xff) as u8 },
            ExitReason::IO_SMI => Self::IoSmi,
            ExitReason::OTHER_SMI => Self::OtherSmi,
            ExitReason::INTERRUPT_WINDOW => Self::InterruptWindow,
            ExitReason::NMI_WINDOW => Self::NmiWindow,
            ExitReason::TASK_SWITCH => Self::TaskSwitch(TaskSwitch::decode(qualification())),
            ExitReason::CPUID => Self::Cpuid,
            ExitReason::GETSEC => Self::Getsec,
            ExitReason::HLT => Self::Hlt,
            ExitReason::INVD => Self::Invd,
            ExitReason::INVLPG => Self::Invlpg(Linear(qualification())),
            ExitReason::RDPMC => Self::Rdpmc,
            ExitReason::RDTSC => Self::Rdtsc,
            ExitReason::RSM => Self::Rsm,
            ExitReason::VMCALL => Self::Vmcall,
            ExitReason::VMCLEAR => Self::Vmx(VmxInstruction::Vmclear(operand(vmcs))),
            ExitReason::VMLAUNCH => Self::Vmx(VmxInstruction::Vmlaunch),
            ExitReason::VMPTRLD => Self::Vmx(VmxInstruction::Vmptrld(operand(vmcs))),
            ExitReason::VMPTRST => Self::Vmx(VmxInstruction::Vmptrst(operand(vmcs))),
            ExitReason::VMREAD => Self::Vmx(VmxInstruction::Vmread(operand(vmcs))),
            ExitReason::VMRESUME => Self::Vmx(VmxInstruction::Vmresume),
            ExitReason::VMWRITE => Self::Vmx(VmxInstruction::Vmwrite(operand(vmcs))),
            ExitReason::VMXOFF => Self::Vmx(VmxInstruction::Vmxoff),
            ExitReason::VMXON => Self::Vmx(VmxInstruction::Vmxon(operand(vmcs))),
            ExitReason::CONTROL_REGISTER => Self::ControlRegister(CrAccess::decode(qualification())),
            ExitReason::DEBUG_REGISTER => Self::DebugRegister(DrAccess::decode(qualification())),
            ExitReason::IO => Self::Io(IoAccess::decode(qualification())),
            ExitReason::RDMSR => Self::Rdmsr,
            ExitReason::WRMSR => Self::Wrmsr,
            ExitReason::ENTRY_FAILURE_GUEST_STATE => {
                Self::EntryFailed(EntryFailure::GuestState { qualification: qualification() })
            }
            ExitReason::ENTRY_FAILURE_MSR_LOADING => {
                Self::EntryFailed(EntryFailure::MsrLoading { entry: qualification() })
            }
            ExitReason::MWAIT => Self::Mwait { is_armed: qualification() & 1 != 0 },
            ExitReason::MONITOR_TRAP_FLAG => Self::MonitorTrapFlag,
            ExitReason::MONITOR => Self::Monitor,
            ExitReason::PAUSE => Self::Pause,
            ExitReason::ENTRY_FAILURE_MACHINE_CHECK => Self::EntryFailed(EntryFailure::MachineCheck),
            ExitReason::TPR_BELOW_THRESHOLD => Self::TprBelowThreshold,
            ExitReason::APIC_ACCESS => Self::ApicAccess(ApicAccess::decode(qualification())),
            ExitReason::VIRTUALIZED_EOI => Self::VirtualizedEoi { vector: (qualification() & 0xff) as u8 },
            ExitReason::GDTR_IDTR_ACCESS => {
                let operand = operand(vmcs);
                Self::DescriptorTable(DescriptorTableInstruction::from_gdtr_idtr(operand.info), operand)
            }
            ExitReason::LDTR_TR_ACCESS => {
                let operand = operand(vmcs);
                Self::DescriptorTable(DescriptorTableInstruction::from_ldtr_tr(operand.info), operand)
            }
            ExitReason::EPT_VIOLATION => Self::EptViolation(EptViolation::read(vmcs)),
            ExitReason::EPT_MISCONFIGURATION => Self::EptMisconfiguration { guest_physical: guest_physical(vmcs) },
            ExitReason::INVEPT => Self::Vmx(VmxInstruction::Invept(operand(vmcs))),
            ExitReason::RDTSCP => Self::Rdtscp,
            ExitReason::PREEMPTION_TIMER => Self::PreemptionTimer,
            ExitReason::INVVPID => Self::Vmx(VmxInstruction::Invvpid(operand(vmcs))),
            ExitReason::WBINVD => Self::Wbinvd,
            ExitReason::XSETBV => Self::Xsetbv,
            ExitReason::APIC_WRITE => Self::ApicWrite { offset: (qualification() & 0xfff) as u16 },
            ExitReason::RDRAND => Self::Rdrand(info(vmcs)),
            ExitReason::INVPCID => Self::Invpcid(operand(vmcs)),
            ExitReason::VMFUNC => Self::Vmfunc,
            ExitReason::ENCLS => Self::Encls,
            ExitReason::RDSEED => Self::Rdseed(info(vmcs)),
            ExitReason::PML_FULL => Self::PmlFull { is_nmi_unblocking: qualification() >> 12 & 1 != 0 },
            ExitReason::XSAVES => Self::Xsaves(operand(vmcs)),
            ExitReason::XRSTORS => Self::Xrstors(operand(vmcs)),
            ExitReason::PCONFIG => Self::Pconfig,
            ExitReason::SPP_EVENT => {
                Self::SppEvent { is_miss: qualification() >> 11 & 1 != 0, guest_physical: guest_physical(vmcs) }
            }
            ExitReason::UMWAIT => Self::Umwait(info(vmcs)),
            ExitReason::TPAUSE => Self::Tpause(info(vmcs)),
            ExitReason::LOADIWKEY => Self::Loadiwkey(info(vmcs)),
            ExitReason::ENCLV => Self::Enclv,
            ExitReason::ENQCMD_PASID => Self::EnqcmdPasid,
            ExitReason::ENQCMDS_PASID => Self::EnqcmdsPasid,
            ExitReason::BUS_LOCK => Self::BusLock,
            ExitReason::INSTRUCTION_TIMEOUT => {
                Self::InstructionTimeout { is_context_invalid: qualification() & 1 != 0 }
            }
            ExitReason::SEAMCALL => Self::Seamcall,
            ExitReason::TDCALL => Self::Tdcall,
            ExitReason::RDMSRLIST => Self::Rdmsrlist,
            ExitReason::WRMSRLIST => Self::Wrmsrlist,
            ExitReason(other) => Self::Unknown(other),
        }
    }
}
