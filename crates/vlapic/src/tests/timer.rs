//! The timer as software sees it (SDM 3A "APIC Timer", "TSC-Deadline Mode"). The TSC runs at twice the bus's rate.

use arch::Msr;
use arch::apic::Register;

use super::Fixture;

const VECTOR: u32 = 0x40;
const PERIODIC: u32 = 0x2_0000;
const DEADLINE: u32 = 0x4_0000;
const MASKED: u32 = 0x1_0000;

/// An xAPIC at TSC 1000 with a divisor of 1 and the given LVT timer entry.
fn timer(entry: u32) -> Fixture {
    let mut fixture = Fixture::xapic(0);
    fixture.now = 1000;
    fixture.write(Register::DIVIDE, 0b1011);
    fixture.write(Register::LVT_TIMER, entry);
    fixture
}

/// Advances to `now` and says whether the timer's interrupt came; it is then ended.
fn fires(fixture: &mut Fixture, now: u64) -> bool {
    fixture.now = now;
    fixture.apic.tick(now);
    let fired = fixture.apic.acknowledge().is_some();
    fixture.apic.end_of_interrupt(&fixture.bus);
    fired
}

/// The divide configuration's eight encodings: the first expiry of a count of 10 comes 10 times the divisor later.
#[test]
fn divisors() {
    for (encoding, divisor) in
        [(0b0000, 2), (0b0001, 4), (0b0010, 8), (0b0011, 16), (0b1000, 32), (0b1001, 64), (0b1010, 128), (0b1011, 1)]
    {
        let mut fixture = timer(VECTOR);
        fixture.write(Register::DIVIDE, encoding);
        fixture.write(Register::INITIAL_COUNT, 10);
        assert_eq!(fixture.apic.deadline(), 1000 + 20 * divisor, "{encoding:#b}");
    }
}

/// One-shot: counts down, interrupts once, stands at 0 until the initial count is written again.
#[test]
fn one_shot() {
    let mut fixture = timer(VECTOR);
    assert_eq!(fixture.apic.deadline(), u64::MAX);
    fixture.write(Register::INITIAL_COUNT, 100);
    for (now, count) in [(1000, 100), (1001, 100), (1002, 99), (1100, 50), (1198, 1), (1199, 1)] {
        fixture.now = now;
        assert_eq!(fixture.read(Register::CURRENT_COUNT), count, "at {now}");
    }
    assert!(!fires(&mut fixture, 1199));
    assert!(fires(&mut fixture, 1200));
    assert_eq!((fixture.read(Register::CURRENT_COUNT), fixture.read(Register::INITIAL_COUNT)), (0, 100));
    assert!(!fires(&mut fixture, 100_000));
    fixture.write(Register::INITIAL_COUNT, 1);
    assert!(fires(&mut fixture, 100_002));
}

/// Periodic: the expiries stay on the grid however late the ticks are, and missed ones are one interrupt.
#[test]
fn periodic() {
    let mut fixture = timer(VECTOR | PERIODIC);
    fixture.write(Register::INITIAL_COUNT, 100);
    assert!(fires(&mut fixture, 1250));
    assert_eq!(fixture.apic.deadline(), 1400);
    assert_eq!(fixture.read(Register::CURRENT_COUNT), 75);
    assert!(!fires(&mut fixture, 1399));
    assert!(fires(&mut fixture, 1400));
    assert_eq!(fixture.read(Register::CURRENT_COUNT), 100);
    assert!(fires(&mut fixture, 2399));
    assert!(!fires(&mut fixture, 2399), "four missed periods are one interrupt");
    assert_eq!(fixture.apic.deadline(), 2400);
    fixture.write(Register::INITIAL_COUNT, 0);
    assert_eq!((fixture.apic.deadline(), fixture.read(Register::CURRENT_COUNT)), (u64::MAX, 0));
}

/// A masked timer counts and does not interrupt; nobody needs to wake up for it. What expired masked is gone.
#[test]
fn masked() {
    let mut fixture = timer(VECTOR | PERIODIC | MASKED);
    fixture.write(Register::INITIAL_COUNT, 100);
    assert_eq!(fixture.apic.deadline(), u64::MAX);
    fixture.now = 1250;
    assert_eq!(fixture.read(Register::CURRENT_COUNT), 75);
    fixture.write(Register::LVT_TIMER, VECTOR | PERIODIC);
    assert_eq!(fixture.apic.pending(), None);
    assert_eq!(fixture.apic.deadline(), 1400);
    // And what was due before masking is there.
    fixture.now = 1450;
    fixture.write(Register::LVT_TIMER, VECTOR | PERIODIC | MASKED);
    assert_eq!(fixture.apic.pending().unwrap().0, 0x40);
}

