//! The time-stamp counter, and how fast it runs.

use core::sync::atomic::{AtomicU64, Ordering};

use boot::acpi::PmTimer;

use crate::{control, cpuid, port};

/// Ticks in a second; 0 until calibrated.
static FREQUENCY: AtomicU64 = AtomicU64::new(0);
/// What the counter was when the image began.
static START: AtomicU64 = AtomicU64::new(0);

/// What the PIT counts in a second.
const PIT_HZ: u64 = 1_193_182;
/// What the ACPI power-management timer counts in a second.
const PM_TIMER_HZ: u64 = 3_579_545;
/// Ticks without progress of a clock after which it is taken to be missing: about a second on any processor.
const PATIENCE: u64 = 4_000_000_000;

/// The counter.
#[inline(always)]
#[must_use]
pub fn now() -> u64 {
    // SAFETY: RDTSC has no effect.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Ticks in a second; 0 until [`calibrate`] has run.
#[inline]
#[must_use]
pub fn frequency() -> u64 {
    FREQUENCY.load(Ordering::Relaxed)
}

/// What the counter was when the image began.
#[must_use]
pub fn start() -> u64 {
    START.load(Ordering::Relaxed)
}

/// Microseconds since the image began; 0 until calibrated.
#[must_use]
pub fn micros() -> u64 {
    let frequency = frequency();
    let ticks = now().wrapping_sub(start());
    if frequency == 0 {
        return 0;
    }
    (ticks / frequency) * 1_000_000 + (ticks % frequency) * 1_000_000 / frequency
}

/// Notes that the image begins now.
pub fn note_start() {
    START.store(now(), Ordering::Relaxed);
}

/// Where the frequency came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// CPUID leaf 15H, confirmed by a clock.
    Cpuid,
    /// The programmable interval timer.
    Pit,
    /// The ACPI power-management timer.
    PmTimer,
}

impl Source {
    /// For the log.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cpuid => "CPUID, confirmed by a timer",
            Self::Pit => "measured against the PIT",
            Self::PmTimer => "measured against the ACPI timer",
        }
    }
}

/// Finds the frequency; `None` when the machine has no clock to measure against.
///
/// A measured value counts: in an emulator CPUID may claim the frequency of the model, not that of the emulation. Where
/// the two agree within 1 %, CPUID's is the exact one.
pub fn calibrate(pm_timer: Option<PmTimer>) -> Option<(u64, Source)> {
    let measured = measure_pit()
        .map(|hz| (hz, Source::Pit))
        .or_else(|| Some((measure_pm_timer(pm_timer?.port)?, Source::PmTimer)))?;
    let claimed = claimed();
    let result = if claimed.abs_diff(measured.0) <= measured.0 / 100 { (claimed, Source::Cpuid) } else { measured };
    FREQUENCY.store(result.0, Ordering::Relaxed);
    Some(result)
}

/// CPUID leaf 15H (SDM 2A, "CPUID", "Time Stamp Counter and Core Crystal Clock Information Leaf"); 0 if it does not say.
fn claimed() -> u64 {
    let leaf = cpuid::leaf(0x15);
    if leaf.eax == 0 { 0 } else { u64::from(leaf.ecx) * u64::from(leaf.ebx) / u64::from(leaf.eax) }
}

/// Counts ticks while channel 2 of the PIT, whose gate and output port 0x61 holds, runs down once in 20 ms.
fn measure_pit() -> Option<u64> {
    const COUNT: u16 = 23864;
    const GATE: u8 = 1;
    const SPEAKER: u8 = 2;
    const OUTPUT: u8 = 1 << 5;
    let [low, high] = COUNT.to_le_bytes();
    // SAFETY: port 0x61 reports and sets the gate of channel 2 and the speaker.
    let before = unsafe { port::in8(0x61) } & !(GATE | SPEAKER) & 0x0f;
    // Gate low; channel 2, low byte then high byte, mode 0: the output rises when the count is over.
    for (port, value) in [(0x61, before), (0x43, 0xb0), (0x42, low), (0x42, high)] {
        // SAFETY: nobody else uses channel 2 of the PIT.
        unsafe { port::out8(port, value) };
    }
    // SAFETY: as above; the gate goes high and the count begins.
    unsafe { port::out8(0x61, before | GATE) };
    let start = now();
    let elapsed = loop {
        // SAFETY: as above.
        let status = unsafe { port::in8(0x61) };
        let elapsed = now() - start;
        if status & OUTPUT != 0 {
            break elapsed;
        }
        if elapsed > PATIENCE {
            return None;
        }
    };
    // SAFETY: as above; the gate goes low again.
    unsafe { port::out8(0x61, before) };
    // A port that nobody drives reads all ones: the count would be over at once.
    (elapsed > 100_000).then(|| elapsed * PIT_HZ / u64::from(COUNT))
}

/// Counts ticks while the power-management timer, of which 24 bits can be relied on, advances by 20 ms.
fn measure_pm_timer(port: u16) -> Option<u64> {
    const MASK: u32 = 0xff_ffff;
    const COUNT: u32 = 71_591;
    // SAFETY: reading the timer has no effect.
    let read = || unsafe { port::in32(port) } & MASK;
    let (first, start) = (read(), now());
    loop {
        let (count, elapsed) = (read().wrapping_sub(first) & MASK, now() - start);
        if count >= COUNT {
            return (elapsed > 100_000).then(|| elapsed * PM_TIMER_HZ / u64::from(count));
        }
        if elapsed > PATIENCE {
            return None;
        }
        control::pause();
    }
}
