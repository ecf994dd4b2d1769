//! The APIC timer: a counter that is never counted, only computed from the TSC.
//!
//! Source: SDM 3A 11.5.4 "APIC Timer" and 11.5.4.1 "TSC-Deadline Mode".
//!
//! The counter runs at `bus_hz` divided by the divide configuration. Its start is kept as an exact point of time: a
//! TSC value and the fraction of a TSC tick beyond it, in units of `1 / bus_hz` ticks. A periodic timer moves that
//! point by exactly one period at each expiry, so no rounding adds up however long it runs.

/// How fast the clocks behind the timer run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Frequencies {
    /// The guest's TSC, in ticks a second; 0 counts as 1.
    pub tsc_hz: u64,
    /// The APIC timer's input before the divide configuration, in ticks a second; 0 counts as 1.
    pub bus_hz: u64,
}

/// Timer mode, bits 18:17 of the LVT timer register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TimerMode {
    OneShot,
    Periodic,
    TscDeadline,
}

impl TimerMode {
    /// The mode that an LVT timer register names. Encoding 3 is reserved; it counts as TSC deadline, as on the
    /// comparison machine.
    pub(crate) const fn from_lvt(entry: u32) -> Self {
        match entry >> 17 & 3 {
            0 => Self::OneShot,
            1 => Self::Periodic,
            _ => Self::TscDeadline,
        }
    }
}

/// No expiry is due: the value of [`Timer::next`] while nothing runs.
pub(crate) const NEVER: u64 = u64::MAX;

/// The timer's registers and its running count. Every method that takes `now` (the guest's TSC) expects that
/// [`Timer::fire`] was called with the same `now` before, so that nothing is overdue.
#[derive(Clone, Debug)]
pub(crate) struct Timer {
    tsc_hz: u64,
    bus_hz: u64,
    mode: TimerMode,
    initial: u32,
    divide: u32,
    /// IA32_TSC_DEADLINE; 0 when disarmed.
    deadline: u64,
    /// When the count was `first`: the TSC, and the fraction beyond it in `1 / bus_hz` of a TSC tick.
    base: u64,
    fraction: u64,
    /// The count at `base`; 0 when the counter stands still.
    first: u32,
    /// The first TSC value at which an expiry is due.
    next: u64,
}

impl Timer {
    pub(crate) fn new(frequencies: Frequencies) -> Self {
        Self {
            tsc_hz: frequencies.tsc_hz.max(1),
            bus_hz: frequencies.bus_hz.max(1),
            mode: TimerMode::OneShot,
            initial: 0,
            divide: 0,
            deadline: 0,
            base: 0,
            fraction: 0,
            first: 0,
            next: NEVER,
        }
    }

    /// All registers as after RESET.
    pub(crate) fn reset(&mut self) {
        *self = Self::new(Frequencies { tsc_hz: self.tsc_hz, bus_hz: self.bus_hz });
    }

    /// The TSC value of the next expiry; [`NEVER`] when nothing runs.
    #[inline(always)]
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// Performs the expiries due at `now`; true when there was at least one. Several missed periods are one expiry:
    /// the IRR bit they would set is one bit.
    #[inline(always)]
    pub(crate) fn fire(&mut self, now: u64) -> bool {
        if now < self.next || self.next == NEVER {
            return false;
        }
        self.expire(now);
        true
    }

    fn expire(&mut self, now: u64) {
        if self.mode == TimerMode::Periodic && self.initial != 0 {
            let period = u64::from(self.initial) * self.divisor();
            let first = u64::from(self.first) * self.divisor();
            let missed = self.elapsed(now).saturating_sub(first) / period;
            let numerator = self.span(u128::from(first) + u128::from(missed) * u128::from(period));
            let (whole, fraction) = divide(numerator, self.bus_hz);
            self.base = self.base.wrapping_add(whole);
            self.fraction = fraction;
            self.first = self.initial;
            self.schedule(now);
        } else {
            self.stop();
        }
    }

    /// Selects the mode; a change to or from TSC-deadline mode disarms.
    pub(crate) fn set_mode(&mut self, mode: TimerMode) {
        if (mode == TimerMode::TscDeadline) != (self.mode == TimerMode::TscDeadline) {
            self.stop();
        }
        self.mode = mode;
    }

