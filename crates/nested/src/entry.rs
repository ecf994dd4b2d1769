//! VMLAUNCH and VMRESUME by L1: judge, merge, switch.
//!
//! SDM 3C chapter 27 "VM Entries". All checks are made here, in the manual's order, before vmcs02 is touched: the processor's
//! own checks of vmcs02 then find nothing, and L1 learns which rule it broke. An entry after which L1 changed little judges
//! only what can have become wrong.

use arch::{GuestPhys, Msr};
use vmcs::checks::{Outcome as Broken, Rule};
use vmcs::controls::{EntryControls, ExitControls, PinBased, PrimaryBased, SecondaryBased};
use vmcs::fields::*;
use vmcs::{Access, Capabilities, EventInfo, ExitReason, InstructionError};

use crate::current::{Vmcs01, Vmcs02};
use crate::exit::FailedEntry;
use crate::explain::Explanation;
use crate::merge::Kept;
use crate::msr_lists;
use crate::outcome::Outcome;
use crate::recheck::Newest;
use crate::seam::{L1Memory, Msrs, Processor, Which};
use crate::state::{Nested, Operation};
use crate::vmcs12::Vmcs12;

/// What came of VMLAUNCH or VMRESUME.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// The instruction failed: L1 goes on behind it.
    Failed(Outcome),
    /// vmcs02 is current and L2 is to run, in this activity state: 0 (active), 1 (HLT) or 3 (wait-for-SIPI).
    Entered {
        /// The activity state.
        activity: u32,
    },
    /// The entry failed as a VM exit; vmcs01 is current and has the host state.
    Exited,
    /// The exit that the failed entry became could not be completed.
    Aborted(Abort),
}

/// Why an exit to L1 could not be completed: the processor would shut down (SDM 3C 28.7 "VMX Aborts").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(u32)]
pub enum Abort {
    /// An MSR of the VM-exit MSR-store list could not be saved.
    SavingGuestMsrs = 1,
    /// The host's page-directory-pointer-table entries have reserved bits set.
    HostPdptes = 2,
    /// An MSR of the VM-exit MSR-load list could not be loaded.
    LoadingHostMsrs = 4,
}

/// What the rules need to know of L1's processor.
#[derive(Clone, Copy, Debug)]
pub struct L1Processor {
    /// L1's TSC less the machine's.
    pub tsc_offset: u64,
    /// CPUID leaf 7, EBX bit 2.
    pub has_sgx: bool,
    /// CPUID leaf 7, EBX bit 11.
    pub has_rtm: bool,
}

/// Why an entry of L1 failed, for the log.
#[derive(Clone, Copy, Debug)]
pub struct Refusal<'a> {
    /// The rule, or none where an MSR could not be loaded.
    pub rule: Option<&'static Rule>,
    /// What L1 was told.
    pub outcome: Broken,
    /// The fields' values.
    pub vmcs12: &'a Vmcs12,
    /// What L1's processor offers.
    pub(crate) capabilities: &'a Capabilities,
    /// The MSR that could not be loaded, and its value.
    pub(crate) listed: Option<(Msr, u64)>,
}

impl Refusal<'_> {
    /// The failure in words.
    pub fn explanation(&self) -> Explanation {
        Explanation::new(self)
    }
}

/// Interruptibility: blocking by MOV SS.
pub(crate) const BLOCKED_BY_MOV_SS: u32 = 1 << 1;

