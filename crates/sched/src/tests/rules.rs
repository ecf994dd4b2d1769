//! The policy's single rules.

use crate::{Decision, Homeless, Member, Refused, RunQueue, Set, Signals, State, Wake, place};

const SLICE: u64 = 800;
/// A slice less two granules of the calendar, each the first power of two from a thirtieth of a slice on.
const REQUEST: u64 = SLICE - 2 * 32;

fn member(vcpu: u16, vm: u16, weight: u32) -> Member {
    Member { vcpu, vm, weight, allowed: Set::ALL }
}

/// Ready vCPUs of one weight, each of the VM that `vms` says.
fn queue(vms: &[u16]) -> RunQueue {
    let mut queue = RunQueue::new(SLICE, 1, 1);
    for (&vm, vcpu) in vms.iter().zip(0..) {
        queue.add(member(vcpu, vm, 1), State::Ready, 0).unwrap();
    }
    queue
}

fn run(vcpu: u16, until: u64) -> Decision {
    Decision::Run { vcpu, until }
}

/// Those of one weight take turns; one that is alone runs until somebody comes.
#[test]
fn turns() {
    let mut queue = queue(&[0, 0, 0]);
    for turn in 0..9 {
        let now = turn * REQUEST;
        assert_eq!(queue.next(now), run((turn % 3) as u16, now + REQUEST));
    }
    queue.halted(2, u64::MAX, 9 * REQUEST);
    queue.stopped(1, 9 * REQUEST);
    queue.stopped(0, 9 * REQUEST);
    assert_eq!(queue.next(9 * REQUEST), Decision::Idle { until: u64::MAX });
    assert_eq!(queue.wake(2, 10 * REQUEST), Wake::Ready);
    assert_eq!(queue.next(10 * REQUEST), run(2, u64::MAX));
    queue.stopped(2, 11 * REQUEST);
    assert_eq!(queue.wake(2, 11 * REQUEST), Wake::Noted);
    assert_eq!(queue.next(11 * REQUEST), Decision::AllStopped);
}

/// A woken vCPU that owes nothing gets the processor at once, for a short request; one that has just had more than its share waits.
#[test]
fn a_wake_preempts_who_has_had_more() {
    let mut queue = queue(&[0, 1]);
    assert_eq!(queue.next(0), run(0, REQUEST));
    queue.halted(0, u64::MAX, 10);
    assert_eq!(queue.next(10), run(1, 10 + REQUEST));
    // The debt of 10 ticks is paid by then.
    assert_eq!(queue.wake(0, 110), Wake::Ready);
    assert_eq!(queue.next(110), run(0, 110 + REQUEST / 8));
    assert_eq!(queue.next(110 + REQUEST / 8), run(1, 110 + REQUEST / 8 + REQUEST));
    let counters = queue.counters(0);
    assert_eq!((counters.ran, counters.wakes, counters.longest_wake), (10 + REQUEST / 8, 1, 0));

    let mut queue = self::queue(&[0, 1]);
    queue.next(0);
    queue.halted(0, u64::MAX, REQUEST);
    assert_eq!(queue.next(REQUEST), run(1, 2 * REQUEST));
    assert_eq!(queue.wake(0, REQUEST + 10), Wake::Ready);
    assert_eq!(queue.next(REQUEST + 10), run(1, 2 * REQUEST), "it owes half a slice");
}

/// When nobody is ready, nobody owes anything any more.
#[test]
fn debts_end_with_work() {
    let mut queue = queue(&[0, 1]);
    queue.next(0);
    queue.halted(0, u64::MAX, REQUEST);
    queue.next(REQUEST);
    queue.halted(1, u64::MAX, REQUEST + 10);
    assert_eq!(queue.next(REQUEST + 10), Decision::Idle { until: u64::MAX });
    queue.wake(0, 5000);
    queue.wake(1, 5000);
    assert_eq!(queue.next(5000), run(0, 5000 + REQUEST / 8));
}

/// One that was alone for days has no advantage and no disadvantage by that.
#[test]
fn alone_for_days() {
    let mut queue = queue(&[0, 1]);
    queue.next(0);
    queue.halted(0, u64::MAX, 10);
    assert_eq!(queue.next(10), run(1, 10 + REQUEST), "a debt of 10 ticks is watched");
    assert_eq!(queue.next(10 + REQUEST), run(1, u64::MAX));
    let days = 1 << 50;
    queue.wake(0, days);
    assert_eq!(queue.next(days), run(0, days + REQUEST / 8));
    let mut now = days + REQUEST / 8;
    for vcpu in [1, 0, 1, 0] {
        assert_eq!(queue.next(now), run(vcpu, now + REQUEST));
        now += REQUEST;
    }
}

/// A debt is paid though nobody looks for it in minutes, while clocks wrap.
#[test]
fn old_debts_are_paid() {
    for stops in [0x8f, 0x90, 0xff, 0x120, 0x17f] {
        let mut queue = RunQueue::new(1 << 30, 1, 1);
        for vcpu in 0..3 {
            queue.add(member(vcpu, 0, 1), State::Ready, 0).unwrap();
        }
        queue.next(0);
        queue.halted(0, u64::MAX, 1 << 29);
        let mut now = 1 << 29;
        while now < stops << 33 {
            let Decision::Run { until, .. } = queue.next(now) else { panic!("two compute") };
            now = until;
        }
        assert_eq!(queue.wake(0, now), Wake::Ready);
        let short = queue.requests[0] / 8;
        assert_eq!(queue.next(now), run(0, now + short), "after {now} ticks");
        queue.halted(0, u64::MAX, now + 1);
        queue.stopped(1, now + 2);
        let mut is_alone = false;
        for turn in 0..3 {
            is_alone |= queue.next(now + turn * (1 << 30)) == run(2, u64::MAX);
        }
        assert!(is_alone, "no debt is longer than that");
    }
}

