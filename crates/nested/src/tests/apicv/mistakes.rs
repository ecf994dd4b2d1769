//! What went wrong elsewhere, seeded back in: each must be found.
//!
//! Here a [`Mistake`] about this queue is made by the system around the code, and searched for. What all of them would be in the code
//! itself, those of the whole of nested VMX and APIC virtualization, and which test fails then, is a table that
//! `cargo xtask mistakes` tries: `tools/xtask/src/mistakes/table.rs`.

use vlapic::Assist;

use super::event::{EVENTS, Event};
use super::explore::ALL;
use super::state::{System, VCPUS};
use super::system::Bench;
use crate::deferred_apicv::Update;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mistake {
    /// The deferred refresh became a request, and the request found nothing changed (Linux 2022 to 2025): APICv stayed on or
    /// off in vmcs01.
    RequestInsteadOfValue,
    /// SVI was not set when APICv was switched on with an interrupt in service: it blocked all lower ones for ever, seen in
    /// production as a lost timer interrupt after a reboot.
    SviNotSetAtSwitchOn,
    /// An EOI for L1 while L2 ran left SVI as it was: L1 lost interrupts.
    EoiInL2LeavesSvi,
    /// The refresh wrote its bits into vmcs02 (before Linux 5.18): vmcs12 had no TPR shadow, the entry failed, L1 was blamed.
    ControlsIntoVmcs02,
    /// An interrupt was acknowledged before the switch to vmcs01: SVI went into vmcs02.
    AcknowledgedBeforeSwitch,
    /// An interrupt that became pending for L1 while L2 ran did not reach RVI: lost.
    RviNotDeferred,
    /// The request register was updated without taking the bit out of the descriptor: the interrupt came twice.
    PostLeftBehind,
    /// On inhibit the mapping of 0xFEE00000 stayed: stores went to memory instead of the APIC.
    MappingStays,
    /// The EOI-exit bitmap was not followed while L2 ran: the IOAPIC waited for ever.
    EoiExitsNotDeferred,
    /// One of the paths back to L1 did not drain the queue.
    NotDrained,
}

/// Where an update goes.
pub(super) enum Door {
    Right,
    Lost,
    IntoVmcs02,
}

impl Mistake {
    const ALL: [Self; 10] = [
        Self::RequestInsteadOfValue,
        Self::SviNotSetAtSwitchOn,
        Self::EoiInL2LeavesSvi,
        Self::ControlsIntoVmcs02,
        Self::AcknowledgedBeforeSwitch,
        Self::RviNotDeferred,
        Self::PostLeftBehind,
        Self::MappingStays,
        Self::EoiExitsNotDeferred,
        Self::NotDrained,
    ];

    pub(super) fn of_door(self, update: Update, in_l2: bool, before: Option<Assist>) -> Door {
        let was_off = before.is_some_and(|assist| !assist.delivery);
        match (self, update) {
            (Self::SviNotSetAtSwitchOn, Update::InService(_)) if was_off => Door::Lost,
            (Self::EoiInL2LeavesSvi, Update::InService(_)) if in_l2 => Door::Lost,
            (Self::RviNotDeferred, Update::Requested(_)) if in_l2 => Door::Lost,
            (Self::EoiExitsNotDeferred, Update::EoiExits(_)) if in_l2 => Door::Lost,
            (Self::MappingStays, Update::ApicPage { .. }) if in_l2 => Door::Lost,
            (Self::ControlsIntoVmcs02, Update::Controls { .. } | Update::Mode { .. }) if in_l2 => Door::IntoVmcs02,
            (Self::AcknowledgedBeforeSwitch, Update::InService(_)) if in_l2 => Door::IntoVmcs02,
            _ => Door::Right,
        }
    }
}

/// Whether an invariant breaks within `depth` events from the start.
fn is_found(bench: &Bench, most: usize) -> bool {
    let search = || {
        let start = bench.start();
        let mut seen = std::collections::HashSet::from([start.fingerprint()]);
        let mut frontier = std::collections::VecDeque::from([start]);
        while let Some(system) = frontier.pop_front() {
            for (index, event) in (0..VCPUS).flat_map(|index| EVENTS.map(|event| (index, event))) {
                let Some(next) = bench.after(&system, index, event) else { continue };
                if seen.insert(next.fingerprint()) {
                    frontier.push_back(next);
                }
            }
            if seen.len() > most {
                break;
            }
        }
    };
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(search)).is_err()
}

fn play(bench: &Bench, steps: &[Event]) -> System {
    let mut system = bench.start();
    for step in steps {
        system = bench.after(&system, 0, *step).unwrap_or_else(|| panic!("{step:?} cannot happen"));
    }
    system
}

