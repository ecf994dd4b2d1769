//! Whose exit it is: L1's or L0's.
//!
//! L0's always: NMIs and external interrupts of the machine, machine checks, its own timer. L1's always: what exits whatever
//! the controls say. Everything else is L1's if vmcs12 asks for it.

use arch::control::Efer;
use arch::segment::AccessRights;
use arch::{Gpr, GuestMemory, GuestRegs, Msr, Vector};
use vmcs::controls::{PrimaryBased, SecondaryBased};
use vmcs::fields::*;
use vmcs::qualification::{CrAccess, IoAccess};
use vmcs::{Access, EventInfo, EventKind, ExitReason};

use crate::state::Nested;

/// Who handles an exit of L2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// L1, as the processor made it.
    L1,
    /// L0, on L2's behalf or on its own.
    L0,
    /// L0 emulates VMREAD or VMWRITE on the shadow VMCS that L1 gave to L2.
    ShadowAccess,
    /// L0 finds out by L1's EPT.
    Ept,
    /// L0 executes the VM function for L1.
    VmFunction,
}

impl Nested {
    /// Whose the exit is that vmcs02, which is current, describes.
    #[inline]
    pub fn route(
        &self,
        reason: ExitReason,
        vmcs02: &impl Access,
        regs: &GuestRegs,
        memory: &impl GuestMemory,
        now: u64,
    ) -> Route {
        // The most frequent by far needs no control.
        if reason == ExitReason::CPUID {
            return Route::L1;
        }
        let primary = PrimaryBased::from_bits_retain(self.vmcs12.read(CPU_BASED_VM_EXEC_CONTROL));
        let by = |wanted: bool| if wanted { Route::L1 } else { Route::L0 };
        let by_primary = |control| by(primary.contains(control));
        let by_secondary = |control| by(self.secondary12().contains(control));
        match reason {
            ExitReason::EXCEPTION_OR_NMI => by(self.wants_exception(vmcs02)),
            ExitReason::EXTERNAL_INTERRUPT | ExitReason::ENTRY_FAILURE_MACHINE_CHECK => Route::L0,
            ExitReason::INTERRUPT_WINDOW => by_primary(PrimaryBased::INTERRUPT_WINDOW_EXITING),
            ExitReason::NMI_WINDOW => by_primary(PrimaryBased::NMI_WINDOW_EXITING),
            ExitReason::HLT => by_primary(PrimaryBased::HLT_EXITING),
            ExitReason::INVLPG => by_primary(PrimaryBased::INVLPG_EXITING),
            ExitReason::RDPMC => by_primary(PrimaryBased::RDPMC_EXITING),
            ExitReason::RDTSC | ExitReason::RDTSCP => by_primary(PrimaryBased::RDTSC_EXITING),
            ExitReason::CONTROL_REGISTER => by(self.wants_control_register(vmcs02, regs)),
            ExitReason::DEBUG_REGISTER => by_primary(PrimaryBased::MOV_DR_EXITING),
            ExitReason::IO => {
                let access = IoAccess::decode(vmcs02.read(EXIT_QUALIFICATION));
                by(self.wants_port(memory, access.port, access.width))
            }
            ExitReason::RDMSR => by(self.wants_msr(memory, Msr(regs.ecx()), false)),
            ExitReason::WRMSR => by(self.wants_msr(memory, Msr(regs.ecx()), true)),
            ExitReason::MWAIT => by_primary(PrimaryBased::MWAIT_EXITING),
            ExitReason::MONITOR => by_primary(PrimaryBased::MONITOR_EXITING),
            ExitReason::MONITOR_TRAP_FLAG => Route::L1,
            ExitReason::PAUSE => by(primary.contains(PrimaryBased::PAUSE_EXITING)
                || self.secondary12().contains(SecondaryBased::PAUSE_LOOP_EXITING)),
            ExitReason::PREEMPTION_TIMER => by(self.timer_deadline().saturating_sub(now) == 0),
            ExitReason::GDTR_IDTR_ACCESS | ExitReason::LDTR_TR_ACCESS => {
                by_secondary(SecondaryBased::DESCRIPTOR_TABLE_EXITING)
            }
            ExitReason::EPT_VIOLATION | ExitReason::EPT_MISCONFIGURATION => {
                if self.secondary12().contains(SecondaryBased::ENABLE_EPT) { Route::Ept } else { Route::L0 }
            }
            ExitReason::WBINVD => by_secondary(SecondaryBased::WBINVD_EXITING),
            ExitReason::VMREAD | ExitReason::VMWRITE => self.shadow_access(reason, vmcs02, regs, memory),
            ExitReason::VMFUNC => Route::VmFunction,
            // What exits only because L1 asked for it, and what exits always.
            _ => Route::L1,
        }
    }

