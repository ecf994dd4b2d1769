//! Priorities against a model that searches sets and says the manual's rules one by one.

use std::collections::BTreeSet;

use arch::apic::Register;
use proptest::prelude::*;

use super::Fixture;
use crate::priority::Priorities;
use crate::vectors::VectorSet;

/// SDM 3A "Task and Processor Priorities" and "Interrupt Acceptance for Fixed Interrupts", taken literally.
#[derive(Default)]
struct Model {
    irr: BTreeSet<u8>,
    isr: BTreeSet<u8>,
    tmr: BTreeSet<u8>,
    tpr: u8,
}

impl Model {
    fn class(vector: Option<&u8>) -> u8 {
        vector.map_or(0, |vector| vector / 16)
    }

    fn pending(&self) -> Option<u8> {
        let threshold = Self::class(self.isr.last()).max(self.tpr / 16);
        self.irr.last().copied().filter(|vector| vector / 16 > threshold)
    }

    fn request(&mut self, vector: u8, level: bool) {
        if level {
            self.tmr.insert(vector);
        } else if !self.irr.contains(&vector) {
            self.tmr.remove(&vector);
        }
        self.irr.insert(vector);
    }

    fn acknowledge(&mut self) -> Option<u8> {
        let vector = self.pending()?;
        self.irr.remove(&vector);
        self.isr.insert(vector);
        Some(vector)
    }

    fn end(&mut self) -> Option<(u8, bool)> {
        self.isr.pop_last().map(|vector| (vector, self.tmr.contains(&vector)))
    }

    fn check(&self, tested: &Priorities) {
        let set = |vectors: &BTreeSet<u8>| {
            let mut set = VectorSet::EMPTY;
            vectors.iter().for_each(|vector| set.insert(*vector));
            set
        };
        assert_eq!(*tested.requested(), set(&self.irr));
        assert_eq!(*tested.in_service(), set(&self.isr));
        assert_eq!(*tested.level(), set(&self.tmr));
        assert_eq!(tested.highest_requested(), self.irr.last().copied());
        assert_eq!(tested.highest_in_service(), self.isr.last().copied());
        assert_eq!((tested.pending(), tested.is_pending()), (self.pending(), self.pending().is_some()));
        let serviced = Self::class(self.isr.last());
        assert_eq!(tested.ppr() / 16, serviced.max(self.tpr / 16));
        // The sub-class: TPR's above the vector in service, 0 below it; the manual leaves equality open.
        if self.tpr / 16 != serviced {
            assert_eq!(tested.ppr() % 16, if self.tpr / 16 > serviced { self.tpr % 16 } else { 0 });
        }
        self.check_threshold(tested.tpr_threshold());
    }

    /// The threshold is what it promises: the classes of TPR below it are exactly those that would make the waiting
    /// interrupt pending, if TPR is what holds it back.
    fn check_threshold(&self, threshold: u8) {
        let pending_at = |class: u8| {
            let limit = Self::class(self.isr.last()).max(class);
            self.irr.last().is_some_and(|vector| vector / 16 > limit)
        };
        let expected = if pending_at(self.tpr / 16) { 0 } else { (0..16).filter(|class| pending_at(*class)).count() };
        assert_eq!(usize::from(threshold), expected);
    }
}

#[derive(Clone, Debug)]
enum Step {
    Request(u8, bool),
    Acknowledge,
    End,
    Tpr(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    // Few classes, so that requests meet.
    let vector = prop_oneof![16..=255u8, prop::sample::select(vec![0x20, 0x21, 0x2f, 0x30, 0x31, 0xff, 0x10])];
    let step = prop_oneof![
        4 => (vector, any::<bool>()).prop_map(|(vector, level)| Step::Request(vector, level)),
        4 => Just(Step::Acknowledge),
        3 => Just(Step::End),
        1 => any::<u8>().prop_map(Step::Tpr),
        1 => Just(Step::Tpr(0)),
    ];
    prop::collection::vec(step, 0..60)
}

fn vectors() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(16..=255u8, 0..20)
}