    /// The initial-count register.
    pub(crate) fn initial(&self) -> u32 {
        self.initial
    }

    /// A write to the initial-count register: 0 stops, anything else starts over. Ignored in TSC-deadline mode.
    pub(crate) fn set_initial(&mut self, count: u32, now: u64) {
        if self.mode != TimerMode::TscDeadline {
            self.initial = count;
            self.count_from(count, now);
        }
    }

    /// The current-count register: 0 in TSC-deadline mode and when the counter stands still.
    pub(crate) fn current(&self, now: u64) -> u32 {
        let passed = u32::try_from(self.elapsed(now) / self.divisor()).unwrap_or(u32::MAX);
        self.first.saturating_sub(passed)
    }

    /// The divide-configuration register.
    pub(crate) fn divide_configuration(&self) -> u32 {
        self.divide
    }

    /// A write to the divide-configuration register, of which bits 3, 1 and 0 count. A running counter goes on from
    /// its current count at the new speed.
    pub(crate) fn set_divide_configuration(&mut self, value: u32, now: u64) {
        let current = self.current(now);
        self.divide = value & 0b1011;
        if self.first != 0 {
            self.count_from(current, now);
        }
    }

    /// IA32_TSC_DEADLINE: 0 when disarmed and in the other modes.
    pub(crate) fn deadline_msr(&self) -> u64 {
        self.deadline
    }

    /// A write to IA32_TSC_DEADLINE: arms, or disarms with 0. Ignored in the other modes.
    pub(crate) fn set_deadline_msr(&mut self, deadline: u64) {
        if self.mode == TimerMode::TscDeadline {
            self.deadline = deadline;
            self.next = if deadline == 0 { NEVER } else { deadline };
        }
    }

    /// The guest's TSC jumped from `old` to `new`. The counter does not count TSC ticks and goes on undisturbed; a TSC
    /// deadline is compared with the new value.
    pub(crate) fn tsc_written(&mut self, old: u64, new: u64) {
        if self.first != 0 {
            self.base = self.base.wrapping_add(new.wrapping_sub(old));
            self.schedule(new);
        }
    }

    /// Bits 3, 1 and 0 of the divide configuration say 2, 4, … 128, and 111 says 1.
    fn divisor(&self) -> u64 {
        match self.divide >> 1 & 4 | self.divide & 3 {
            7 => 1,
            power => 2 << power,
        }
    }

    fn stop(&mut self) {
        self.first = 0;
        self.deadline = 0;
        self.next = NEVER;
    }

    fn count_from(&mut self, count: u32, now: u64) {
        if count == 0 {
            return self.stop();
        }
        self.base = now;
        self.fraction = 0;
        self.first = count;
        self.schedule(now);
    }

    /// Computes `next` from the count at `base`.
    fn schedule(&mut self, now: u64) {
        let (whole, fraction) = divide(self.span(u128::from(self.first) * u128::from(self.divisor())), self.bus_hz);
        let until = whole.saturating_add(u64::from(fraction != 0));
        self.next = now.saturating_add(until.saturating_sub(now.wrapping_sub(self.base)));
    }

    /// `bus_ticks` after the base in TSC ticks after `self.base`, times `bus_hz`.
    fn span(&self, bus_ticks: u128) -> u128 {
        bus_ticks.saturating_mul(u128::from(self.tsc_hz)).saturating_add(u128::from(self.fraction))
    }

    /// Whole bus ticks from the base to `now`; 0 for a `now` before it.
    fn elapsed(&self, now: u64) -> u64 {
        let ticks = now.wrapping_sub(self.base);
        if ticks.cast_signed() < 0 {
            return 0;
        }
        let numerator = u128::from(ticks) * u128::from(self.bus_hz);
        divide(numerator.saturating_sub(u128::from(self.fraction)), self.tsc_hz).0
    }
}

/// Quotient (saturated to 64 bits) and remainder; one machine division in the usual case.
fn divide(numerator: u128, denominator: u64) -> (u64, u64) {
    if let Ok(numerator) = u64::try_from(numerator) {
        return (numerator / denominator, numerator % denominator);
    }
    let wide = u128::from(denominator);
    let remainder = u64::try_from(numerator % wide).unwrap_or(0);
    (u64::try_from(numerator / wide).unwrap_or(u64::MAX), remainder)
}
