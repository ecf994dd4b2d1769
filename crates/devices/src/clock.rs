//! How a device clock follows the TSC.
//!
//! Devices never hold wall time: each asks how many periods of its own crystal have passed at a TSC value, and at
//! which TSC value a count is reached. Both are exact, so a deadline is never early and nothing drifts.

/// Crystal of the 8254 channels: 14.31818 MHz / 12 (82C54 on a PC).
pub(crate) const PIT_HZ: u32 = 1_193_182;
/// Crystal of the real-time clock (MC146818).
pub(crate) const RTC_HZ: u32 = 32_768;
/// Crystal of the ACPI power-management timer (ACPI 4.8.3.3 "Power Management Timer").
pub(crate) const PM_HZ: u32 = 3_579_545;

/// Highest TSC frequency that is counted truly: with it, a remainder below `tsc_hz` times the fastest crystal
/// (below 2^22 Hz) still fits in 64 bits, so that no 128-bit division is needed on a port read.
const MAX_TSC_HZ: u64 = 1 << 42;

/// The last count of a device clock, tens of thousands of years away. Far enough below `u64::MAX` that no device
/// overflows when it adds a period.
pub(crate) const END: u64 = u64::MAX >> 2;

/// The relation of the TSC to the device clocks: which value counts as zero and how fast it runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    origin: u64,
    tsc_hz: u64,
}

impl Clock {
    /// All device clocks stand at zero at TSC value `origin`. `tsc_hz` is brought into 1 ..= 2^42.
    pub(crate) fn new(origin: u64, tsc_hz: u64) -> Self {
        Self { origin, tsc_hz: tsc_hz.clamp(1, MAX_TSC_HZ) }
    }

    /// Whole periods of an `hz` crystal that have passed at TSC value `now`: at most [`END`], where time stops.
    pub(crate) fn count(&self, now: u64, hz: u32) -> u64 {
        let ticks = now.saturating_sub(self.origin);
        let hz = u64::from(hz);
        let whole = (ticks / self.tsc_hz).saturating_mul(hz);
        whole.saturating_add((ticks % self.tsc_hz) * hz / self.tsc_hz).min(END)
    }

    /// The first TSC value at which [`Self::count`] is at least `count`; `u64::MAX` when that never comes.
    pub(crate) fn tsc_at(&self, count: u64, hz: u32) -> u64 {
        let hz = u64::from(hz);
        let whole = (count / hz).saturating_mul(self.tsc_hz);
        let part = ((count % hz) * self.tsc_hz).div_ceil(hz);
        self.origin.saturating_add(whole).saturating_add(part)
    }
}
