//! One virtual CPU: what of it is not in the VMCS.

use arch::control::Rflags;
use arch::{Fault, GuestRegs, Vector};
use nested::{DeferredCounts, L1Apic, Nested, Synthesized, Transitions};
use vmcs::controls::PrimaryBased;
use vmcs::fields::GUEST_RFLAGS;
use vmcs::{Access, Capabilities, EventInfo, EventKind};

use crate::counters::Counters;
use crate::cpu::Cpu;
use crate::cpuid::CpuidTable;
use crate::exits::Next;
use crate::mtrr::Mtrrs;
use crate::stop::Stop;
use emulate::Remembered;

/// What a vCPU is doing (SDM 3C 25.4.2 "Guest Non-Register State", activity state; kept in software because L0
/// intercepts HLT and blocks INIT).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Activity {
    /// Executing instructions.
    Active,
    /// Waiting for an interrupt.
    Halted,
    /// Waiting for a start-up IPI.
    WaitForSipi,
}

/// An event on its way into the guest: VM-entry interruption information, with what belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Injection {
    /// Type, vector, whether an error code is delivered.
    pub info: EventInfo,
    /// The error code, if it is delivered.
    pub error_code: u32,
    /// Length of the instruction, for software interrupts and exceptions.
    pub instruction_length: u32,
}

/// One virtual CPU of L1.
pub struct Vcpu {
    /// General registers, while L0 runs.
    pub regs: GuestRegs,
    /// The local APIC.
    pub apic: L1Apic,
    /// Exits by reason.
    pub counters: Counters,
    /// Number of the vCPU within its VM.
    pub(crate) index: u16,
    pub(crate) bootstrap: bool,
    pub(crate) cpuid: CpuidTable,
    pub(crate) mtrrs: Mtrrs,
    pub(crate) activity: Activity,
    /// Something may have to happen before the next entry. While it is false and the mailbox is empty, the run loop
    /// goes straight back into the guest.
    pub(crate) attention: bool,
    /// When attention was paid last, nothing was left waiting outside of the APIC.
    pub(crate) calm: bool,
    /// vmcs01 has been launched since it was last cleared.
    pub(crate) launched: bool,
    /// vmcs02 has been launched since it was last cleared.
    pub(crate) launched02: bool,
    /// L2 is the guest that runs: what [`Nested::in_l2`] says, at hand for the run loop.
    pub(crate) in_l2: bool,
    /// Where the last operand of a VMX instruction was.
    pub(crate) operand: Option<Remembered>,
    /// Why the VM must stop, once a handler said [`Next::Stop`].
    pub(crate) stopping: Option<Stop>,
    /// VMX for L1's own guests; none where L1 does not have it.
    pub(crate) nested: Option<&'static mut Nested>,
    /// An INIT that VMX root operation blocks, or that L2 has not met yet.
    pub(crate) init_latched: bool,
    /// Something waits for L2 to have run: its next run ends before its first instruction.
    pub(crate) leaves_l2_at_once: bool,
    /// An exit that L1 gets before L2 runs again: a fault that L0 found in L2 and that L1 intercepts, or the monitor trap flag's.
    pub(crate) exit_of_l2: Option<Synthesized>,
    /// An event whose delivery an exit cut short, or a fault of the exit itself: next into the guest, before all others.
    pub(crate) injection: Option<Injection>,
    /// NMIs that wait; the machine latches one while another is in service.
    pub(crate) nmi_pending: bool,
    /// A message in ExtINT mode arrived: the PIC has an interrupt for this processor.
    pub(crate) extint_message: bool,
    /// Primary processor-based controls as the VMCS has them, without the window-exiting bits.
    pub(crate) primary: PrimaryBased,
    /// The window-exiting bits as the VMCS has them.
    pub(crate) windows: PrimaryBased,
    /// Guest TSC less machine TSC.
    pub(crate) tsc_offset: u64,
    pub(crate) tsc_adjust: u64,
    pub(crate) xcr0: u64,
    /// CR4 bits the guest may set.
    pub(crate) cr4_offered: arch::control::Cr4,
    /// IA32_MISC_ENABLE.
    pub(crate) misc_enable: u64,
    /// Bochs's VM entry with RFLAGS.IF clear leaves external interrupts masked although they should exit, so that a kick may come
    /// late: with several processors a run there lasts at most so many TSC ticks.
    pub(crate) kick_patience: Option<u64>,
    /// See [`crate::Identity::repairs_lost_rip`].
    pub(crate) repairs_lost_rip: bool,
    /// MCG_STATUS as the guest left it.
    pub(crate) mcg_status: u64,
    /// Which of [`vlapic::Reason::OF_REGISTERS`] the VM was told of.
    pub(crate) inhibits: [bool; 2],
    /// Machine TSC at which this vCPU's own timer wants attention; `u64::MAX` for never.
    pub(crate) deadline: u64,
    /// Machine TSC at which the run ends to let another vCPU have the processor.
    pub(crate) slice_end: u64,
    /// It spins, since it last looked for events.
    pub(crate) spins: bool,
    /// The VMX-preemption timer holds something else than "never".
    pub(crate) timer_armed: bool,
    /// The same of vmcs02.
    pub(crate) timer02_armed: bool,
    /// log2 of the TSC ticks per tick of the VMX-preemption timer.
    pub(crate) timer_shift: u32,
}

impl Vcpu {
    /// Number of the vCPU within its VM.
    pub const fn index(&self) -> u16 {
        self.index
    }

