//! Why a VM ends.

use arch::{GuestPhys, Linear};
use nested::Abort;

/// Why a VM stopped, by itself or by L0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Stop {
    /// L1 turned its machine off.
    PowerOff,
    /// L1 reset its machine.
    Reset,
    /// L1 wrote this to its exit port.
    ExitPort(u32),
    /// A fault while a double fault was being delivered: the machine would shut down.
    TripleFault,
    /// Every vCPU halted with interrupts off: nothing can wake the VM.
    HaltedForEver,
    /// L1 fetched an instruction from the registers of a device.
    FetchFromDevice(GuestPhys),
    /// L1 moved the registers of a local APIC to this page, which is its RAM. RAM is mapped for all vCPUs alike, so the
    /// registers would not show.
    ApicOverMemory(GuestPhys),
    /// Delivery of an interrupt or exception touched an address outside L1's memory: its IDT, GDT, TSS or stack is there.
    DeliveryOutsideMemory(GuestPhys),
    /// The paging structures that CR3 names are, in part, outside L1's memory.
    PageTablesOutsideMemory(GuestPhys),
    /// A device-memory access by an instruction that the emulator does not know; its first bytes.
    UnknownInstruction {
        /// Where it stands.
        rip: Linear,
        /// Its bytes, as many as were fetched.
        bytes: [u8; 15],
    },
    /// A hardware task switch, which Nestling does not emulate.
    TaskSwitch,
    /// L1 sent an INIT to the bootstrap processor, which would restart firmware that is not there.
    BootstrapInit,
    /// VMX abort: an exit of L2 to L1 could not be completed.
    VmxAbort(Abort),
    /// A VM exit that L0 did not ask for: a bug of ours. The basic exit reason.
    UnexpectedExit(u16),
    /// VM entry failed: a bug of ours, explained in the log.
    EntryFailed,
}

impl Stop {
    /// The exit status of the run: 0 for an orderly end, the guest's own code, or 125 where L0 had to stop it.
    pub const fn status(self) -> u32 {
        match self {
            Self::PowerOff | Self::Reset => 0,
            Self::ExitPort(code) => code,
            _ => 125,
        }
    }

    /// Whether L0 stopped the VM, which did not ask for it.
    pub const fn is_forced(self) -> bool {
        !matches!(self, Self::PowerOff | Self::Reset | Self::ExitPort(_))
    }

    /// One sentence for the user.
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::PowerOff => "L1 turned its machine off",
            Self::Reset => "L1 reset its machine, which ends the run",
            Self::ExitPort(_) => "L1 wrote its exit port",
            Self::TripleFault => {
                "L1 was stopped: triple fault (a fault while delivering a double fault; on a machine this is a shutdown)"
            }
            Self::HaltedForEver => "L1 was stopped: every processor halted with interrupts off, nothing can wake it",
            Self::FetchFromDevice(_) => {
                "L1 was stopped: it jumped into the registers of a device, where no code can be"
            }
            Self::ApicOverMemory(_) => {
                "L1 was stopped: it moved the registers of a local APIC over its memory, which Nestling does not do"
            }
            Self::DeliveryOutsideMemory(_) => {
                "L1 was stopped: its IDT, TSS or stack lies where its machine has no memory, so an event could not be delivered"
            }
            Self::PageTablesOutsideMemory(_) => "L1 was stopped: its page tables lie where its machine has no memory",
            Self::UnknownInstruction { .. } => {
                "L1 was stopped: an instruction that Nestling does not emulate touched device memory"
            }
            Self::TaskSwitch => "L1 was stopped: it used a hardware task switch, which Nestling does not emulate",
            Self::BootstrapInit => {
                "L1 was stopped: INIT sent to its bootstrap processor would restart firmware, and there is none"
            }
            Self::VmxAbort(_) => {
                "L1 was stopped: VMX abort (its host state could not be loaded, or its list of MSRs to store not be stored; on a machine this is a shutdown)"
            }
            Self::UnexpectedExit(_) => "bug in Nestling: a VM exit that it did not ask for",
            Self::EntryFailed => "bug in Nestling: a VM entry failed; the log names the rule",
        }
    }
}