proptest! {
    /// Every sequence of requests, acknowledges, EOIs and task priorities gives what the model gives.
    #[test]
    fn agrees_with_the_model(steps in steps()) {
        let (mut tested, mut model) = (Priorities::default(), Model::default());
        for step in steps {
            match step {
                Step::Request(vector, level) => {
                    tested.request(vector, level);
                    model.request(vector, level);
                }
                Step::Acknowledge => assert_eq!(tested.acknowledge(), model.acknowledge()),
                Step::End => assert_eq!(tested.end_of_interrupt(), model.end()),
                Step::Tpr(tpr) => {
                    tested.set_tpr(tpr);
                    model.tpr = tpr;
                }
            }
            model.check(&tested);
        }
    }

    /// Requests by the set are the requests one by one.
    #[test]
    fn sets_are_many_requests(waiting in vectors(), edge in vectors(), level in vectors()) {
        let (mut tested, mut model) = (Priorities::default(), Model::default());
        for (index, vector) in waiting.iter().enumerate() {
            tested.request(*vector, index % 2 == 0);
            model.request(*vector, index % 2 == 0);
        }
        let (mut edges, mut levels) = (VectorSet::EMPTY, VectorSet::EMPTY);
        for vector in edge {
            edges.insert(vector);
            model.request(vector, false);
        }
        for vector in level {
            levels.insert(vector);
            model.request(vector, true);
        }
        tested.request_all(&edges, &levels);
        model.check(&tested);
    }
}

/// IRR, ISR and TMR as software reads them: bit `vector % 32` of register `vector / 32`.
#[test]
fn registers_show_each_vector() {
    for vector in 16..=255u8 {
        let mut fixture = Fixture::xapic(0);
        let offset = u16::from(vector / 32) * 16;
        let bit = 1 << (vector % 32);
        fixture.apic.accept(vector, true);
        assert_eq!(fixture.read(Register(0x200 + offset)), bit, "IRR {vector:#x}");
        assert_eq!(fixture.read(Register(0x180 + offset)), bit, "TMR {vector:#x}");
        fixture.apic.acknowledge().unwrap();
        assert_eq!(fixture.read(Register(0x200 + offset)), 0, "IRR {vector:#x}");
        assert_eq!(fixture.read(Register(0x100 + offset)), bit, "ISR {vector:#x}");
    }
}

/// CR8 is the class of TPR; writing it clears the sub-class; 16 and above is #GP
/// (SDM 3A "Task Priority in IA-32e Mode").
#[test]
fn cr8() {
    let mut fixture = Fixture::xapic(0);
    fixture.write(Register::TPR, 0x5c);
    assert_eq!(fixture.apic.cr8(), 5);
    fixture.apic.set_cr8(5, &fixture.bus).unwrap();
    assert_eq!(fixture.read(Register::TPR), 0x50);
    for value in [16, 0x50, 1 << 32, u64::MAX] {
        assert_eq!(fixture.apic.set_cr8(value, &fixture.bus), Err(arch::Fault::Gp(0)));
    }
    assert_eq!(fixture.apic.cr8(), 5);
}

/// The arbitration priority by the manual's formula, on one case of each branch.
#[test]
fn arbitration_priority() {
    for (tpr, serviced, requested, expected) in [
        (0x35, None, None, 0x35),
        (0x35, Some(0x22), Some(0x31), 0x35),
        (0x35, Some(0x22), Some(0x41), 0x40),
        (0x35, Some(0x61), None, 0x20),
        (0x00, None, None, 0x00),
    ] {
        let mut fixture = Fixture::xapic(0);
        if let Some(vector) = serviced {
            fixture.apic.accept(vector, false);
            fixture.apic.acknowledge().unwrap();
        }
        if let Some(vector) = requested {
            fixture.apic.accept(vector, false);
        }
        fixture.write(Register::TPR, tpr);
        assert_eq!(fixture.read(Register::APR), expected, "{tpr:#x} {serviced:?} {requested:?}");
    }
}