impl Nested {
    /// VMLAUNCH (`launch`) or VMRESUME, executed by L1 in VMX root operation at privilege level 0; vmcs01 is current.
    /// `refused` is told why an entry fails.
    pub fn enter<P: Processor, M: L1Memory>(
        &mut self,
        cpu: &mut P,
        memory: &M,
        msrs: &mut impl Msrs<P>,
        launch: bool,
        l1: &L1Processor,
        refused: &mut dyn FnMut(Refusal<'_>),
    ) -> Entry {
        if self.current.is_none() || self.is_shadow {
            return Entry::Failed(Outcome::FailInvalid);
        }
        let vmcs01 = Vmcs01::assume(cpu.vmcs());
        if vmcs01.read(GUEST_INTERRUPTIBILITY_INFO) & BLOCKED_BY_MOV_SS != 0 {
            return self.failed_instruction(InstructionError::BLOCKED_BY_MOV_SS);
        }
        if launch && self.vmcs12.launched {
            return self.failed_instruction(InstructionError::VMLAUNCH_NOT_CLEAR);
        }
        if !launch && !self.vmcs12.launched {
            return self.failed_instruction(InstructionError::VMRESUME_NOT_LAUNCHED);
        }
        let kept = self.kept(&vmcs01);
        if self.pages.shadow_vmcs.is_some() {
            cpu.with_shadow(Which::Vmcs02, |shadow| self.read_shadow(shadow));
        } else {
            cpu.make_current(Which::Vmcs02);
        }
        let parts = self.parts_to_check(&Vmcs02::assume(cpu.vmcs()));
        if !parts.is_empty()
            && let Some(rule) = self.broken_rule(&Vmcs02::assume(cpu.vmcs()), memory, parts, &kept, l1)
        {
            self.tell(refused, Some(rule), *rule.outcome, None);
            return match *rule.outcome {
                Broken::VmFail(error) => {
                    cpu.make_current(Which::Vmcs01);
                    self.failed_instruction(error)
                }
                Broken::Exit { reason, qualification } => {
                    self.failed_entry(cpu, memory, msrs, FailedEntry { reason, qualification })
                }
            };
        }
        self.is_checked = true;
        if self.vmcs12.read(VM_ENTRY_MSR_LOAD_COUNT) != 0 {
            // The entry can fail yet, after vmcs02 has got other values than those that L1 has not read back.
            self.read_from(&Vmcs02::assume(cpu.vmcs()));
        }
        self.merge(&mut Vmcs02::assume(cpu.vmcs()), memory, &kept, l1.tsc_offset);
        self.prepare_run(&mut Vmcs02::assume(cpu.vmcs()), memory);
        self.select_ept(cpu);
        self.flush_at_entry(cpu);
        self.operation = Operation::NonRoot;
        if self.vmcs12.read(VM_ENTRY_MSR_LOAD_COUNT) != 0
            && let Err(failed) = self.load_listed(cpu, memory, msrs, refused)
        {
            return self.failed_entry(cpu, memory, msrs, failed);
        }
        self.vmcs12.launched = true;
        self.entry_pending = true;
        self.start_timer(cpu.tsc());
        self.transitions.entries += 1;
        Entry::Entered { activity: self.activity_at_entry(cpu.vmcs()) }
    }

    /// Loads the VM-entry MSR-load list.
    #[inline(never)]
    fn load_listed<P: Processor, M: L1Memory>(
        &mut self,
        cpu: &mut P,
        memory: &M,
        msrs: &mut impl Msrs<P>,
        refused: &mut dyn FnMut(Refusal<'_>),
    ) -> Result<(), FailedEntry> {
        let list = GuestPhys(self.vmcs12.read(VM_ENTRY_MSR_LOAD_ADDR));
        let count = self.vmcs12.read(VM_ENTRY_MSR_LOAD_COUNT);
        msr_lists::load(cpu, memory, msrs, list, count).map_err(|position| {
            // vmcs02 has what was loaded before.
            self.is_merged = false;
            let (reason, qualification) = (ExitReason::ENTRY_FAILURE_MSR_LOADING, u64::from(position));
            let listed = msr_lists::entry(memory, list, position);
            self.tell(refused, None, Broken::Exit { reason, qualification }, listed);
            FailedEntry { reason, qualification }
        })
    }

    #[cold]
    fn tell(
        &self,
        refused: &mut dyn FnMut(Refusal<'_>),
        rule: Option<&'static Rule>,
        outcome: Broken,
        listed: Option<(Msr, u64)>,
    ) {
        refused(Refusal { rule, outcome, vmcs12: &self.vmcs12, capabilities: &self.capabilities, listed });
    }

    #[cold]
    fn failed_instruction(&mut self, error: InstructionError) -> Entry {
        self.transitions.failed_instructions += 1;
        Entry::Failed(self.fail(error))
    }

    #[cold]
    fn failed_entry<P: Processor, M: L1Memory>(
        &mut self,
        cpu: &mut P,
        memory: &M,
        msrs: &mut impl Msrs<P>,
        failed: FailedEntry,
    ) -> Entry {
        self.transitions.failed_entries += 1;
        match self.exit_from_failed_entry(cpu, memory, msrs, failed) {
            Ok(()) => Entry::Exited,
            Err(abort) => Entry::Aborted(abort),
        }
    }

    /// Reads only what the entry will need: fields that are loaded do not count.
    #[inline(always)]
    fn kept(&self, vmcs01: &Vmcs01<'_, impl Access>) -> Kept {
        let entry = EntryControls::from_bits_retain(self.vmcs12.read(VM_ENTRY_CONTROLS));
        let keeps_debug = !entry.contains(EntryControls::LOAD_DEBUG_CONTROLS);
        Kept {
            cr0: vmcs01.read(CR0_READ_SHADOW),
            efer: vmcs01.read(GUEST_IA32_EFER),
            pat: if entry.contains(EntryControls::LOAD_IA32_PAT) { 0 } else { vmcs01.read(GUEST_IA32_PAT) },
            dr7: if keeps_debug { vmcs01.read(GUEST_DR7) } else { 0 },
            debugctl: if keeps_debug { vmcs01.read(GUEST_IA32_DEBUGCTL) } else { 0 },
        }
    }

    /// What each entry writes.
    #[inline(always)]
    pub(crate) fn prepare_run(&mut self, vmcs02: &mut Vmcs02<'_, impl Access>, memory: &impl L1Memory) {
        let event = EventInfo(self.vmcs12.read(VM_ENTRY_INTERRUPTION_INFO));
        if event.is_valid() {
            vmcs02.write(VM_ENTRY_INTERRUPTION_INFO, event.0);
            vmcs02.write(VM_ENTRY_EXCEPTION_ERROR_CODE, self.vmcs12.read(VM_ENTRY_EXCEPTION_ERROR_CODE));
            vmcs02.write(VM_ENTRY_INSTRUCTION_LEN, self.vmcs12.read(VM_ENTRY_INSTRUCTION_LEN));
        }
        if self.loads_pdptes_from_memory(vmcs02) {
            let table = GuestPhys(vmcs02.read(GUEST_CR3) & 0xffff_ffe0);
            for (pdpte, offset) in
                [GUEST_PDPTE0, GUEST_PDPTE1, GUEST_PDPTE2, GUEST_PDPTE3].into_iter().zip([0, 8, 16, 24])
            {
                vmcs02.write(pdpte, memory.read_u64(table.add(offset)).unwrap_or(u64::MAX));
            }
        }
        if PrimaryBased::from_bits_retain(self.vmcs12.read(CPU_BASED_VM_EXEC_CONTROL))
            .contains(PrimaryBased::USE_MSR_BITMAPS)
        {
            self.merge_msr_bitmap(memory);
        }
    }

    /// Without EPT of L1's, VM entry and MOV to CR3 load the four entries of PAE paging from L1's memory. vmcs02 has EPT, with
    /// which the processor takes them from the VMCS.
    #[inline(always)]
    pub(crate) fn loads_pdptes_from_memory(&self, vmcs02: &Vmcs02<'_, impl Access>) -> bool {
        use arch::control::{Cr0, Cr4};
        let newest = Newest { nested: self, vmcs02 };
        !self.secondary12().contains(SecondaryBased::ENABLE_EPT)
            && newest.read(GUEST_CR4) & Cr4::PAE.bits() != 0
            && newest.read(GUEST_CR0) & Cr0::PG.bits() != 0
            && self.vmcs12.read(VM_ENTRY_CONTROLS) & EntryControls::IA32E_MODE_GUEST.bits() == 0
    }

    /// The VMX-preemption timer of vmcs12 begins to count.
    #[inline(always)]
    fn start_timer(&mut self, now: u64) {
        let pin = PinBased::from_bits_retain(self.vmcs12.read(PIN_BASED_VM_EXEC_CONTROL));
        self.timer_deadline = pin.contains(PinBased::ACTIVATE_PREEMPTION_TIMER).then(|| {
            let ticks = u64::from(self.vmcs12.read(VMX_PREEMPTION_TIMER_VALUE));
            let shift = self.capabilities.misc.preemption_timer_shift();
            // It counts when bit `shift` of the TSC changes.
            if ticks == 0 { now } else { ((now >> shift) + ticks) << shift }
        });
    }

    /// The value that the timer has now, for "save VMX-preemption timer value".
    pub(crate) fn timer_value(&self, cpu: &impl Processor) -> Option<u32> {
        let exit = ExitControls::from_bits_retain(self.vmcs12.read(VM_EXIT_CONTROLS));
        let deadline = self.timer_deadline.filter(|_| exit.contains(ExitControls::SAVE_PREEMPTION_TIMER_VALUE))?;
        let shift = self.capabilities.misc.preemption_timer_shift();
        let left = (deadline >> shift).saturating_sub(cpu.tsc() >> shift);
        Some(u32::try_from(left).unwrap_or(u32::MAX))
    }

    /// The activity state in which L2 starts: an injected event wakes it, and so does a pending debug exception (SDM 3C 27.7.2
    /// "Activity State", 27.7.3 "Delivery of Pending Debug Exceptions after VM Entry").
    #[inline(always)]
    fn activity_at_entry(&self, vmcs02: &impl Access) -> u32 {
        const ENABLED_BREAKPOINT: u64 = 1 << 12;
        const SINGLE_STEP: u64 = 1 << 14;
        let activity = self.vmcs12.read(GUEST_ACTIVITY_STATE);
        if activity == 0 {
            return 0;
        }
        let is_woken = EventInfo(self.vmcs12.read(VM_ENTRY_INTERRUPTION_INFO)).is_valid()
            || vmcs02.read(GUEST_PENDING_DBG_EXCEPTIONS) & (ENABLED_BREAKPOINT | SINGLE_STEP) != 0;
        if is_woken { 0 } else { activity }
    }

    /// Without VPIDs of L1's, transitions flush what is cached of linear addresses (SDM 3C 29.4.3.1 "Operations that
    /// Invalidate Cached Mappings"); a VPID that vmcs02's tag did not stand for yet has nothing cached.
    #[inline(always)]
    fn flush_at_entry<P: Processor>(&mut self, cpu: &mut P) {
        if self.secondary12().contains(SecondaryBased::ENABLE_VPID) {
            let vpid = self.vmcs12.read(VIRTUAL_PROCESSOR_ID);
            if vpid != self.last_vpid {
                self.last_vpid = vpid;
                cpu.flush_l2();
            }
        } else {
            self.last_vpid = 0;
            cpu.flush_l2();
        }
    }
}