macro_rules! each_is_found {
    ($($name:ident: $mistake:ident),* $(,)?) => {
        $(
            #[doc = concat!("[`Mistake::", stringify!($mistake), "`]")]
            #[test]
            fn $name() {
                assert!(is_found(&Bench::new(ALL, Some(Mistake::$mistake)), 20_000));
            }
        )*

        /// No mistake is without its test.
        #[test]
        fn all_mistakes_are_tested() {
            assert_eq!(Mistake::ALL, [$(Mistake::$mistake),*]);
        }
    };
}

each_is_found! {
    a_request_instead_of_a_value_leaves_apicv_as_it_was: RequestInsteadOfValue,
    svi_is_set_when_apicv_is_switched_on: SviNotSetAtSwitchOn,
    an_eoi_while_l2_runs_reaches_svi: EoiInL2LeavesSvi,
    controls_of_l1_do_not_reach_vmcs02: ControlsIntoVmcs02,
    an_acknowledge_at_exit_does_not_reach_vmcs02: AcknowledgedBeforeSwitch,
    an_interrupt_while_l2_runs_reaches_rvi: RviNotDeferred,
    a_post_is_taken_once: PostLeftBehind,
    the_mapping_goes_on_inhibit: MappingStays,
    the_eoi_exit_bitmap_follows: EoiExitsNotDeferred,
    every_path_back_to_l1_drains: NotDrained,
}

/// Without a mistake the same search finds nothing: it is the mistakes that are found.
#[test]
fn without_a_mistake_nothing_is_found() {
    assert!(!is_found(&Bench::new(ALL, None), 20_000));
}

/// The story of section 5 of the design, which Linux got wrong for three and a half years: an id is changed (inhibited),
/// an interrupt stays in service, L2 switches L1's APIC to x2APIC mode (no longer inhibited, with L2 active). Back in L1 a store to
/// the old page does nothing, and an x2APIC EOI ends the interrupt: SVI had arrived. Then the way back.
#[test]
fn an_inhibit_comes_and_goes_while_l2_runs() {
    use super::oracle::Mode8::{Disabled, X2apic, Xapic};
    let bench = Bench::new(ALL, None);
    let system = play(
        &bench,
        &[
            Event::Id(true),
            Event::SelfIpi,
            Event::Take,
            Event::Enter,
            Event::Mode(X2apic),
            Event::Exit,
            Event::OldPageEoi,
            Event::Eoi,
        ],
    );
    assert_eq!(system.vcpus[0].oracle.in_service, 0);
    let mut system = system;
    for step in [
        Event::Enter,
        Event::Mode(Disabled),
        Event::Mode(Xapic),
        Event::Id(true),
        Event::Exit,
        Event::SelfIpi,
        Event::Take,
    ] {
        system = bench.after(&system, 0, step).unwrap_or_else(|| panic!("{step:?} cannot happen"));
    }
    assert!(!system.vcpus[0].in_l2);
    assert_eq!(system.vcpus[0].oracle.in_service, 1, "the self-IPI through the page arrived");
}

/// Each thing that L2 or another processor can do to L1's interrupts while L2 runs: an end, a request from inside, one from outside,
/// one that an IOAPIC waits for. Back in L1 each is there.
#[test]
fn what_happens_to_l1s_interrupts_while_l2_runs_is_there_afterwards() {
    let bench = Bench::new(ALL, None);
    for (steps, in_service) in [
        (&[Event::SelfIpi, Event::Take, Event::Enter, Event::Eoi, Event::Exit][..], 0),
        (&[Event::Enter, Event::SelfIpi, Event::Exit, Event::Take], 1),
        (&[Event::Enter, Event::Post, Event::Notice, Event::Exit, Event::Take], 1),
        (&[Event::Enter, Event::Level, Event::Exit, Event::Take], 2),
        (&[Event::Enter, Event::Level, Event::Exit, Event::Take, Event::Eoi], 0),
    ] {
        assert_eq!(play(&bench, steps).vcpus[0].oracle.in_service, in_service, "{steps:?}");
    }
}

/// The exploration found this in an early version: without delivery L1 raises TPR above a pending interrupt, which causes no
/// exit; an exit for something else then dropped the wait for the window and left the threshold at 0, and when TPR fell again
/// nobody noticed.
#[test]
fn a_tpr_raised_unnoticed_still_has_its_threshold() {
    let bench = Bench::new(super::explore::TPR_ONLY, None);
    let steps = [Event::SelfIpi, Event::Cr8(super::oracle::BUSY >> 4), Event::EnterFails, Event::Cr8(0), Event::Take];
    assert_eq!(play(&bench, &steps).vcpus[0].oracle.in_service, 1);
}
