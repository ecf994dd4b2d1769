//! From L2 to L1: what L1 is told, what of L2 is saved, and vmcs01 current again.
//!
//! SDM 3C chapter 28 "VM Exits". [`Nested::resume_l1`] is the one place where vmcs01 becomes current after vmcs02: every
//! path from L2 to L1 goes through it.

use arch::GuestPhys;
use vmcs::controls::{EntryControls, ExitControls, PinBased, SecondaryBased};
use vmcs::fields::*;
use vmcs::{Access, EventInfo, EventKind, ExitReason};

use crate::current::{Vmcs01, Vmcs02};
use crate::entry::Abort;
use crate::host_state::Carried;
use crate::msr_lists;
use crate::seam::{L1Memory, Msrs, Processor, Which};
use crate::slots::Slot;
use crate::state::{Nested, Operation};
use crate::vmcs12::ABORT_OFFSET;

/// An exit that L0 makes for L1, not one that the processor made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Synthesized {
    /// Basic exit reason.
    pub reason: u16,
    /// Exit qualification.
    pub qualification: u64,
    /// VM-exit interruption information; not valid for most.
    pub interruption: EventInfo,
    /// Its error code.
    pub error_code: u32,
    /// An event that was on its way into L2 (IDT-vectoring information).
    pub vectoring: Option<Vectoring>,
    /// The guest-physical address of an EPT exit.
    pub guest_physical: Option<u64>,
    /// The instruction information and length of the exit that the processor made stand for this one too.
    pub keeps_instruction: bool,
}

/// An event whose delivery to L2 did not come to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vectoring {
    /// Type and vector.
    pub info: EventInfo,
    /// Its error code, if it delivers one.
    pub error_code: u32,
    /// Length of the instruction that raised it, for software events.
    pub instruction_length: u32,
}

/// L2 has run and stopped.
#[derive(Clone, Copy, Debug)]
struct Left {
    /// What it was doing, as L0 keeps it.
    activity: u32,
    /// An NMI that L0 gives to L1 ended its run.
    by_nmi: bool,
}

/// Why an entry failed after the checks of controls and host state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FailedEntry {
    pub(crate) reason: ExitReason,
    pub(crate) qualification: u64,
}

/// Bit 31 of the exit reason: the entry failed.
const ENTRY_FAILURE: u32 = 1 << 31;
/// Interruptibility: blocking by NMI.
const BLOCKED_BY_NMI: u32 = 1 << 3;

impl Nested {
    /// The exit that the processor just made is L1's: L1 gets it as it is. `activity` is what L2 was doing, as L0 keeps it.
    pub fn reflect<P: Processor, M: L1Memory>(
        &mut self,
        cpu: &mut P,
        memory: &M,
        msrs: &mut impl Msrs<P>,
        activity: u32,
    ) -> Result<(), Abort> {
        let vmcs02 = Vmcs02::assume(cpu.vmcs());
        let vmcs12 = &mut self.vmcs12;
        macro_rules! take {
            ($($field:ident),*) => { $(vmcs12.write($field, vmcs02.read($field));)* };
        }
        take!(
            EXIT_REASON,
            EXIT_QUALIFICATION,
            GUEST_LINEAR_ADDRESS,
            VM_EXIT_INTERRUPTION_INFO,
            IDT_VECTORING_INFO,
            VM_EXIT_INSTRUCTION_LEN,
            VM_EXIT_INSTRUCTION_INFO
        );
        let reason = ExitReason::read(vmcs12);
        if matches!(reason, ExitReason::EPT_VIOLATION | ExitReason::EPT_MISCONFIGURATION) {
            take!(GUEST_PHYSICAL_ADDRESS);
        }
        if EventInfo(vmcs12.read(VM_EXIT_INTERRUPTION_INFO)).has_error_code() {
            take!(VM_EXIT_INTERRUPTION_ERROR_CODE);
        }
        if EventInfo(vmcs12.read(IDT_VECTORING_INFO)).has_error_code() {
            take!(IDT_VECTORING_ERROR_CODE);
        }
        self.resume_l1(cpu, memory, msrs, Some(Left { activity, by_nmi: false }))
    }