/// The mode at expiry decides: a running one-shot timer becomes periodic, and the other way round.
#[test]
fn one_shot_and_periodic_change_on_the_fly() {
    let mut fixture = timer(VECTOR);
    fixture.write(Register::INITIAL_COUNT, 100);
    fixture.write(Register::LVT_TIMER, VECTOR | PERIODIC);
    assert!(fires(&mut fixture, 1200));
    assert!(fires(&mut fixture, 1400));
    fixture.write(Register::LVT_TIMER, VECTOR);
    assert!(fires(&mut fixture, 1600));
    assert!(!fires(&mut fixture, 1800));
    fixture.write(Register::LVT_TIMER, VECTOR | PERIODIC);
    assert_eq!(fixture.apic.deadline(), u64::MAX, "an expired one-shot does not start again");
}

/// TSC deadline: fires once at or after the deadline, which then reads 0; 0 disarms; a deadline in the past fires.
#[test]
fn tsc_deadline() {
    let mut fixture = timer(VECTOR | DEADLINE);
    fixture.wrmsr(Msr::TSC_DEADLINE, 5000).unwrap();
    assert_eq!((fixture.rdmsr(Msr::TSC_DEADLINE), fixture.apic.deadline()), (Ok(5000), 5000));
    assert!(!fires(&mut fixture, 4999));
    assert!(fires(&mut fixture, 5000));
    assert_eq!((fixture.rdmsr(Msr::TSC_DEADLINE), fixture.apic.deadline()), (Ok(0), u64::MAX));
    assert!(!fires(&mut fixture, 6000));

    fixture.wrmsr(Msr::TSC_DEADLINE, 7000).unwrap();
    fixture.wrmsr(Msr::TSC_DEADLINE, 0).unwrap();
    assert!(!fires(&mut fixture, 8000));

    fixture.wrmsr(Msr::TSC_DEADLINE, 1).unwrap();
    assert!(fires(&mut fixture, 8000));
}

/// In TSC-deadline mode the counter does not exist; in the others the deadline does not. Changing between them
/// disarms.
#[test]
fn modes_exclude_each_other() {
    let mut fixture = timer(VECTOR | DEADLINE);
    fixture.write(Register::INITIAL_COUNT, 100);
    assert_eq!((fixture.apic.deadline(), fixture.read(Register::CURRENT_COUNT)), (u64::MAX, 0));
    assert_eq!(fixture.read(Register::INITIAL_COUNT), 0);
    fixture.wrmsr(Msr::TSC_DEADLINE, 5000).unwrap();
    fixture.write(Register::LVT_TIMER, VECTOR);
    assert_eq!((fixture.apic.deadline(), fixture.rdmsr(Msr::TSC_DEADLINE)), (u64::MAX, Ok(0)));

    fixture.wrmsr(Msr::TSC_DEADLINE, 5000).unwrap();
    assert_eq!((fixture.apic.deadline(), fixture.rdmsr(Msr::TSC_DEADLINE)), (u64::MAX, Ok(0)));
    fixture.write(Register::INITIAL_COUNT, 100);
    fixture.write(Register::LVT_TIMER, VECTOR | DEADLINE);
    assert_eq!(fixture.apic.deadline(), u64::MAX);
    fixture.write(Register::LVT_TIMER, VECTOR);
    assert_eq!((fixture.apic.deadline(), fixture.read(Register::CURRENT_COUNT)), (u64::MAX, 0));
}

/// A new TSC value moves a TSC deadline's meaning and leaves a running counter alone, also below where it started.
#[test]
fn a_written_tsc() {
    let mut fixture = timer(VECTOR | PERIODIC);
    fixture.write(Register::INITIAL_COUNT, 100);
    fixture.apic.tsc_written(1150, 7);
    fixture.now = 7;
    assert_eq!((fixture.read(Register::CURRENT_COUNT), fixture.apic.deadline()), (25, 57));
    assert!(fires(&mut fixture, 57));
    assert_eq!(fixture.apic.deadline(), 257);

    fixture.write(Register::LVT_TIMER, VECTOR | DEADLINE);
    fixture.wrmsr(Msr::TSC_DEADLINE, 1000).unwrap();
    fixture.apic.tsc_written(57, 2000);
    assert!(fires(&mut fixture, 2000));
}

/// Extreme values neither panic nor wrap into an early interrupt.
#[test]
fn extremes() {
    let mut fixture = timer(VECTOR);
    fixture.now = u64::MAX - 5;
    fixture.write(Register::INITIAL_COUNT, u32::MAX);
    assert!(!fires(&mut fixture, u64::MAX - 1));
    let frequencies = crate::Frequencies { tsc_hz: 0, bus_hz: 0 };
    let mut apic = crate::LocalApic::new(0, false, frequencies);
    apic.tick(u64::MAX);
    assert_eq!(apic.deadline(), u64::MAX);
}
