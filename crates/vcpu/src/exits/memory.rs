//! EPT violations: device memory, and addresses where nothing is.
//!
//! L1's RAM is mapped whole, so every violation is an access outside of it. Device registers are emulated instruction
//! by instruction; where no device answers, a machine reads all ones and loses what is written.

use arch::apic::DEFAULT_BASE;
use arch::{GuestPhys, PAGE_SIZE, Width};
use vlapic::Mode;
use vmcs::Access;
use vmcs::qualification::{EptQualification, EptViolation};
use vmcs::fields::*;

use crate::cpu::Cpu;
use crate::exits::Next;
use crate::skip::finish_at;
use crate::state::Vcpu;
use crate::stop::Stop;
use crate::world::{Report, World};

#[inline]
pub(super) fn handle<C: Cpu, W: World>(
    vcpu: &mut Vcpu,
    cpu: &mut C,
    world: &mut W,
    violation: EptViolation,
) -> Next {
    let at = violation.guest_physical;
    if cpu.vmcs().read(IDT_VECTORING_INFO) >> 31 != 0 {
        return Next::Stop(Stop::DeliveryOutsideMemory(at));
    }
    if violation.qualification.contains(EptQualification::FETCH) {
        return Next::Stop(Stop::FetchOutsideMemory(at));
    }
    if violation.linear.is_some() && !violation.qualification.contains(EptQualification::TRANSLATED) {
        return Next::Stop(Stop::PageTablesOutsideMemory(at));
    }
    Next::Resume
}
