//! What holds after each event: the six invariants, in the order of the design.

use arch::apic::Register;
use vlapic::{Assist, VectorSet, VirtualApicPage};
use vmcs::Access;
use vmcs::controls::{PinBased, SecondaryBased};
use vmcs::fields::*;

use super::machine;
use super::oracle::{EDGE, LEVEL, Mode8, Oracle, highest};
use super::state::{System, Vcpu};
use super::system::{Bench, vmcs02};
use crate::current::Vmcs01;

impl Bench {
    /// Fails the test if an invariant does not hold in `system`.
    pub(super) fn check(&self, system: &System) {
        let aliased = system.vcpus.iter().all(|vcpu| vcpu.oracle.mode != Mode8::Disabled)
            && system.vcpus[0].apic.settings().id() == system.vcpus[1].apic.settings().id();
        let inhibited = system.blocked
            || aliased
            || system.hyper_v.contains(&true)
            || system.vcpus.iter().any(|vcpu| {
                let Oracle { mode, id_modified, base_modified, .. } = vcpu.oracle;
                id_modified || base_modified && mode != Mode8::Disabled
            });
        assert_eq!(self.inhibits.any(), inhibited, "whether a reason holds");
        for (vcpu, page) in system.vcpus.iter().zip(self.pages) {
            self.check_vcpu(vcpu, page, inhibited);
        }
    }

    fn check_vcpu(&self, vcpu: &Vcpu, page: &VirtualApicPage, inhibited: bool) {
        let assist = Assist::of(self.hardware, vcpu.oracle.mode.into(), inhibited);
        let Oracle { requested, in_service, tpr, .. } = vcpu.oracle;
        let set = |bits: u8| {
            let mut set = VectorSet::EMPTY;
            [(1, EDGE), (2, LEVEL)].iter().filter(|(bit, _)| bits & bit != 0).for_each(|(_, v)| set.insert(*v));
            set
        };
        // 6: no interrupt lost, none twice.
        let mut apic = vcpu.apic.clone();
        assert_eq!(apic.has_pending(), vcpu.oracle.pending().is_some(), "pending");
        let registers = apic.registers();
        assert_eq!(registers.cr8(), u64::from(tpr >> 4), "TPR");
        assert_eq!(registers.highest_requested().map_or(0, |vector| vector.0), highest(requested), "IRR");
        assert_eq!(registers.highest_in_service().map_or(0, |vector| vector.0), highest(in_service), "ISR");
        if assist.delivery {
            assert_eq!(page.vectors(Register::IRR), set(requested), "IRR");
            assert_eq!(page.vectors(Register::ISR), set(in_service), "ISR");
        }
        // 2: vmcs02 is vmcs12's.
        assert_eq!(vcpu.vmcs02, vmcs02(), "vmcs02 is what vmcs12 asked for");
        if vcpu.in_l2 {
            return;
        }
        // 1: vmcs01 is what the model says, and nothing waits.
        assert_eq!(vcpu.deferred.waiting().count(), 0, "the queue is empty while L1 runs");
        let vmcs01 = &vcpu.vmcs01;
        let pin = PinBased::from_bits_retain(vmcs01.read(PIN_BASED_VM_EXEC_CONTROL));
        let secondary = SecondaryBased::from_bits_retain(vmcs01.read(SECONDARY_VM_EXEC_CONTROL));
        assert_eq!(pin.contains(PinBased::PROCESS_POSTED_INTERRUPTS), assist.posting, "posted interrupts");
        for (control, on) in [
            (SecondaryBased::VIRTUAL_INTERRUPT_DELIVERY, assist.delivery),
            (SecondaryBased::APIC_REGISTER_VIRTUALIZATION, assist.delivery),
            (SecondaryBased::VIRTUALIZE_APIC_ACCESSES, assist.accesses),
            (SecondaryBased::VIRTUALIZE_X2APIC_MODE, assist.x2apic),
            (SecondaryBased::ENABLE_EPT, true),
        ] {
            assert_eq!(secondary.contains(control), on, "{control:?}");
        }
        let bitmap = match (assist.x2apic, assist.delivery) {
            (false, _) => machine::BITMAP_NONE,
            (true, false) => machine::BITMAP_TPR,
            (true, true) => machine::BITMAP_ALL,
        };
        assert_eq!(vmcs01.read(MSR_BITMAP), bitmap, "MSR bitmap");
        // 4: the page is there when it should be, and only then.
        let eptp = if assist.accesses { machine::EPTP_WITH_APIC } else { machine::EPTP };
        assert_eq!(vmcs01.read(EPT_POINTER), eptp, "the mapping of 0xFEE00000");
        // 3: SVI, and RVI.
        let [rvi, svi] = vmcs01.read(GUEST_INTERRUPT_STATUS).to_le_bytes();
        let if_delivered = |vector| if assist.delivery { vector } else { 0 };
        assert_eq!(svi, if_delivered(highest(in_service)), "SVI");
        assert_eq!(rvi, if_delivered(highest(requested)), "RVI");
        if assist.delivery {
            let level = requested & 2 != 0 || in_service & 2 != 0;
            let exits = vmcs01.read(EOI_EXIT_BITMAP2) >> (LEVEL & 63) & 1 != 0;
            assert!(exits || !level, "the EOI of a level-triggered interrupt exits");
            assert_eq!(vmcs01.read(EOI_EXIT_BITMAP1), 0, "that of an edge does not");
        } else if vcpu.oracle.pending().is_some() {
            assert!(vcpu.window, "L0 waits for the window of a pending interrupt");
        } else if highest(requested) >> 4 > highest(in_service) >> 4 && self.hardware.tpr_shadow {
            let threshold = vmcs01.read(TPR_THRESHOLD);
            let waits = vcpu.window || threshold == u32::from(highest(requested) >> 4);
            assert!(waits, "L0 learns when TPR lets the request through");
        }
        // 5: the same again changes nothing.
        let (mut again, mut twice) = (vcpu.vmcs01, vcpu.deferred.clone());
        if self.mistake.is_none() {
            // Nothing was written to the page since it was lent, or it is the processor's own doing: the same comes back.
            apic.lend(inhibited, |update| {
                twice.defer(update);
                twice.defer(update);
            });
            twice.drain(&mut Vmcs01::assume(&mut again));
            twice.drain(&mut Vmcs01::assume(&mut again));
            again.write(TPR_THRESHOLD, vcpu.vmcs01.read(TPR_THRESHOLD));
            assert_eq!(again, vcpu.vmcs01, "submitting and draining twice");
        }
    }
}
