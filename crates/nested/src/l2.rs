//! What L0 asks about L2 while L2 is the guest.

use arch::{Fault, GuestMemory, GuestPhys};
use vmcs::controls::{ExitControls, PinBased, PrimaryBased, SecondaryBased};
use vmcs::fields::*;
use vmcs::qualification::EptQualification;
use vmcs::{Access, EventInfo, ExitReason};

use crate::current::Vmcs02;
use crate::deferred_apicv::Update;
use crate::exit::{Synthesized, Vectoring};
use crate::seam::Processor;
use crate::state::Nested;

impl Nested {
    /// External interrupts make L2 exit to L1.
    pub fn takes_interrupts(&self) -> bool {
        self.pin12().contains(PinBased::EXTERNAL_INTERRUPT_EXITING)
    }

    /// NMIs make L2 exit to L1.
    pub fn takes_nmis(&self) -> bool {
        self.pin12().contains(PinBased::NMI_EXITING)
    }

    /// An exit by an external interrupt acknowledges it.
    pub fn acknowledges_interrupts(&self) -> bool {
        let exit = ExitControls::from_bits_retain(self.vmcs12.read(VM_EXIT_CONTROLS));
        exit.contains(ExitControls::ACKNOWLEDGE_INTERRUPT_ON_EXIT)
    }

    /// L1 gets an exit as soon as L2 could take an NMI, or an interrupt.
    pub fn windows_of_l1(&self) -> PrimaryBased {
        let windows = PrimaryBased::NMI_WINDOW_EXITING | PrimaryBased::INTERRUPT_WINDOW_EXITING;
        PrimaryBased::from_bits_retain(self.vmcs12.read(CPU_BASED_VM_EXEC_CONTROL)) & windows
    }

    /// L2 may be without protection and paging.
    pub fn is_unrestricted(&self) -> bool {
        self.secondary12().contains(SecondaryBased::UNRESTRICTED_GUEST)
    }

    /// CR0 bits of L2's that L1 owns.
    pub fn cr0_mask(&self) -> u64 {
        self.vmcs12.read(CR0_GUEST_HOST_MASK)
    }

    /// CR4 bits of L2's that L1 owns.
    pub fn cr4_mask(&self) -> u64 {
        self.vmcs12.read(CR4_GUEST_HOST_MASK)
    }

    /// L0 took so many ticks for something that the machine does without an exit: they are not L2's, and the VMX-preemption
    /// timer of vmcs12 does not count them.
    #[inline(always)]
    pub fn spare_timer(&mut self, ticks: u64) {
        if let Some(deadline) = &mut self.timer_deadline {
            *deadline = deadline.saturating_add(ticks);
        }
    }

    /// L0 asks for an exit at the next window of L2's.
    pub fn set_windows<P: Processor>(&mut self, cpu: &mut P, windows: PrimaryBased) {
        if windows != self.window_controls {
            self.window_controls = windows;
            let primary = self.primary02() | windows;
            Vmcs02::assume(cpu.vmcs()).write(CPU_BASED_VM_EXEC_CONTROL, primary.bits());
        }
    }

    /// L1's TSC jumped while L2 runs: vmcs02 follows now, vmcs01 when it is current again.
    pub fn move_tsc<P: Processor>(&mut self, cpu: &mut P, tsc_offset: u64) {
        self.deferred.defer(Update::TscOffset(tsc_offset));
        self.merge_tsc(&mut Vmcs02::assume(cpu.vmcs()), tsc_offset);
    }

    /// The exit that L1 gets for a fault that L0 found in L2, if vmcs12 asks for it.
    pub fn exit_for_fault(&self, vmcs02: &impl Access, fault: Fault) -> Option<Synthesized> {
        let (vector, error, qualification) = match fault {
            Fault::Ud => (6, None, 0),
            Fault::Ss(code) => (12, Some(code), 0),
            Fault::Gp(code) => (13, Some(code), 0),
            Fault::Pf { address, error } => (14, Some(error), address),
            Fault::Ac => (17, Some(0), 0),
            Fault::Db(causes) => (1, None, causes),
        };
        let bit = self.vmcs12.read(EXCEPTION_BITMAP) >> vector & 1 != 0;
        let wanted = match error {
            Some(error) if vector == 14 => {
                let matches = error & self.vmcs12.read(PAGE_FAULT_ERROR_CODE_MASK)
                    == self.vmcs12.read(PAGE_FAULT_ERROR_CODE_MATCH);
                bit == matches
            }
            _ => bit,
        };
        wanted.then(|| Synthesized {
            reason: ExitReason::EXCEPTION_OR_NMI.0,
            qualification,
            interruption: EventInfo::hardware_exception(arch::Vector(vector), error.is_some()),
            error_code: error.unwrap_or(0),
            vectoring: self.interrupted_event(vmcs02),
            ..Synthesized::default()
        })
    }

