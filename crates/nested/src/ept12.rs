//! L1's EPT: which EPT02 stands for it, and what a violation of L2 means.

use arch::{GuestPhys, L2Phys};
use ept::{Access as EptAccess, Denied, Ept12, ModificationLog, PageSize, Permissions, Resolved, Rules};
use vmcs::controls::SecondaryBased;
use vmcs::fields::*;
use vmcs::qualification::{EptQualification, EptViolation};
use vmcs::{Access, EptVpid, ExitReason, InstructionError};

use crate::current::Vmcs02;
use crate::exit::Synthesized;
use crate::outcome::Outcome;
use crate::seam::{L1Memory, Processor};
use crate::state::Nested;

/// What comes of an EPT violation of L2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EptOutcome {
    /// EPT02 maps it now: L2 tries again.
    Resolved,
    /// L1 must get this exit.
    Exit(Synthesized),
    /// L1's tables allow it, and lead to no memory of L1's: a device of L1's, or nothing, at this address.
    Device(GuestPhys),
}

impl Nested {
    /// Follows the EPT controls of vmcs12.
    pub(crate) fn set_ept12(&mut self) {
        let secondary = self.secondary12();
        self.ept12 = secondary.contains(SecondaryBased::ENABLE_EPT).then(|| {
            let offered = self.capabilities.ept_vpid;
            let largest = if offered.contains(EptVpid::PAGES_1G) {
                PageSize::Size1G
            } else if offered.contains(EptVpid::PAGES_2M) {
                PageSize::Size2M
            } else {
                PageSize::Size4K
            };
            let rules = Rules {
                execute_only: offered.contains(EptVpid::EXECUTE_ONLY),
                mode_based_execute: secondary.contains(SecondaryBased::MODE_BASED_EXECUTE_CONTROL_FOR_EPT),
                largest,
                physical_width: self.base.physical_address_bits.into(),
            };
            Ept12::new(self.vmcs12.read(EPT_POINTER), rules)
        });
        self.selects_ept = true;
    }

    /// Gives vmcs02, which is current, the EPT that maps L2's memory.
    #[inline(always)]
    pub(crate) fn select_ept<P: Processor>(&mut self, cpu: &mut P) {
        if self.selects_ept {
            self.select_ept_now(cpu);
        }
    }

    #[inline(never)]
    fn select_ept_now<P: Processor>(&mut self, cpu: &mut P) {
        self.selects_ept = false;
        let eptp = match &self.ept12 {
            // L2's physical addresses are L1's.
            None => self.base.eptp,
            Some(ept12) => {
                let selected = cpu.ept02().select(ept12);
                if selected.flush {
                    cpu.flush_ept(selected.eptp);
                }
                selected.eptp
            }
        };
        Vmcs02::assume(cpu.vmcs()).write(EPT_POINTER, eptp);
    }

    /// L1's tables, while L2 runs with them.
    pub const fn ept12(&self) -> Option<&Ept12> {
        self.ept12.as_ref()
    }

    /// L1's page-modification log, if vmcs12 enables it.
    pub fn modification_log(&self) -> Option<ModificationLog> {
        let enabled = self.secondary12().contains(SecondaryBased::ENABLE_PML);
        enabled
            .then(|| ModificationLog::new(GuestPhys(self.vmcs12.read(PML_ADDRESS)), self.vmcs12.read(GUEST_PML_INDEX)))
    }

    /// What was logged counts.
    pub fn keep_log(&mut self, log: Option<&ModificationLog>) {
        if let Some(log) = log {
            self.vmcs12.write(GUEST_PML_INDEX, log.index());
        }
    }

    /// L2, whose vmcs02 is current, met an EPT violation, and L1 uses EPT.
    #[inline(never)]
    pub fn ept_violation<P: Processor>(
        &mut self,
        cpu: &mut P,
        memory: &impl L1Memory,
        violation: &EptViolation,
    ) -> EptOutcome {
        let Some(ept12) = self.ept12 else { return EptOutcome::Device(violation.guest_physical) };
        let at = L2Phys(violation.guest_physical.get());
        let access = self.access(cpu, violation.qualification);
        let log = self.modification_log();
        let resolved = cpu.ept02().resolve(&ept12, memory, memory, log.as_ref(), at, access);
        self.keep_log(log.as_ref());
        match resolved {
            Ok(Resolved::Mapped { flush }) => {
                if flush {
                    let eptp = Vmcs02::assume(cpu.vmcs()).read(EPT_POINTER);
                    cpu.flush_ept(eptp);
                }
                EptOutcome::Resolved
            }
            Ok(Resolved::Device(address)) => EptOutcome::Device(address),
            Err(denied) => {
                self.selects_ept = true;
                EptOutcome::Exit(self.denied(&Vmcs02::assume(cpu.vmcs()), denied, at, violation.qualification.bits()))
            }
        }
    }