    /// Whether L2 is the guest that runs.
    #[inline(always)]
    pub fn in_l2(&self) -> bool {
        self.in_l2
    }

    /// What happened between L1 and L2, where L1 has VMX.
    pub fn transitions(&self) -> Option<Transitions> {
        self.nested.as_ref().map(|nested| nested.transitions)
    }

    /// What had to wait for vmcs01, where L1 has VMX.
    pub fn deferred_counts(&self) -> Option<&DeferredCounts> {
        self.nested.as_ref().map(|nested| nested.deferred_counts())
    }

    /// What the vCPU is doing.
    pub const fn activity(&self) -> Activity {
        self.activity
    }

    /// XCR0 as the guest has set it: to be loaded before its first entry on a processor.
    pub const fn xcr0(&self) -> u64 {
        self.xcr0
    }

    /// When this vCPU's timer wants to run, in machine TSC; `u64::MAX` for never.
    pub fn deadline(&self) -> u64 {
        match &self.nested {
            Some(nested) if self.in_l2 => self.deadline.min(nested.timer_deadline()),
            _ => self.deadline,
        }
    }

    /// The VMCS was cleared, to be loaded on another processor: the next entry is a VMLAUNCH.
    pub const fn vmcs_was_cleared(&mut self) {
        self.launched = false;
        self.launched02 = false;
        self.attention = true;
    }

    /// Whether CR0 or CR4 fits VMX operation, if L1 is in it (SDM 3C 24.8 "Restrictions on VMX Operation").
    pub(crate) fn fits_vmx_operation(&self, fits: impl Fn(&Capabilities) -> bool) -> bool {
        self.nested.as_ref().is_none_or(|nested| !nested.in_vmx_operation() || fits(nested.capabilities()))
    }

    /// The VM must stop, for this reason.
    #[cold]
    pub(crate) fn stops(&mut self, stop: Stop) -> Next {
        self.stopping = Some(stop);
        Next::Stop
    }

    /// Queues `fault` for the next entry.
    ///
    /// A fault while another event was being delivered follows SDM 3A table 6-5 "Conditions for Generating a Double
    /// Fault"; the only events that can be in `injection` here come from IDT-vectoring information.
    ///
    /// A fault's saved RFLAGS have RF set, so that a handler's return does not run into a breakpoint a second time (SDM 3B
    /// 18.3.1.1 "Instruction-Breakpoint Exception Condition"); injection pushes RFLAGS as they are.
    pub(crate) fn inject_fault(&mut self, cpu: &mut impl Cpu, fault: Fault) -> Next {
        let (vector, error_code) = match fault {
            Fault::Ud => (6, None),
            Fault::Ss(code) => (12, Some(code)),
            Fault::Gp(code) => (13, Some(code)),
            Fault::Pf { error, .. } => (14, Some(error)),
            Fault::Ac => (17, Some(0)),
            Fault::Db(_) => (1, None),
        };
        if self.in_l2
            && let Some(exit) = self.nested.as_ref().and_then(|nested| nested.exit_for_fault(cpu.vmcs(), fault))
        {
            // The exit tells of an event that it cut short.
            self.injection = None;
            self.exit_of_l2 = Some(exit);
            return Next::Attend;
        }
        let first = self.injection.take();
        let injection = match first.map_or(Combined::Second, |first| combine(first.info, vector)) {
            Combined::Second => {
                if !matches!(fault, Fault::Db(_)) {
                    let flags = cpu.vmcs().read(GUEST_RFLAGS);
                    cpu.vmcs().write(GUEST_RFLAGS, flags | Rflags::RF.bits());
                }
                Injection::exception(vector, error_code)
            }
            Combined::DoubleFault => Injection::exception(8, Some(0)),
            Combined::Shutdown => return self.stops(Stop::TripleFault),
        };
        // What delivery of the exception by the processor would have left in the registers: injection does not.
        match fault {
            Fault::Pf { address, .. } => cpu.set_cr2(address),
            Fault::Db(causes) => {
                // Bits 3:0 are replaced; BD, BS and BT accumulate until the guest clears them (SDM 3B 18.2.3 "Debug Status Register (DR6)").
                let dr6 = cpu.dr6();
                cpu.set_dr6(dr6 & !0xf | causes & 0xe00f);
            }
            _ => {}
        }
        self.injection = Some(injection);
        Next::Attend
    }
}

impl Injection {
    /// An event that brings neither error code nor instruction length.
    pub(crate) const fn without_details(info: EventInfo) -> Self {
        Self { info, error_code: 0, instruction_length: 0 }
    }

    /// A hardware exception.
    pub(crate) fn exception(vector: u8, error_code: Option<u32>) -> Self {
        Self {
            info: EventInfo::hardware_exception(Vector(vector), error_code.is_some()),
            error_code: error_code.unwrap_or(0),
            instruction_length: 0,
        }
    }
}

enum Combined {
    Second,
    DoubleFault,
    Shutdown,
}

/// What a second exception does to the delivery of a first event.
fn combine(first: EventInfo, second: u8) -> Combined {
    const fn contributory(vector: u8) -> bool {
        matches!(vector, 0 | 10..=13 | 21)
    }
    if !first.is(EventKind::HardwareException) {
        // Interrupts and software events are benign: the fault is delivered in their place.
        return Combined::Second;
    }
    let first = first.vector().0;
    if first == 8 {
        Combined::Shutdown
    } else if contributory(first) && contributory(second) || first == 14 && (contributory(second) || second == 14) {
        Combined::DoubleFault
    } else {
        Combined::Second
    }
}
