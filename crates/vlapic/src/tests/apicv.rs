//! What the processor does by itself: why not, what it needs for it, and how the registers get there and back.

use arch::Msr;
use arch::apic::Register;
use proptest::prelude::*;

use super::Fixture;
use crate::{
    Apicv, Assist, Directory, Features, Hardware, Inhibits, LocalApic, Mode, Reason, VectorSet, VirtualApicPage,
};

const ALL: Hardware = Hardware { tpr_shadow: true, accesses: true, delivery: true, posting: true, x2apic: true };
const TPR_ONLY: Hardware = Hardware { tpr_shadow: true, accesses: true, ..Hardware::NONE };

fn assist(apic: &LocalApic) -> Assist {
    Assist::of(ALL, apic.mode(), false)
}

/// The first reason switches off, the last that goes switches on, whoever holds them; nothing else is worth a word.
#[test]
fn only_the_first_and_the_last_reason_change_anything() {
    let inhibits = Inhibits::new();
    assert!(!inhibits.any());
    assert!(inhibits.set_for_vm(Reason::BlockIrq, true));
    assert!(!inhibits.set_for_vm(Reason::BlockIrq, true), "set twice");
    assert!(!inhibits.set_for_vcpu(3, Reason::ApicIdModified, true));
    assert!(!inhibits.set_for_vcpu(255, Reason::ApicIdModified, true));
    assert_eq!(inhibits.count(Reason::ApicIdModified), 2);
    assert!(!inhibits.set_for_vm(Reason::BlockIrq, false));
    assert!(!inhibits.set_for_vcpu(3, Reason::ApicIdModified, false));
    assert!(!inhibits.set_for_vcpu(3, Reason::ApicIdModified, false), "cleared twice");
    assert!(inhibits.any());
    assert!(inhibits.set_for_vcpu(255, Reason::ApicIdModified, false));
    assert!(!inhibits.any());
    assert!(!inhibits.set_for_vcpu(256, Reason::HyperV, true), "no such vCPU");
}

/// Every reason counts up to all vCPUs without running into its neighbour.
#[test]
fn counts_do_not_overflow_into_each_other() {
    for reason in Reason::ALL {
        let inhibits = Inhibits::new();
        for index in 0..256 {
            assert_eq!(inhibits.set_for_vcpu(index, reason, true), index == 0);
        }
        assert_eq!(inhibits.count(reason), 256);
        assert!(Reason::ALL.iter().all(|other| *other == reason || inhibits.count(*other) == 0), "{reason:?}");
    }
}

/// A vCPU beyond 255 shows the low 8 bits of its id in xAPIC mode. Compared with the whole id that looked modified, and
/// large VMs lost APIC virtualization for nothing.
#[test]
fn an_id_beyond_255_is_not_modified() {
    let mut fixture = Fixture::xapic(0x12c);
    assert_eq!(fixture.apic.id(), 0x2c);
    assert!(!fixture.apic.inhibits(Reason::ApicIdModified));
    fixture.wrmsr(Msr::APIC_BASE, 0xfee0_0d00).unwrap();
    assert_eq!(fixture.apic.id(), 0x12c);
    assert!(!fixture.apic.inhibits(Reason::ApicIdModified));
}

/// A changed id is a reason until the switch to x2APIC mode, which brings the id that the vCPU came with.
#[test]
fn a_changed_id_is_a_reason_until_x2apic_mode() {
    let mut fixture = Fixture::xapic(1).with_features(Features { writable_xapic_id: true, ..Features::DEFAULT });
    let (inhibits, directory) = (Inhibits::new(), Directory::<2>::new());
    fixture.write(Register::ID, 5 << 24);
    assert!(inhibits.set_by_registers(1, &fixture.apic, &directory));
    assert_eq!(inhibits.count(Reason::ApicIdModified), 1);
    fixture.wrmsr(Msr::APIC_BASE, 0xfee0_0d00).unwrap();
    assert!(inhibits.set_by_registers(1, &fixture.apic, &directory));
    assert!(!inhibits.any());
}

