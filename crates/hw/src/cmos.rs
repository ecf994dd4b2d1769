//! The machine's real-time clock: read once, to set the clocks of guests.

use crate::port;

const INDEX: u16 = 0x70;
const DATA: u16 = 0x71;
/// Status A: an update is in progress.
const UPDATING: u8 = 1 << 7;
/// Status B: hours count to 24; values are binary, not BCD.
const HOURS_24: u8 = 1 << 1;
const BINARY: u8 = 1 << 2;
/// Hours register: afternoon, in 12-hour mode.
const AFTERNOON: u8 = 1 << 7;

fn read(register: u8) -> u8 {
    // SAFETY: selecting and reading a register of the clock changes nothing that L0 relies on.
    unsafe { port::out8(INDEX, register) };
    // SAFETY: as above.
    unsafe { port::in8(DATA) }
}

/// Seconds, minutes, hours, day, month, year as the registers have them.
fn registers() -> [u8; 6] {
    [0, 2, 4, 7, 8, 9].map(read)
}

/// Seconds since 1970, taking the clock for UTC; years are 2000 to 2099. A clock that does not answer gives some time.
#[must_use]
pub fn unix_time() -> u64 {
    // Two equal readings were not torn by an update. A dead clock must not stop the machine.
    let mut last = registers();
    for _ in 0..1000 {
        if read(0xa) & UPDATING != 0 {
            continue;
        }
        let now = registers();
        if now == last {
            break;
        }
        last = now;
    }
    let status = read(0xb);
    let binary = |value: u8| u64::from(if status & BINARY != 0 { value } else { (value >> 4) * 10 + (value & 15) });
    let [second, minute, hour, day, month, year] = last;
    let mut hours = binary(hour & !AFTERNOON);
    if status & HOURS_24 == 0 {
        hours = hours % 12 + if hour & AFTERNOON != 0 { 12 } else { 0 };
    }
    let days = days_since_1970(2000 + binary(year), binary(month), binary(day));
    days * 86_400 + hours * 3_600 + binary(minute) * 60 + binary(second)
}

/// Days from 1 January 1970 to a date of the Gregorian calendar from 2000 on.
fn days_since_1970(year: u64, month: u64, day: u64) -> u64 {
    // Counted from March, so that the leap day is the last of its year.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let until_month = (153 * month + 2) / 5;
    year * 365 + year / 4 - year / 100 + year / 400 + until_month + day.max(1) - 1 - 719_468
}
