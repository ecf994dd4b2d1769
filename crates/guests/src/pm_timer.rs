//! The power-management timer: 3,579,545 counts a second, the clock that nothing a guest does can disturb.
//! ACPI 6.5, 4.8.3.3 "Power Management Timer (PM_TMR)".

use core::sync::atomic::{AtomicU32, Ordering};

use crate::acpi::Fadt;
use crate::port::in32;

/// Counts a second.
pub const FREQUENCY: u64 = 3_579_545;
/// The counter may have no more bits than these.
const MASK: u32 = 0xff_ffff;
/// Its port, once it was looked up.
static PORT: AtomicU32 = AtomicU32::new(0);

/// The counter's low 24 bits.
pub fn now() -> u32 {
    let mut port = PORT.load(Ordering::Relaxed);
    if port == 0 {
        port = u32::from(Fadt::find().expect("the machine has no ACPI FADT").pm_timer);
        PORT.store(port, Ordering::Relaxed);
    }
    let port = port as u16;
    in32(port) & MASK
}

/// Counts since `start`, which is at most 4 seconds ago.
pub fn since(start: u32) -> u32 {
    now().wrapping_sub(start) & MASK
}

/// Waits.
pub fn wait_microseconds(microseconds: u32) {
    let start = now();
    while u64::from(since(start)) * 1_000_000 < u64::from(microseconds) * FREQUENCY {}
}
