//! The computed timer against one that really counts, TSC tick by TSC tick.

use proptest::prelude::*;

use crate::timer::{Frequencies, NEVER, Timer, TimerMode};

/// A counter made of counters: the TSC feeds the bus clock, that the prescaler, that the count.
struct Stepper {
    tsc_hz: u64,
    bus_hz: u64,
    divisor: u64,
    periodic: bool,
    initial: u32,
    count: u32,
    prescaler: u64,
    phase: u64,
}

impl Stepper {
    /// One TSC tick; whether the count reached 0 in it.
    fn step(&mut self) -> bool {
        let mut fired = false;
        self.phase += self.bus_hz;
        while self.phase >= self.tsc_hz {
            self.phase -= self.tsc_hz;
            self.prescaler += 1;
            if self.count != 0 && self.prescaler >= self.divisor {
                self.prescaler = 0;
                self.count -= 1;
                if self.count == 0 {
                    fired = true;
                    self.count = if self.periodic { self.initial } else { 0 };
                }
            }
        }
        fired
    }

    fn restart(&mut self) {
        self.prescaler = 0;
        self.phase = 0;
    }
}

#[derive(Clone, Debug)]
enum Step {
    Initial(u32),
    /// An encoding and the divisor it names.
    Divide(u32, u64),
    Periodic(bool),
    Advance(u64),
    WriteTsc(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let divide = prop::sample::select(vec![(0b1011, 1), (0b0000, 2), (0b0001, 4), (0b0011, 16)]);
    let step = prop_oneof![
        2 => (0..12u32).prop_map(Step::Initial),
        1 => divide.prop_map(|(encoding, divisor)| Step::Divide(encoding, divisor)),
        1 => any::<bool>().prop_map(Step::Periodic),
        3 => (0..40u64).prop_map(Step::Advance),
        2 => (0..400u64).prop_map(Step::Advance),
        1 => prop_oneof![Just(0), any::<u32>().prop_map(u64::from)].prop_map(Step::WriteTsc),
    ];
    prop::collection::vec(step, 1..40)
}

proptest! {
    /// At every ratio of the clocks: the same counts, the same expiries, and the announced time of the next expiry is
    /// the tick at which the counter reaches 0.
    #[test]
    fn counts_like_a_counter(tsc_hz in 1..30u64, bus_hz in 1..30u64, steps in steps()) {
        let mut timer = Timer::new(Frequencies { tsc_hz, bus_hz });
        let mut stepper =
            Stepper { tsc_hz, bus_hz, divisor: 2, periodic: false, initial: 0, count: 0, prescaler: 0, phase: 0 };
        let mut now = 1_000;
        for step in steps {
            match step {
                Step::Initial(count) => {
                    timer.set_initial(count, now);
                    stepper.initial = count;
                    stepper.count = count;
                    stepper.restart();
                }
                Step::Divide(encoding, divisor) => {
                    timer.set_divide_configuration(encoding, now);
                    stepper.divisor = divisor;
                    stepper.restart();
                }
                Step::Periodic(periodic) => {
                    timer.set_mode(if periodic { TimerMode::Periodic } else { TimerMode::OneShot });
                    stepper.periodic = periodic;
                }
                Step::Advance(ticks) => {
                    let announced = timer.next();
                    let end = now + ticks;
                    let mut first = None;
                    while now < end {
                        now += 1;
                        if stepper.step() {
                            first = first.or(Some(now));
                        }
                    }
                    match first {
                        Some(first) => prop_assert_eq!(announced, first),
                        None => prop_assert!(announced > now),
                    }
                    prop_assert_eq!(timer.fire(now), first.is_some());
                }
                Step::WriteTsc(new) => {
                    timer.tsc_written(now, new);
                    now = new;
                }
            }
            prop_assert_eq!(timer.current(now), stepper.count);
            prop_assert_eq!(timer.next() == NEVER, stepper.count == 0);
        }
    }
}

/// A year of a 1-kHz periodic timer at clocks that do not divide each other: the last expiry is where exact arithmetic
/// puts it.
#[test]
fn no_drift_in_a_year() {
    let (tsc_hz, bus_hz) = (2_893_299_017_u64, 24_576_013_u64);
    let mut timer = Timer::new(Frequencies { tsc_hz, bus_hz });
    timer.set_divide_configuration(0b1011, 0);
    timer.set_mode(TimerMode::Periodic);
    timer.set_initial(24_576, 0);
    let expiry = |number: u64| {
        let exact = u128::from(number) * 24_576 * u128::from(tsc_hz);
        u64::try_from(exact.div_ceil(u128::from(bus_hz))).unwrap()
    };
    for number in 1..100_000 {
        assert_eq!(timer.next(), expiry(number));
        assert!(timer.fire(expiry(number) + number % 7));
    }
    // Then nobody looks for a year.
    let year = expiry(365 * 86_400 * 1000);
    assert!(timer.fire(year));
    assert_eq!(timer.next(), expiry(365 * 86_400 * 1000 + 1));
}