    /// L1 gets an exit that L0 made.
    pub fn synthesize<P: Processor, M: L1Memory>(
        &mut self,
        cpu: &mut P,
        memory: &M,
        msrs: &mut impl Msrs<P>,
        activity: u32,
        exit: Synthesized,
    ) -> Result<(), Abort> {
        let vmcs02 = Vmcs02::assume(cpu.vmcs());
        let vmcs12 = &mut self.vmcs12;
        vmcs12.write(EXIT_REASON, u32::from(exit.reason));
        vmcs12.write(EXIT_QUALIFICATION, exit.qualification);
        vmcs12.write(VM_EXIT_INTERRUPTION_INFO, exit.interruption.0);
        vmcs12.write(VM_EXIT_INTERRUPTION_ERROR_CODE, exit.error_code);
        let (info, error_code, length) = match exit.vectoring {
            Some(vectoring) => (vectoring.info, vectoring.error_code, Some(vectoring.instruction_length)),
            None => (EventInfo::NONE, 0, None),
        };
        vmcs12.write(IDT_VECTORING_INFO, info.0);
        vmcs12.write(IDT_VECTORING_ERROR_CODE, error_code);
        if exit.keeps_instruction {
            vmcs12.write(VM_EXIT_INSTRUCTION_LEN, vmcs02.read(VM_EXIT_INSTRUCTION_LEN));
            vmcs12.write(VM_EXIT_INSTRUCTION_INFO, vmcs02.read(VM_EXIT_INSTRUCTION_INFO));
        } else if let Some(length) = length {
            vmcs12.write(VM_EXIT_INSTRUCTION_LEN, length);
        }
        if let Some(address) = exit.guest_physical {
            vmcs12.write(GUEST_PHYSICAL_ADDRESS, address);
            vmcs12.write(GUEST_LINEAR_ADDRESS, vmcs02.read(GUEST_LINEAR_ADDRESS));
        }
        let by_nmi = exit.reason == ExitReason::EXCEPTION_OR_NMI.0 && exit.interruption.is(EventKind::Nmi);
        self.resume_l1(cpu, memory, msrs, Some(Left { activity, by_nmi }))
    }

    /// An entry fails with an exit: nothing of the guest's state is saved, the host's is loaded (SDM 3C 27.8 "VM-Entry
    /// Failures During or After Loading Guest State"). vmcs02 is current.
    pub(crate) fn exit_from_failed_entry<P: Processor, M: L1Memory>(
        &mut self,
        cpu: &mut P,
        memory: &M,
        msrs: &mut impl Msrs<P>,
        failed: FailedEntry,
    ) -> Result<(), Abort> {
        self.vmcs12.write(EXIT_REASON, u32::from(failed.reason.0) | ENTRY_FAILURE);
        self.vmcs12.write(EXIT_QUALIFICATION, failed.qualification);
        // What the entry loaded into vmcs02 was vmcs12's; nothing there is newer. Its event was not injected, and is not to be
        // by the next entry.
        Vmcs02::assume(cpu.vmcs()).write(VM_ENTRY_INTERRUPTION_INFO, EventInfo::NONE.0);
        self.resume_l1(cpu, memory, msrs, None)
    }

    /// The processor found fault with vmcs02 although the checks had not: L1 is told what the processor said.
    pub fn exit_from_refused_entry<P: Processor, M: L1Memory>(
        &mut self,
        cpu: &mut P,
        memory: &M,
        msrs: &mut impl Msrs<P>,
    ) -> Result<(), Abort> {
        let vmcs02 = Vmcs02::assume(cpu.vmcs());
        let (reason, qualification) = (ExitReason::read(&vmcs02), vmcs02.read(EXIT_QUALIFICATION));
        self.transitions.failed_entries += 1;
        self.is_checked = false;
        self.is_merged = false;
        self.exit_from_failed_entry(cpu, memory, msrs, FailedEntry { reason, qualification })
    }

    /// Saves what of L2 is saved at once; what of its state L1 keeps.
    #[inline(always)]
    fn save_l2<P: Processor>(&mut self, cpu: &mut P, activity: u32) -> Carried {
        self.transitions.exits_to_l1 += 1;
        if let Some(value) = self.timer_value(cpu) {
            self.vmcs12.write(VMX_PREEMPTION_TIMER_VALUE, value);
        }
        let vmcs02 = Vmcs02::assume(cpu.vmcs());
        let vmcs12 = &mut self.vmcs12;
        let (rip, rflags) = (vmcs02.read(GUEST_RIP), vmcs02.read(GUEST_RFLAGS));
        self.at_exit.rip = rip;
        self.at_exit.rflags = rflags;
        vmcs12.write(GUEST_RIP, rip);
        vmcs12.write(GUEST_RSP, vmcs02.read(GUEST_RSP));
        vmcs12.write(GUEST_RFLAGS, rflags);
        vmcs12.write(GUEST_INTERRUPTIBILITY_INFO, vmcs02.read(GUEST_INTERRUPTIBILITY_INFO));
        vmcs12.write(GUEST_ACTIVITY_STATE, activity);
        // "IA-32e mode guest" follows IA32_EFER.LMA; the injected event's valid bit is cleared.
        let long = vmcs02.read(VM_ENTRY_CONTROLS) & EntryControls::IA32E_MODE_GUEST.bits();
        let entry = vmcs12.read(VM_ENTRY_CONTROLS);
        if (entry ^ long) & EntryControls::IA32E_MODE_GUEST.bits() != 0 {
            // As if L1 had written it: an IA32_EFER that is not saved may not fit any more.
            vmcs12.write(VM_ENTRY_CONTROLS, entry ^ EntryControls::IA32E_MODE_GUEST.bits());
            vmcs12.dirty.insert(Slot::known(VM_ENTRY_CONTROLS.encoding()));
        }
        let event = vmcs12.read(VM_ENTRY_INTERRUPTION_INFO);
        vmcs12.write(VM_ENTRY_INTERRUPTION_INFO, event & 0x7fff_ffff);
        self.stale = self.saved;
        self.carried(&Vmcs02::assume(cpu.vmcs()))
    }