    fn wants_exception(&self, vmcs02: &impl Access) -> bool {
        let info = EventInfo(vmcs02.read(VM_EXIT_INTERRUPTION_INFO));
        match info.vector() {
            _ if info.is(EventKind::Nmi) => false,
            Vector::MC => false,
            // L0 does not take page faults: vmcs02 has vmcs12's bit, mask and match.
            Vector::PF => true,
            vector => self.vmcs12.read(EXCEPTION_BITMAP) >> (vector.0 & 31) & 1 != 0,
        }
    }

    /// CR0 and CR4 also exit for bits that L0 owns; all else exits because L1 asked, but CR8 without a TPR shadow.
    fn wants_control_register(&self, vmcs02: &impl Access, regs: &GuestRegs) -> bool {
        let primary = PrimaryBased::from_bits_retain(self.vmcs12.read(CPU_BASED_VM_EXEC_CONTROL));
        let value = |gpr| if gpr == Gpr::Rsp { vmcs02.read(GUEST_RSP) } else { regs.get(gpr) };
        match CrAccess::decode(vmcs02.read(EXIT_QUALIFICATION)) {
            CrAccess::MovTo { register: 0, source } => {
                (value(source) ^ self.vmcs12.read(CR0_READ_SHADOW)) & self.vmcs12.read(CR0_GUEST_HOST_MASK) != 0
            }
            CrAccess::MovTo { register: 4, source } => {
                (value(source) ^ self.vmcs12.read(CR4_READ_SHADOW)) & self.vmcs12.read(CR4_GUEST_HOST_MASK) != 0
            }
            CrAccess::MovTo { register: 8, .. } => primary.contains(PrimaryBased::CR8_LOAD_EXITING),
            CrAccess::MovFrom { register: 8, .. } => primary.contains(PrimaryBased::CR8_STORE_EXITING),
            _ => true,
        }
    }

    /// VMREAD and VMWRITE of L2 do not exit for fields whose bit in L1's bitmaps is clear (SDM 3C 26.1.3 "Instructions That
    /// Cause VM Exits Conditionally").
    fn shadow_access(
        &self,
        reason: ExitReason,
        vmcs02: &impl Access,
        regs: &GuestRegs,
        memory: &impl GuestMemory,
    ) -> Route {
        if !self.secondary12().contains(SecondaryBased::VMCS_SHADOWING) {
            return Route::L1;
        }
        let info = vmcs::InstructionInfo(vmcs02.read(VM_EXIT_INSTRUCTION_INFO));
        let gpr = info.register_2();
        let encoding = if gpr == Gpr::Rsp { vmcs02.read(GUEST_RSP) } else { regs.get(gpr) };
        // Outside 64-bit mode the operand has 32 bits, and the high half may hold anything.
        let is_64_bit = AccessRights(vmcs02.read(GUEST_CS_ACCESS_RIGHTS)).is_long()
            && vmcs02.read(GUEST_IA32_EFER) & Efer::LMA.bits() != 0;
        let encoding = if is_64_bit { encoding } else { encoding & 0xffff_ffff };
        let bitmap = if reason == ExitReason::VMREAD { VMREAD_BITMAP } else { VMWRITE_BITMAP };
        // Bits 63:15 of the register set: no bitmap has the field.
        if encoding >> 15 != 0 {
            return Route::L1;
        }
        let mut byte = [0xff];
        // Where there is no memory all ones are read.
        let _ = memory.read(arch::GuestPhys(self.vmcs12.read(bitmap) + encoding / 8), &mut byte);
        if byte[0] >> (encoding % 8) & 1 != 0 { Route::L1 } else { Route::ShadowAccess }
    }
}