/// A moved page is a reason in either mode, and no longer once the APIC is disabled or the page is back.
#[test]
fn a_moved_page_is_a_reason() {
    let mut fixture = Fixture::xapic(0);
    for (base, is_reason) in
        [(0xfee0_1900, true), (0xfee0_0900, false), (0xfed0_0900, true), (0xfed0_0d00, true), (0xfed0_0100, false)]
    {
        fixture.wrmsr(Msr::APIC_BASE, base).unwrap();
        assert_eq!(fixture.apic.inhibits(Reason::ApicBaseModified), is_reason, "{base:#x}");
    }
}

/// Two enabled APICs with one id are aliased, whichever of the two is asked; a disabled one is nobody.
#[test]
fn one_id_for_two_is_aliased() {
    let directory = Directory::<3>::new();
    let mut fixtures = [Fixture::xapic(0), Fixture::xapic(1), Fixture::xapic(1)];
    for (index, fixture) in fixtures.iter().enumerate() {
        directory.publish(index, fixture.apic.identity());
    }
    assert!(!directory.is_aliased(0) && directory.is_aliased(1) && directory.is_aliased(2));
    fixtures[2].wrmsr(Msr::APIC_BASE, 0xfee0_0100).unwrap();
    directory.publish(2, fixtures[2].apic.identity());
    assert!(!directory.is_aliased(1) && !directory.is_aliased(2));
}

/// Where the processor has less, less is used; what is inhibited leaves TPR to it.
#[test]
fn assist_follows_hardware_mode_and_inhibits() {
    let none = Assist::default();
    let tpr = Assist { tpr_shadow: true, ..none };
    for (hardware, mode, inhibited, expected) in [
        (Hardware::NONE, Mode::Xapic, false, none),
        (TPR_ONLY, Mode::Xapic, false, Assist { accesses: true, ..tpr }),
        (TPR_ONLY, Mode::X2apic, false, tpr),
        (TPR_ONLY, Mode::Xapic, true, tpr),
        (ALL, Mode::Disabled, false, tpr),
        (ALL, Mode::Xapic, false, Assist { accesses: true, delivery: true, posting: true, ..tpr }),
        (ALL, Mode::X2apic, false, Assist { x2apic: true, delivery: true, posting: true, ..tpr }),
        (ALL, Mode::X2apic, true, Assist { x2apic: true, ..tpr }),
        (Hardware { posting: false, ..ALL }, Mode::Xapic, false, Assist { accesses: true, delivery: true, ..tpr }),
    ] {
        assert_eq!(Assist::of(hardware, mode, inhibited), expected, "{hardware:?} {mode:?} {inhibited}");
        let both = expected.accesses && expected.x2apic;
        assert!(!both, "the two exclude each other: SDM 3C 27.2.1.1");
    }
}

/// The MSRs that pass are ones that exist, and those whose read or write does more than move a value do not pass.
#[test]
fn only_existing_msrs_pass() {
    let on = Assist::of(ALL, Mode::X2apic, false);
    let off = Assist::of(ALL, Mode::X2apic, true);
    let xapic = Assist::of(ALL, Mode::Xapic, false);
    let mut fixture = Fixture::x2apic(3);
    for number in 0..0x100 {
        let msr = Msr(0x800 + number);
        if on.passes(msr, false) {
            assert!(fixture.rdmsr(msr).is_ok(), "{number:#x} would be #GP");
        }
        let is_tpr = number == 8;
        assert_eq!(off.passes(msr, false), is_tpr);
        assert_eq!(off.passes(msr, true), is_tpr);
        assert_eq!(on.passes(msr, true), matches!(number, 0x8 | 0xb | 0x3f));
        assert!(!xapic.passes(msr, false) && !xapic.passes(msr, true));
    }
    assert!(!on.passes(Msr(0x839), false), "the current count");
    assert!(!on.passes(Msr(0x80b), false), "EOI is write-only");
    assert!(on.passes(Msr(0x802), false) && on.passes(Msr(0x80a), false) && on.passes(Msr(0x830), false));
    assert!(!on.passes(Msr::APIC_BASE, false));
}