    /// The exit that L1 gets for an access of L2 to L1's `at`, where L1 has no memory, if that is vmcs12's APIC-access page: the
    /// processor knows another page by that name. What the access was, the exit in vmcs02 says by its qualification `access`. (The
    /// processor would finish some of these accesses itself: SDM 3C 30.4 "Virtualizing Memory-Mapped APIC Accesses".)
    pub fn apic_access_exit(
        &self,
        vmcs02: &impl Access,
        at: GuestPhys,
        access: EptQualification,
    ) -> Option<Synthesized> {
        if !self.secondary12().contains(SecondaryBased::VIRTUALIZE_APIC_ACCESSES)
            || at.page().get() != self.vmcs12.read(APIC_ACCESS_ADDR)
        {
            return None;
        }
        let vectoring = self.interrupted_event(vmcs02);
        let is_linear = access.contains(EptQualification::TRANSLATED);
        let kind = match (is_linear, vectoring.is_some()) {
            (false, true) => 10,
            (false, false) => 15,
            (true, true) => 3,
            (true, false) if access.contains(EptQualification::FETCH) => 2,
            (true, false) => u64::from(access.contains(EptQualification::WRITE)),
        };
        Some(Synthesized {
            reason: ExitReason::APIC_ACCESS.0,
            qualification: kind << 12 | at.page_offset(),
            vectoring,
            keeps_instruction: true,
            ..Synthesized::default()
        })
    }

    /// The exit that L1 gets because the processor has refused vmcs02, which the checks had found sound: for the one answer that
    /// they find in L1's memory and the processor looks for again. Another processor has lowered VTPR below the threshold; a
    /// write by L2 would have brought this exit (SDM 3C 30.1.2 "TPR Virtualization").
    pub fn exit_for_refusal<P: Processor>(&self, cpu: &mut P, memory: &impl GuestMemory) -> Option<Synthesized> {
        const VTPR: u64 = 0x80;
        let primary = PrimaryBased::from_bits_retain(self.vmcs12.read(CPU_BASED_VM_EXEC_CONTROL));
        if !primary.contains(PrimaryBased::USE_TPR_SHADOW)
            || self.secondary12().contains(SecondaryBased::VIRTUAL_INTERRUPT_DELIVERY)
        {
            return None;
        }
        let vtpr = memory.read_u32(GuestPhys(self.vmcs12.read(VIRTUAL_APIC_PAGE_ADDR) + VTPR)).ok()?;
        if vtpr >> 4 & 0xf >= self.vmcs12.read(TPR_THRESHOLD) & 0xf {
            return None;
        }
        // The event that this entry would have injected is still on its way.
        let mut vmcs02 = Vmcs02::assume(cpu.vmcs());
        let info = EventInfo(vmcs02.read(VM_ENTRY_INTERRUPTION_INFO));
        let vectoring = info.is_valid().then(|| Vectoring {
            info,
            error_code: vmcs02.read(VM_ENTRY_EXCEPTION_ERROR_CODE),
            instruction_length: vmcs02.read(VM_ENTRY_INSTRUCTION_LEN),
        });
        vmcs02.write(VM_ENTRY_INTERRUPTION_INFO, EventInfo::NONE.0);
        Some(Synthesized { reason: ExitReason::TPR_BELOW_THRESHOLD.0, vectoring, ..Synthesized::default() })
    }

    fn pin12(&self) -> PinBased {
        PinBased::from_bits_retain(self.vmcs12.read(PIN_BASED_VM_EXEC_CONTROL))
    }
}
