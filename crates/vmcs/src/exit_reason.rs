//! Exit reasons by number and name.

use crate::access::Access;
use crate::exit::{Exit, VmxInstruction};
use crate::fields;
use crate::instruction_info::DescriptorTableInstruction;
use crate::qualification::EntryFailure;

macro_rules! reasons {
    ($($name:ident = $number:literal, $text:literal;)*) => {
        /// A basic exit reason: bits 15:0 of the exit-reason field (SDM 3D appendix C "VMX Basic Exit Reasons").
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(transparent)]
        pub struct ExitReason(pub u16);

        impl ExitReason {
            $(#[doc = $text] pub const $name: Self = Self($number);)*

            /// Every reason that the manual defines, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The reason's name.
            pub const fn name(self) -> &'static str {
                match self.0 {
                    $($number => $text,)*
                    _ => "unknown exit reason",
                }
            }
        }
    };
}

reasons! {
    EXCEPTION_OR_NMI = 0, "exception or NMI";
    EXTERNAL_INTERRUPT = 1, "external interrupt";
    TRIPLE_FAULT = 2, "triple fault";
    INIT = 3, "INIT signal";
    SIPI = 4, "start-up IPI";
    IO_SMI = 5, "I/O system-management interrupt";
    OTHER_SMI = 6, "other SMI";
    INTERRUPT_WINDOW = 7, "interrupt window";
    NMI_WINDOW = 8, "NMI window";
    TASK_SWITCH = 9, "task switch";
    CPUID = 10, "CPUID";
    GETSEC = 11, "GETSEC";
    HLT = 12, "HLT";
    INVD = 13, "INVD";
    INVLPG = 14, "INVLPG";
    RDPMC = 15, "RDPMC";
    RDTSC = 16, "RDTSC";
    RSM = 17, "RSM";
    VMCALL = 18, "VMCALL";
    VMCLEAR = 19, "VMCLEAR";
    VMLAUNCH = 20, "VMLAUNCH";
    VMPTRLD = 21, "VMPTRLD";
    VMPTRST = 22, "VMPTRST";
    VMREAD = 23, "VMREAD";
    VMRESUME = 24, "VMRESUME";
    VMWRITE = 25, "VMWRITE";
    VMXOFF = 26, "VMXOFF";
    VMXON = 27, "VMXON";
    CONTROL_REGISTER = 28, "control-register access";
    DEBUG_REGISTER = 29, "MOV DR";
    IO = 30, "I/O instruction";
    RDMSR = 31, "RDMSR";
    WRMSR = 32, "WRMSR";
    ENTRY_FAILURE_GUEST_STATE = 33, "VM-entry failure due to invalid guest state";
    ENTRY_FAILURE_MSR_LOADING = 34, "VM-entry failure due to MSR loading";
    MWAIT = 36, "MWAIT";
    MONITOR_TRAP_FLAG = 37, "monitor trap flag";
    MONITOR = 39, "MONITOR";
    PAUSE = 40, "PAUSE";
    ENTRY_FAILURE_MACHINE_CHECK = 41, "VM-entry failure due to machine-check event";
    TPR_BELOW_THRESHOLD = 43, "TPR below threshold";
    APIC_ACCESS = 44, "APIC access";
    VIRTUALIZED_EOI = 45, "virtualized EOI";
    GDTR_IDTR_ACCESS = 46, "access to GDTR or IDTR";
    LDTR_TR_ACCESS = 47, "access to LDTR or TR";
    EPT_VIOLATION = 48, "EPT violation";
    EPT_MISCONFIGURATION = 49, "EPT misconfiguration";
    INVEPT = 50, "INVEPT";
    RDTSCP = 51, "RDTSCP";
    PREEMPTION_TIMER = 52, "VMX-preemption timer expired";
    INVVPID = 53, "INVVPID";
    WBINVD = 54, "WBINVD or WBNOINVD";
    XSETBV = 55, "XSETBV";
    APIC_WRITE = 56, "APIC write";
    RDRAND = 57, "RDRAND";
    INVPCID = 58, "INVPCID";
    VMFUNC = 59, "VMFUNC";
    ENCLS = 60, "ENCLS";
    RDSEED = 61, "RDSEED";
    PML_FULL = 62, "page-modification log full";
    XSAVES = 63, "XSAVES";
    XRSTORS = 64, "XRSTORS";
    PCONFIG = 65, "PCONFIG";
    SPP_EVENT = 66, "SPP-related event";
    UMWAIT = 67, "UMWAIT";
    TPAUSE = 68, "TPAUSE";
    LOADIWKEY = 69, "LOADIWKEY";
    ENCLV = 70, "ENCLV";
    ENQCMD_PASID = 72, "ENQCMD PASID translation failure";
    ENQCMDS_PASID = 73, "ENQCMDS PASID translation failure";
    BUS_LOCK = 74, "bus lock";
    INSTRUCTION_TIMEOUT = 75, "instruction timeout";
    SEAMCALL = 76, "SEAMCALL";
    TDCALL = 77, "TDCALL";
    RDMSRLIST = 78, "RDMSRLIST";
    WRMSRLIST = 79, "WRMSRLIST";
}

