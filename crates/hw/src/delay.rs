//! Waiting for a given time.

use crate::{control, tsc};

/// Waits at least `micros` microseconds. The TSC is calibrated.
pub fn micros(micros: u64) {
    let ticks = tsc::frequency() * micros / 1_000_000;
    let start = tsc::now();
    while tsc::now() - start < ticks {
        control::pause();
    }
}

/// Waits until `done` or until `micros` microseconds are over; returns whether it was done.
pub fn until(micros: u64, mut done: impl FnMut() -> bool) -> bool {
    let ticks = tsc::frequency() * micros / 1_000_000;
    let start = tsc::now();
    loop {
        if done() {
            return true;
        }
        if tsc::now() - start >= ticks {
            return false;
        }
        control::pause();
    }
}