/// Who goes on with a new request has not got the processor anew.
#[test]
fn switches_are_counted() {
    let mut queue = queue(&[0, 1]);
    for turn in 0..10 {
        queue.next(turn * REQUEST);
    }
    queue.halted(1, u64::MAX, 10 * REQUEST);
    for turn in 10..20 {
        queue.next(turn * REQUEST);
    }
    assert_eq!((queue.counters(0).switches, queue.counters(1).switches), (6, 5));
}

/// A timer of a halted vCPU ends the slice of another one and the sleep of the processor.
#[test]
fn alarms() {
    let mut queue = queue(&[0, 1]);
    queue.next(0);
    queue.halted(0, 300, 10);
    assert_eq!(queue.next(10), run(1, 300), "the neighbour's timer comes first");
    assert_eq!(queue.next(300), run(0, 300 + REQUEST / 8));
    queue.halted(0, 5000, 310);
    queue.next(310);
    queue.halted(1, 4000, 320);
    assert_eq!(queue.next(320), Decision::Idle { until: 4000 });
    assert_eq!(queue.next(4000), run(1, 5000));
    assert_eq!(queue.state(0), Some(State::Halted));
}

/// The time that a spinning vCPU lends is its own: a vCPU of its VM runs to the end of the request, and the other VM's turn
/// comes as if nothing had been lent.
#[test]
fn a_spinning_vcpu_lends_its_time() {
    let mut queue = queue(&[0, 1, 0]);
    assert_eq!(queue.next(0), run(0, REQUEST));
    assert!(queue.spins(0, 100));
    assert_eq!(queue.next(100), run(2, REQUEST));
    assert_eq!(queue.next(REQUEST), run(1, 2 * REQUEST));
    assert_eq!(queue.next(2 * REQUEST), run(2, 3 * REQUEST), "its own turn is still to come");
    assert_eq!((queue.counters(0).ran, queue.counters(2).ran), (100, REQUEST - 100));
    // Nobody of its VM is there to help.
    let mut queue = self::queue(&[0, 1]);
    queue.next(0);
    assert!(!queue.spins(0, 100));
    assert_eq!(queue.next(100), run(1, 100 + REQUEST));
}

/// One that waits goes to a processor where it may run, with its past; the one that runs stays.
#[test]
fn moving() {
    let mut from = RunQueue::new(SLICE, 1, 1);
    let pinned = Member { allowed: Set(0b01), ..member(1, 0, 1) };
    from.add(member(0, 0, 1), State::Ready, 0).unwrap();
    from.add(pinned, State::Ready, 0).unwrap();
    from.add(member(2, 1, 1), State::Ready, 0).unwrap();
    from.next(0);
    assert_eq!((from.candidate(0), from.candidate(1)), (Some(1), Some(2)), "one runs, and one is pinned");
    let taken = from.take(1, 50).unwrap();
    assert_eq!((taken.member.vcpu, from.state(2), from.candidate(1)), (2, None, None));
    assert!(from.take(1, 50).is_none() && from.has_waiting());
    assert_eq!(from.wake(2, 50), Wake::Elsewhere);
    let mut to = RunQueue::new(SLICE, 1, 1);
    to.receive(taken, 60);
    assert_eq!(to.next(60), run(2, u64::MAX));
    assert_eq!((to.counters(2).migrations, to.counters(2).waited), (1, 50));
    // How soon it ran after a wake is known there too.
    from.add(member(3, 1, 1), State::Halted, 60).unwrap();
    from.wake(3, 70);
    to.receive(from.take(1, 80).unwrap(), 90);
    assert_eq!(to.next(100), run(2, 60 + REQUEST), "it does not preempt here");
    to.halted(2, u64::MAX, 110);
    assert_eq!(to.next(110), run(3, 110 + REQUEST));
    assert_eq!((to.counters(3).wakes, to.counters(3).longest_wake, to.counters(3).waited), (1, 40, 30));
}

/// What there is no room for, and who may choose a home first.
#[test]
fn limits_and_homes() {
    let mut queue = RunQueue::new(SLICE, 7, 1);
    for (vcpu, weight, expected) in [
        (0, 1, Ok(())),
        (63, 7, Ok(())),
        (64, 1, Err(Refused::Number)),
        (1, 0, Err(Refused::Weight)),
        (1, 8, Err(Refused::Weight)),
    ] {
        assert_eq!(queue.add(member(vcpu, 0, weight), State::Ready, 0), expected, "vCPU {vcpu} of weight {weight}");
    }
    let mut members = [member(0, 0, 1), member(1, 0, 1), member(2, 1, 2)];
    members[2].allowed = Set(0b01);
    assert_eq!(place(&members, 2).unwrap()[..3], [1, 1, 0]);
    members[2].allowed = Set(0b100);
    assert_eq!(place(&members, 2), Err(Homeless { vcpu: 2 }));
}

/// One bit a vCPU: the first wake needs a kick, the others find it on its way.
#[test]
fn signals() {
    let signals = Signals::new();
    signals.moves(7, 3);
    assert_eq!(signals.home(7), 3);
    assert!(signals.wake(7, 3));
    assert!(!signals.wake(8, 3));
    assert!(signals.has_woken(3) && !signals.has_woken(7));
    assert_eq!((signals.take_woken(3), signals.take_woken(3)), (Set(0b11 << 7), Set::NONE));
    signals.set_idle(5, true);
    signals.set_waiting(6, true);
    assert_eq!((signals.idle(), signals.waiting()), (Set(1 << 5), Set(1 << 6)));
    signals.set_idle(5, false);
    assert_eq!(signals.idle(), Set::NONE);
}
