//! What L1 is offered on every machine of `boards/`.

use arch::Msr;
use arch::control::Cr4;
use nested::CapabilityMsrs;
use testkit::boards;
use vmcs::controls::{ControlWord, SecondaryBased};
use vmcs::{Allowed, EptVpid};

/// L1 may set what the machine has and nothing else, must set what the machine insists on, and no control is both required
/// and forbidden (SDM 3D A.2 to A.5).
#[test]
fn every_word_fits_the_machine() {
    fn check<C: ControlWord>(board: &str, offered: Allowed<C>, machine: Allowed<C>) {
        let [may, must] = [offered.allowed1, offered.allowed0].map(C::to_bits);
        let [has, insists] = [machine.allowed1, machine.allowed0].map(C::to_bits);
        assert_eq!(may & !has, 0, "{board}: {} offers what the machine lacks", C::NAME);
        assert_eq!(insists & !must, 0, "{board}: {} lets be 0 what the machine wants to be 1", C::NAME);
        assert_eq!(must & !may, 0, "{board}: {} requires what it forbids", C::NAME);
    }
    for board in boards() {
        let machine = board.capabilities();
        let offered = CapabilityMsrs::new(&machine, Cr4::all()).decoded();
        let name = board.name.as_str();
        check(name, offered.pin, machine.pin);
        check(name, offered.primary, machine.primary);
        check(name, offered.secondary, machine.secondary);
        check(name, offered.exit, machine.exit);
        check(name, offered.entry, machine.entry);
        assert!(machine.ept_vpid.contains(offered.ept_vpid), "{name}: {:?}", offered.ept_vpid - machine.ept_vpid);
        assert_eq!(offered.cr4.fixed1 & !machine.cr4.fixed1, 0, "{name}: CR4");
    }
}

/// A register exists for L1 only if it does on the machine, and what one control needs of another is offered with it: EPT
/// with unrestricted guests, their capabilities with EPT, EPTP switching's register with VM functions.
#[test]
fn what_belongs_together_is_offered_together() {
    for board in boards() {
        let msrs = CapabilityMsrs::new(&board.capabilities(), Cr4::all());
        let offered = msrs.decoded();
        let name = &board.name;
        for number in Msr::VMX_BASIC.0..=Msr::VMX_VMFUNC.0 {
            if msrs.read(Msr(number)).is_some_and(|value| value != 0) {
                assert!(board.msrs.contains_key(&number), "{name}: {number:#x} is not on the machine");
            }
        }
        let has = |control| offered.secondary.allowed1.contains(control);
        assert!(!has(SecondaryBased::UNRESTRICTED_GUEST) || has(SecondaryBased::ENABLE_EPT), "{name}");
        assert_eq!(has(SecondaryBased::ENABLE_EPT), offered.ept_vpid.contains(EptVpid::PAGE_WALK_4), "{name}");
        assert_eq!(has(SecondaryBased::ENABLE_VM_FUNCTIONS), msrs.read(Msr::VMX_VMFUNC).is_some(), "{name}");
    }
}