/// What a guest reads in the page is what an emulated access gives, in both modes.
#[test]
fn the_page_reads_as_the_registers_do() {
    for mut fixture in [Fixture::xapic(5), Fixture::x2apic(5)] {
        let page = VirtualApicPage::new();
        fixture.apic.accept(0x45, false);
        fixture.apic.accept(0x91, true);
        fixture.apic.acknowledge();
        let assist = assist(&fixture.apic);
        fixture.apic.lend(&page, assist);
        for number in (0..0x40u16).filter(|number| *number != 0x39) {
            let register = Register(number << 4);
            if fixture.apic.mode() == Mode::X2apic {
                let msr = super::x2(register);
                if assist.passes(msr, false) {
                    assert_eq!(u64::from(page.read(register)), fixture.rdmsr(msr).unwrap(), "{msr:?}");
                }
            } else if super::super::registers::access(register, false) != super::super::registers::Access::Reserved
                && register != Register::APR
            {
                assert_eq!(page.read(register), fixture.read(register), "{register:?}");
            }
        }
    }
}

proptest! {
    /// Lending and taking back is nothing, whatever the APIC holds; what vmcs01 is told agrees with the page.
    #[test]
    fn lending_and_taking_back_changes_nothing(
        vectors in prop::collection::vec((16u8.., any::<bool>(), any::<bool>()), 0..20),
        tpr in any::<u8>(),
        x2apic in any::<bool>(),
    ) {
        let mut fixture = if x2apic { Fixture::x2apic(1) } else { Fixture::xapic(1) };
        for (vector, level, taken) in vectors {
            fixture.apic.accept(vector, level);
            if taken {
                fixture.apic.acknowledge();
            }
        }
        fixture.apic.set_cr8(u64::from(tpr >> 4), &fixture.bus).unwrap();
        let page = VirtualApicPage::new();
        let assist = assist(&fixture.apic);
        // All is stale in a new one.
        let before = format!("{:?}", fixture.apic);
        let told = fixture.apic.apicv(assist);
        fixture.apic.lend(&page, assist);
        fixture.apic.take_back(&page, assist);
        fixture.apic.lend_anew();
        prop_assert_eq!(format!("{:?}", fixture.apic), before);
        let highest = |set: VectorSet| set.highest().unwrap_or(0);
        prop_assert_eq!(told.requested, highest(page.vectors(Register::IRR)));
        prop_assert_eq!(told.in_service, highest(page.vectors(Register::ISR)));
        prop_assert_eq!(told.eoi_exits, page.vectors(Register::TMR));
    }

    /// Whatever is done to an APIC between two lendings, the page is as if all of it had been lent, and not what changed.
    #[test]
    fn what_changed_is_lent(steps in prop::collection::vec((0u16..0x400, any::<u32>(), 0u8..14), 0..100), x2apic in any::<bool>()) {
        let mut fixture = if x2apic { Fixture::x2apic(1) } else { Fixture::xapic(1) };
        let page = VirtualApicPage::new();
        for (at, value, step) in steps {
            let vector = (value >> 8 & 0xff) as u8;
            fixture.now += u64::from(value & 0xfff);
            match step {
                0 => fixture.apic.accept(vector, value & 1 != 0),
                1 => _ = fixture.apic.acknowledge(),
                2 => fixture.apic.end_of_interrupt(&fixture.bus),
                3 => _ = fixture.apic.lint(crate::Pin::Lint0, value & 1 != 0),
                4 => fixture.apic.tick(fixture.now),
                5 => fixture.apic.init(),
                6 => _ = fixture.wrmsr(Msr::APIC_BASE, 0xfee0_0900 | u64::from(value & 0x400)),
                7 => _ = fixture.write_x2(Register(at & 0x3f0), u64::from(value)),
                8 => fixture.write(Register::SVR, value | u32::from(value & 2 != 0) << 8),
                9 => {
                    let mailbox = crate::Mailbox::new();
                    let _ = mailbox.post(vector, value & 1 != 0);
                    let _ = fixture.apic.drain(&mailbox);
                }
                10 => fixture.write(Register(at & 0x3f0), value),
                _ => {
                    // An entry of the local vector table, unmasked.
                    let (register, value) = (Register(0x320 + 16 * (at % 6)), value & 0xa0ff);
                    fixture.write(register, value);
                    let _ = fixture.write_x2(register, u64::from(value));
                }
            }
            if value & 0x10_0000 == 0 || fixture.apic.mode() == Mode::Disabled {
                continue;
            }
            let assist = assist(&fixture.apic);
            fixture.apic.lend(&page, assist);
            let (whole, mut all) = (VirtualApicPage::new(), fixture.apic.clone());
            all.lend_anew();
            all.lend(&whole, assist);
            for number in 0..0x40 {
                let register = Register(number << 4);
                prop_assert_eq!(page.read(register), whole.read(register), "{:?}", register);
            }
            fixture.apic.take_back(&page, assist);
        }
    }

    /// Without delivery vmcs01 is told of no vector; the threshold is one that VM entry accepts.
    #[test]
    fn without_delivery_only_the_threshold_counts(vector in 16u8.., class in 0u64..16) {
        let mut fixture = Fixture::xapic(1);
        fixture.apic.accept(vector, true);
        fixture.apic.set_cr8(class, &fixture.bus).unwrap();
        let told = fixture.apic.apicv(Assist::of(TPR_ONLY, Mode::Xapic, false));
        prop_assert_eq!(Apicv { assist: Assist::default(), tpr_threshold: 0, ..told }, Apicv::default());
        prop_assert!(u64::from(told.tpr_threshold) <= class, "SDM 3C 27.2.1.1: not above VTPR");
        prop_assert_eq!(told.tpr_threshold != 0, fixture.apic.pending().is_none());
    }
}