    /// The exit that L1 gets because its tables do not allow an access of L2 to `at`. `machine` is the qualification of the
    /// exit that L0 got, whose bits from 7 on describe the access.
    fn denied(&self, vmcs02: &impl Access, denied: Denied, at: L2Phys, machine: u64) -> Synthesized {
        let (reason, qualification) = match denied {
            // The machine says what the access was, L1's tables what they permit.
            Denied::Violation(violation) => {
                const PERMITTED: u64 = 0x78;
                (ExitReason::EPT_VIOLATION, violation.qualification() & PERMITTED | machine & !PERMITTED)
            }
            Denied::Misconfiguration => (ExitReason::EPT_MISCONFIGURATION, 0),
            Denied::LogFull => (ExitReason::PML_FULL, machine & EptQualification::NMI_UNBLOCKING.bits()),
        };
        Synthesized {
            reason: reason.0,
            qualification,
            vectoring: self.interrupted_event(vmcs02),
            guest_physical: (denied != Denied::LogFull).then_some(at.get()),
            ..Synthesized::default()
        }
    }

    /// L0 found, while it did something for L2, that L1's tables do not allow an access to `at`.
    pub fn denied_to_l0<P: Processor>(&mut self, cpu: &mut P, denied: Denied, at: L2Phys, machine: u64) -> Synthesized {
        if let (Denied::Violation(_), Some(ept12)) = (denied, &self.ept12) {
            cpu.ept02().violated(ept12, at);
            self.selects_ept = true;
        }
        self.denied(&Vmcs02::assume(cpu.vmcs()), denied, at, machine)
    }

    fn access<P: Processor>(&self, cpu: &mut P, qualification: EptQualification) -> EptAccess {
        let to_paging_structure = qualification.contains(EptQualification::LINEAR_VALID)
            && !qualification.contains(EptQualification::TRANSLATED);
        let mut needs = Permissions::empty();
        needs.set(Permissions::READ, qualification.contains(EptQualification::READ));
        needs.set(Permissions::WRITE, qualification.contains(EptQualification::WRITE));
        if qualification.contains(EptQualification::FETCH) {
            let told = self.capabilities.ept_vpid.contains(EptVpid::ADVANCED_VIOLATION_INFORMATION);
            let user = if told {
                qualification.contains(EptQualification::USER_LINEAR)
            } else {
                let rights = Vmcs02::assume(cpu.vmcs()).read(GUEST_SS_ACCESS_RIGHTS);
                arch::segment::AccessRights(rights).dpl() == 3
            };
            needs |= EptAccess::fetch(user).needs;
        }
        EptAccess { needs, to_paging_structure }
    }

    /// INVEPT with the type in its register and the first word of its descriptor.
    pub fn invept<P: Processor>(&mut self, cpu: &mut P, kind: u64, eptp: u64) -> Outcome {
        let offered = self.capabilities.ept_vpid;
        match kind {
            1 if offered.contains(EptVpid::INVEPT_SINGLE_CONTEXT) && self.is_valid_eptp(eptp) => {
                cpu.ept02().invalidate_single(eptp);
            }
            2 if offered.contains(EptVpid::INVEPT_ALL_CONTEXT) => cpu.ept02().invalidate_all(),
            _ => return self.fail(InstructionError::INVALID_INVEPT_INVVPID_OPERAND),
        }
        self.selects_ept = true;
        Outcome::Succeed
    }

    /// Whether VM entry would take this EPTP (SDM 3C 27.2.1.1 "VM-Execution Control Fields").
    pub(crate) fn is_valid_eptp(&self, eptp: u64) -> bool {
        let offered = self.capabilities.ept_vpid;
        let reserved = 0xf80 | !0 << self.base.physical_address_bits;
        offered.supports_memory_type(eptp & 7)
            && offered.supports_page_walk((eptp >> 3 & 7) + 1)
            && (eptp & 1 << 6 == 0 || offered.contains(EptVpid::ACCESSED_DIRTY))
            && eptp & reserved == 0
    }
}