    /// vmcs01 becomes current, and L1 continues in the host state of vmcs12, after L2 has `left`, if it ran. The one way from L2 to
    /// L1; work for vmcs01 that had to wait until now is done here.
    #[inline(never)]
    fn resume_l1<P: Processor, M: L1Memory>(
        &mut self,
        cpu: &mut P,
        memory: &M,
        msrs: &mut impl Msrs<P>,
        left: Option<Left>,
    ) -> Result<(), Abort> {
        let mut carried = None;
        if let Some(left) = left {
            carried = Some(self.save_l2(cpu, left.activity));
            let count = self.vmcs12.read(VM_EXIT_MSR_STORE_COUNT);
            if count != 0 {
                let list = GuestPhys(self.vmcs12.read(VM_EXIT_MSR_STORE_ADDR));
                if msr_lists::store(cpu, memory, msrs, list, count).is_err() {
                    return Err(self.abort(memory, Abort::SavingGuestMsrs));
                }
            }
        }
        self.operation = Operation::Root;
        self.entry_pending = false;
        self.timer_deadline = None;
        self.mtf_pending = false;
        if self.pages.shadow_vmcs.is_some() {
            cpu.with_shadow(Which::Vmcs01, |shadow| self.fill_shadow(shadow));
        } else {
            cpu.make_current(Which::Vmcs01);
        }
        let mut vmcs01 = Vmcs01::assume(cpu.vmcs());
        self.deferred.drain(&mut vmcs01);
        self.load_host_state(&mut vmcs01, carried.as_ref());
        let mut interruptibility = vmcs01.read(GUEST_INTERRUPTIBILITY_INFO) & BLOCKED_BY_NMI;
        if left.is_some_and(|left| left.by_nmi) {
            interruptibility |= BLOCKED_BY_NMI;
        } else if carried.is_some() && !self.has_virtual_nmis() {
            // Blocking by NMI is the processor's own, for L1 and L2 alike.
            interruptibility = self.vmcs12.read(GUEST_INTERRUPTIBILITY_INFO) & BLOCKED_BY_NMI;
        }
        vmcs01.write(GUEST_INTERRUPTIBILITY_INFO, interruptibility);
        if !self.secondary12().contains(SecondaryBased::ENABLE_VPID) {
            cpu.flush_l1();
        }
        let exit = ExitControls::from_bits_retain(self.vmcs12.read(VM_EXIT_CONTROLS));
        if !exit.contains(ExitControls::HOST_ADDRESS_SPACE_SIZE) {
            self.load_host_pdptes(&mut Vmcs01::assume(cpu.vmcs()), memory)
                .map_err(|abort| self.abort(memory, abort))?;
        }
        let count = self.vmcs12.read(VM_EXIT_MSR_LOAD_COUNT);
        if count != 0 {
            let list = GuestPhys(self.vmcs12.read(VM_EXIT_MSR_LOAD_ADDR));
            if msr_lists::load(cpu, memory, msrs, list, count).is_err() {
                return Err(self.abort(memory, Abort::LoadingHostMsrs));
            }
        }
        Ok(())
    }

    /// Writes the abort indicator into L1's VMCS region.
    #[cold]
    fn abort(&self, memory: &impl L1Memory, abort: Abort) -> Abort {
        if let Some(region) = self.current {
            // The region is in RAM, or it would not be current.
            let _ = memory.write(region.add(ABORT_OFFSET), &(abort as u32).to_le_bytes());
        }
        abort
    }

    /// Whether blocking by NMI in L2 is L2's alone.
    pub(crate) fn has_virtual_nmis(&self) -> bool {
        PinBased::from_bits_retain(self.vmcs12.read(PIN_BASED_VM_EXEC_CONTROL)).contains(PinBased::VIRTUAL_NMIS)
    }
}