/// A write that the processor lets pass untold is seen when the registers come back.
#[test]
fn untold_writes_come_back() {
    let mut fixture = Fixture::xapic(1);
    let page = VirtualApicPage::new();
    let assist = assist(&fixture.apic);
    fixture.apic.lend(&page, assist);
    page.write(Register::ICR_HIGH, 0x0700_0000);
    page.write(Register::ICR, 0x4_0041);
    page.write(Register::TPR, 0x35);
    let mut requested = VectorSet::EMPTY;
    requested.insert(0x41);
    page.set_vectors(Register::IRR, &requested);
    fixture.apic.take_back(&page, assist);
    assert_eq!(fixture.read(Register::ICR_HIGH), 0x0700_0000);
    assert_eq!(fixture.read(Register::ICR), 0x4_0041);
    assert_eq!(fixture.read(Register::TPR), 0x35);
    assert_eq!(fixture.apic.pending().map(|vector| vector.0), Some(0x41));
}

/// An EOI that the processor took off ISR still reaches the IOAPIC.
#[test]
fn an_eoi_of_the_processor_reaches_the_ioapic() {
    let mut fixture = Fixture::xapic(1);
    fixture.apic.accept(0x51, true);
    fixture.apic.acknowledge();
    let page = VirtualApicPage::new();
    let assist = assist(&fixture.apic);
    fixture.apic.lend(&page, assist);
    page.set_vectors(Register::ISR, &VectorSet::EMPTY);
    fixture.apic.take_back(&page, assist);
    fixture.apic.ended_by_processor(0x51, &fixture.bus);
    assert_eq!(*fixture.bus.ended.borrow(), [0x51]);
    assert_eq!(fixture.apic.highest_in_service(), None);
}
