//! A state of the exploration, and what tells two of them apart.

use std::hash::{DefaultHasher, Hash, Hasher};

use vlapic::VectorSet;

use super::machine::Vmcs;
use super::oracle::{EDGE, Oracle};
use crate::deferred_apicv::{Deferred, Update};
use crate::l1_apic::L1Apic;

pub(super) const VCPUS: usize = 2;

/// A vCPU with what of its APIC is tested, and the oracle's beside it.
#[derive(Clone, Debug)]
pub(super) struct Vcpu {
    pub(super) apic: L1Apic,
    /// IRR, ISR and TPR in the virtual-APIC page.
    pub(super) page: (VectorSet, VectorSet, u32),
    pub(super) vmcs01: Vmcs,
    pub(super) vmcs02: Vmcs,
    pub(super) deferred: Deferred,
    pub(super) in_l2: bool,
    /// [`EDGE`] stands in the descriptor.
    pub(super) posted: bool,
    /// It was posted and has not arrived.
    pub(super) owed: bool,
    /// L0 waits for the guest to be ready for an interrupt.
    pub(super) window: bool,
    pub(super) oracle: Oracle,
}

/// The VM: a state of the exploration.
#[derive(Clone, Debug)]
pub(super) struct System {
    pub(super) vcpus: [Vcpu; VCPUS],
    pub(super) blocked: bool,
    pub(super) hyper_v: [bool; VCPUS],
}

impl Vcpu {
    /// What was posted arrives, once.
    pub(super) fn arrives(&mut self) {
        if std::mem::take(&mut self.owed) {
            self.oracle.accept(EDGE);
        }
    }
}

impl System {
    /// What tells two states apart.
    pub(super) fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.blocked, self.hyper_v).hash(&mut hasher);
        for vcpu in &self.vcpus {
            (vcpu.oracle, vcpu.in_l2, vcpu.posted, vcpu.owed, vcpu.window, vcpu.vmcs01, vcpu.vmcs02).hash(&mut hasher);
            let words = |set: &VectorSet| set.words();
            (words(&vcpu.page.0), words(&vcpu.page.1), vcpu.page.2).hash(&mut hasher);
            vcpu.apic.hash_for_tests(&mut hasher);
            for update in vcpu.deferred.waiting() {
                update.kind().hash(&mut hasher);
                match update {
                    Update::Controls { delivery, posting } => (delivery, posting).hash(&mut hasher),
                    Update::Mode { accesses, x2apic, msr_bitmap } => {
                        (accesses, x2apic, msr_bitmap.get()).hash(&mut hasher);
                    }
                    Update::ApicPage { eptp } | Update::TscOffset(eptp) => eptp.hash(&mut hasher),
                    Update::InService(value) | Update::Requested(value) | Update::TprThreshold(value) => {
                        value.hash(&mut hasher);
                    }
                    Update::EoiExits(set) => set.words().hash(&mut hasher),
                }
            }
        }
        hasher.finish()
    }
}
