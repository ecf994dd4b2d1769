//! Exit qualifications, decoded (SDM 3C 28.2.1 "Basic VM-Exit Information").

use arch::access::Width;
use arch::{Gpr, GuestPhys, Linear};
use bitflags::bitflags;

/// The low 16 bits of a qualification, shifted down by `shift`.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "16 bits are what is asked for")]
const fn bits_16(qualification: u64, shift: u32) -> u16 {
    (qualification >> shift) as u16
}

#[inline(always)]
const fn gpr(qualification: u64) -> Gpr {
    Gpr::from_number((qualification >> 8 & 0xf) as u8)
}

/// An access to a control register (table "Exit Qualification for Control-Register Accesses").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum CrAccess {
    /// MOV to CR.
    MovTo {
        /// Control register: 0, 3, 4 or 8.
        register: u8,
        /// Where the value comes from.
        source: Gpr,
    },
    /// MOV from CR.
    MovFrom {
        /// Control register: 3 or 8.
        register: u8,
        /// Where the value goes.
        destination: Gpr,
    },
    /// CLTS.
    Clts,
    /// LMSW.
    Lmsw {
        /// The 16 bits of source data.
        source: u16,
        /// Whether they came from memory; the field `GUEST_LINEAR_ADDRESS` then has its address.
        from_memory: bool,
    },
}

impl CrAccess {
    /// From an exit qualification.
    #[inline]
    pub const fn decode(qualification: u64) -> Self {
        let register = (qualification & 0xf) as u8;
        match qualification >> 4 & 3 {
            0 => Self::MovTo { register, source: gpr(qualification) },
            1 => Self::MovFrom { register, destination: gpr(qualification) },
            2 => Self::Clts,
            _ => Self::Lmsw { source: bits_16(qualification, 16), from_memory: qualification >> 6 & 1 != 0 },
        }
    }
}

/// A MOV to or from a debug register (table "Exit Qualification for MOV DR").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct DrAccess {
    /// Debug register, 0 to 7.
    pub register: u8,
    /// Whether the debug register is read; written otherwise.
    pub is_read: bool,
    /// The general-purpose register.
    pub gpr: Gpr,
}

impl DrAccess {
    /// From an exit qualification.
    #[inline]
    pub const fn decode(qualification: u64) -> Self {
        Self { register: (qualification & 7) as u8, is_read: qualification >> 4 & 1 != 0, gpr: gpr(qualification) }
    }
}

/// An access to a port (table "Exit Qualification for I/O Instructions").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct IoAccess {
    /// The port.
    pub port: u16,
    /// Byte, word or dword.
    pub width: Width,
    /// IN or INS; OUT or OUTS otherwise.
    pub input: bool,
    /// INS or OUTS. [`crate::InstructionInfo`] then has the address size and, for OUTS, the segment.
    pub string: bool,
    /// With a REP prefix.
    pub rep: bool,
    /// The port is in the instruction; in DX otherwise.
    pub immediate: bool,
}

impl IoAccess {
    /// From an exit qualification.
    #[inline]
    pub const fn decode(qualification: u64) -> Self {
        Self {
            port: bits_16(qualification, 16),
            width: match qualification & 7 {
                0 => Width::Byte,
                1 => Width::Word,
                _ => Width::Dword,
            },
            input: qualification >> 3 & 1 != 0,
            string: qualification >> 4 & 1 != 0,
            rep: qualification >> 5 & 1 != 0,
            immediate: qualification >> 6 & 1 != 0,
        }
    }
}

bitflags! {
    /// The qualification of an EPT violation (table "Exit Qualification for EPT Violations").
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct EptQualification: u64 {
        /// The access was a data read.
        const READ = 1 << 0;
        /// The access was a data write.
        const WRITE = 1 << 1;
        /// The access was an instruction fetch.
        const FETCH = 1 << 2;
        /// All EPT entries used allow reading.
        const READABLE = 1 << 3;
        /// All EPT entries used allow writing.
        const WRITABLE = 1 << 4;
        /// All EPT entries used allow fetching (from supervisor-mode addresses, with mode-based execute control).
        const EXECUTABLE = 1 << 5;
        /// All EPT entries used allow fetching from user-mode addresses; with mode-based execute control only.
        const USER_EXECUTABLE = 1 << 6;
        /// `GUEST_LINEAR_ADDRESS` has the linear address.
        const LINEAR_VALID = 1 << 7;
        /// The access was to the translation of the linear address; to a paging-structure entry otherwise. Counts only
        /// with [`LINEAR_VALID`](Self::LINEAR_VALID).
        const TRANSLATED = 1 << 8;
        /// The linear address is a user-mode one. This and the next two need advanced violation information.
        const USER_LINEAR = 1 << 9;
        /// The guest's paging structures allow writing.
        const LINEAR_WRITABLE = 1 << 10;
        /// The guest's paging structures disable execution.
        const LINEAR_EXECUTE_DISABLE = 1 << 11;
        /// An IRET had unblocked NMIs.
        const NMI_UNBLOCKING = 1 << 12;
        /// The access was to a shadow stack.
        const SHADOW_STACK = 1 << 13;
        /// The EPT entry allows supervisor shadow-stack accesses.
        const SUPERVISOR_SHADOW_STACK = 1 << 14;
        /// The violation was due to guest-paging verification.
        const GUEST_PAGING_VERIFICATION = 1 << 15;
        /// The access was asynchronous to instruction execution: trace output or user-interrupt processing.
        const ASYNCHRONOUS = 1 << 16;
    }
}