impl ExitReason {
    /// The basic exit reason of the exit that just happened: bits 15:0 of the field.
    #[inline(always)]
    pub fn read(vmcs: &impl Access) -> Self {
        Self((vmcs.read(fields::EXIT_REASON) & 0xffff) as u16)
    }

    /// One more than the highest number in [`ExitReason::ALL`]: how many counters an array of them needs.
    pub const COUNT: usize = 80;
}

impl core::fmt::Debug for ExitReason {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "exit reason {} ({})", self.0, self.name())
    }
}

#[cfg(feature = "defmt")]
impl defmt::Format for ExitReason {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "exit reason {=u16} ({=str})", self.0, self.name());
    }
}

impl Exit {
    /// The basic exit reason, for counters and logs.
    pub const fn reason(&self) -> ExitReason {
        match *self {
            Self::ExceptionOrNmi(_) => ExitReason::EXCEPTION_OR_NMI,
            Self::ExternalInterrupt(_) => ExitReason::EXTERNAL_INTERRUPT,
            Self::TripleFault => ExitReason::TRIPLE_FAULT,
            Self::Init => ExitReason::INIT,
            Self::Sipi { .. } => ExitReason::SIPI,
            Self::IoSmi => ExitReason::IO_SMI,
            Self::OtherSmi => ExitReason::OTHER_SMI,
            Self::InterruptWindow => ExitReason::INTERRUPT_WINDOW,
            Self::NmiWindow => ExitReason::NMI_WINDOW,
            Self::TaskSwitch(_) => ExitReason::TASK_SWITCH,
            Self::Cpuid => ExitReason::CPUID,
            Self::Getsec => ExitReason::GETSEC,
            Self::Hlt => ExitReason::HLT,
            Self::Invd => ExitReason::INVD,
            Self::Invlpg(_) => ExitReason::INVLPG,
            Self::Rdpmc => ExitReason::RDPMC,
            Self::Rdtsc => ExitReason::RDTSC,
            Self::Rsm => ExitReason::RSM,
            Self::Vmcall => ExitReason::VMCALL,
            Self::Vmx(instruction) => instruction.reason(),
            Self::ControlRegister(_) => ExitReason::CONTROL_REGISTER,
            Self::DebugRegister(_) => ExitReason::DEBUG_REGISTER,
            Self::Io(_) => ExitReason::IO,
            Self::Rdmsr => ExitReason::RDMSR,
            Self::Wrmsr => ExitReason::WRMSR,
            Self::EntryFailed(EntryFailure::GuestState { .. }) => ExitReason::ENTRY_FAILURE_GUEST_STATE,
            Self::EntryFailed(EntryFailure::MsrLoading { .. }) => ExitReason::ENTRY_FAILURE_MSR_LOADING,
            Self::EntryFailed(EntryFailure::MachineCheck) => ExitReason::ENTRY_FAILURE_MACHINE_CHECK,
            Self::Mwait { .. } => ExitReason::MWAIT,
            Self::MonitorTrapFlag => ExitReason::MONITOR_TRAP_FLAG,
            Self::Monitor => ExitReason::MONITOR,
            Self::Pause => ExitReason::PAUSE,
            Self::TprBelowThreshold => ExitReason::TPR_BELOW_THRESHOLD,
            Self::ApicAccess(_) => ExitReason::APIC_ACCESS,
            Self::VirtualizedEoi { .. } => ExitReason::VIRTUALIZED_EOI,
            Self::DescriptorTable(instruction, _) => match instruction {
                DescriptorTableInstruction::Sgdt
                | DescriptorTableInstruction::Sidt
                | DescriptorTableInstruction::Lgdt
                | DescriptorTableInstruction::Lidt => ExitReason::GDTR_IDTR_ACCESS,
                _ => ExitReason::LDTR_TR_ACCESS,
            },
            Self::EptViolation(_) => ExitReason::EPT_VIOLATION,
            Self::EptMisconfiguration { .. } => ExitReason::EPT_MISCONFIGURATION,
            Self::Rdtscp => ExitReason::RDTSCP,
            Self::PreemptionTimer => ExitReason::PREEMPTION_TIMER,
            Self::Wbinvd => ExitReason::WBINVD,
            Self::Xsetbv => ExitReason::XSETBV,
            Self::ApicWrite { .. } => ExitReason::APIC_WRITE,
            Self::Rdrand(_) => ExitReason::RDRAND,
            Self::Invpcid(_) => ExitReason::INVPCID,
            Self::Vmfunc => ExitReason::VMFUNC,
            Self::Encls => ExitReason::ENCLS,
            Self::Rdseed(_) => ExitReason::RDSEED,
            Self::PmlFull { .. } => ExitReason::PML_FULL,
            Self::Xsaves(_) => ExitReason::XSAVES,
            Self::Xrstors(_) => ExitReason::XRSTORS,
            Self::Pconfig => ExitReason::PCONFIG,
            Self::SppEvent { .. } => ExitReason::SPP_EVENT,
            Self::Umwait(_) => ExitReason::UMWAIT,
            Self::Tpause(_) => ExitReason::TPAUSE,
            Self::Loadiwkey(_) => ExitReason::LOADIWKEY,
            Self::Enclv => ExitReason::ENCLV,
            Self::EnqcmdPasid => ExitReason::ENQCMD_PASID,
            Self::EnqcmdsPasid => ExitReason::ENQCMDS_PASID,
            Self::BusLock => ExitReason::BUS_LOCK,
            Self::InstructionTimeout { .. } => ExitReason::INSTRUCTION_TIMEOUT,
            Self::Seamcall => ExitReason::SEAMCALL,
            Self::Tdcall => ExitReason::TDCALL,
            Self::Rdmsrlist => ExitReason::RDMSRLIST,
            Self::Wrmsrlist => ExitReason::WRMSRLIST,
            Self::Unknown(number) => ExitReason(number),
        }
    }

    /// The exit's name, for counters and logs.
    pub const fn name(&self) -> &'static str {
        self.reason().name()
    }
}

impl VmxInstruction {
    const fn reason(self) -> ExitReason {
        match self {
            Self::Vmclear(_) => ExitReason::VMCLEAR,
            Self::Vmlaunch => ExitReason::VMLAUNCH,
            Self::Vmptrld(_) => ExitReason::VMPTRLD,
            Self::Vmptrst(_) => ExitReason::VMPTRST,
            Self::Vmread(_) => ExitReason::VMREAD,
            Self::Vmresume => ExitReason::VMRESUME,
            Self::Vmwrite(_) => ExitReason::VMWRITE,
            Self::Vmxoff => ExitReason::VMXOFF,
            Self::Vmxon(_) => ExitReason::VMXON,
            Self::Invept(_) => ExitReason::INVEPT,
            Self::Invvpid(_) => ExitReason::INVVPID,
        }
    }
}