#[cfg(feature = "defmt")]
impl defmt::Format for EptQualification {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "{=u64:#x}", self.bits());
    }
}

/// An access that EPT does not allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct EptViolation {
    /// What was attempted and what is allowed.
    pub qualification: EptQualification,
    /// Where.
    pub guest_physical: GuestPhys,
    /// The linear address, where the access had one.
    pub linear: Option<Linear>,
}

/// What started a task switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum TaskSwitchSource {
    /// CALL.
    Call,
    /// IRET.
    Iret,
    /// JMP.
    Jmp,
    /// A task gate in the IDT.
    TaskGate,
}

/// A task switch that the guest attempted (table "Exit Qualification for Task Switches").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct TaskSwitch {
    /// Selector of the new task's TSS.
    pub selector: u16,
    /// What started it.
    pub source: TaskSwitchSource,
}

impl TaskSwitch {
    /// From an exit qualification.
    #[inline]
    pub const fn decode(qualification: u64) -> Self {
        Self {
            selector: bits_16(qualification, 0),
            source: match qualification >> 30 & 3 {
                0 => TaskSwitchSource::Call,
                1 => TaskSwitchSource::Iret,
                2 => TaskSwitchSource::Jmp,
                _ => TaskSwitchSource::TaskGate,
            },
        }
    }
}

/// How the APIC-access page was accessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum ApicAccessKind {
    /// Linear access: a data read by an instruction.
    LinearRead,
    /// Linear access: a data write by an instruction.
    LinearWrite,
    /// Linear access: an instruction fetch.
    LinearFetch,
    /// Linear access while an event was being delivered.
    LinearEventDelivery,
    /// Guest-physical access while an event was being delivered.
    PhysicalEventDelivery,
    /// Guest-physical access for an instruction fetch or during an instruction's execution.
    PhysicalInstruction,
    /// An encoding that the manual reserves.
    Reserved(u8),
}

/// An access to the APIC-access page (table "Exit Qualification for APIC-Access VM Exits from Linear Accesses and
/// Guest-Physical Accesses").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct ApicAccess {
    /// Offset in the page, below 0x1000; undefined for guest-physical accesses.
    pub offset: u16,
    /// How.
    pub kind: ApicAccessKind,
    /// The access was asynchronous to instruction execution, and not part of event delivery.
    pub is_asynchronous: bool,
}

impl ApicAccess {
    /// From an exit qualification.
    #[inline]
    pub const fn decode(qualification: u64) -> Self {
        Self {
            offset: bits_16(qualification, 0) & 0xfff,
            kind: match (qualification >> 12 & 0xf) as u8 {
                0 => ApicAccessKind::LinearRead,
                1 => ApicAccessKind::LinearWrite,
                2 => ApicAccessKind::LinearFetch,
                3 => ApicAccessKind::LinearEventDelivery,
                10 => ApicAccessKind::PhysicalEventDelivery,
                15 => ApicAccessKind::PhysicalInstruction,
                other => ApicAccessKind::Reserved(other),
            },
            is_asynchronous: qualification >> 16 & 1 != 0,
        }
    }
}

/// Why a VM entry failed after the guest state began to load (table "Exit Qualification" in SDM 3C 27.8 "VM-Entry
/// Failures During or After Loading Guest State").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum EntryFailure {
    /// The guest state breaks a rule; [`crate::checks`] says which.
    GuestState {
        /// 0, or 2 (PDPTEs), 3 (NMI injected into blocking by STI), 4 (VMCS link pointer).
        qualification: u64,
    },
    /// An MSR of the VM-entry MSR-load list could not be loaded.
    MsrLoading {
        /// Position in the list, counted from 1.
        entry: u64,
    },
    /// A machine-check event.
    MachineCheck,
}
