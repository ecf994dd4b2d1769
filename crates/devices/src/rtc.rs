//! The real-time clock and its battery-backed memory (Motorola MC146818A data sheet) behind ports 0x70 and 0x71.
//!
//! Time is never counted: it is computed from the 32,768 Hz crystal when somebody looks. As in Bochs, each second
//! begins with 8 periods (244 microseconds) of "update in progress", after which the new time shows and the update
//! and alarm interrupts come; while SET holds the shown time still, the clock behind it runs on.

use crate::calendar::Date;
use crate::clock::RTC_HZ;
use crate::nvram::Nvram;

/// Time registers in the order of their numbers; odd ones from 1 to 5 are the alarm's.
const SECOND: u8 = 0x00;
const MINUTE: u8 = 0x02;
const HOUR: u8 = 0x04;
const WEEKDAY: u8 = 0x06;
const DAY: u8 = 0x07;
const MONTH: u8 = 0x08;
const YEAR: u8 = 0x09;
const REG_A: u8 = 0x0a;
const REG_B: u8 = 0x0b;
const REG_C: u8 = 0x0c;
const REG_D: u8 = 0x0d;
/// The century, at the AT's place and at the PS/2's.
const CENTURY: u8 = 0x32;
const CENTURY_PS2: u8 = 0x37;

/// Register A: update in progress.
const A_UIP: u8 = 1 << 7;
/// Register B.
const B_SET: u8 = 1 << 7;
const B_BINARY: u8 = 1 << 2;
const B_24_HOURS: u8 = 1 << 1;
/// Interrupts, at the same places in B (enable) and C (flag).
const PERIODIC: u8 = 1 << 6;
const ALARM: u8 = 1 << 5;
const UPDATED: u8 = 1 << 4;
const INTERRUPTS: u8 = PERIODIC | ALARM | UPDATED;
/// Square wave: no pin to put it out, reads 0 as in Bochs.
const B_SQUARE_WAVE: u8 = 1 << 3;
/// Register C: any enabled flag.
const C_IRQ: u8 = 1 << 7;
/// Register D: the battery is good.
const D_VALID: u8 = 1 << 7;

const SECOND_PERIODS: u64 = RTC_HZ as u64;
/// How long an update takes.
const UPDATE: u64 = 8;
const DAY_SECONDS: i64 = 86_400;
/// Alarm bytes with both high bits set match anything.
const ANY: u8 = 0xc0;

/// Clock and memory. Times are periods of [`RTC_HZ`].
#[derive(Debug)]
pub(crate) struct Rtc {
    index: u8,
    nvram: Nvram,
    a: u8,
    b: u8,
    /// Register C, bits 6:4.
    flags: u8,
    /// Flags are true up to this time.
    seen: u64,
    /// The clock shows `base` until the update of the second that begins at `next`.
    base: i64,
    next: u64,
    /// SET: the time that shows, and whether the guest changed it.
    held: Option<(Shown, bool)>,
}

/// The eight time registers as they show: second, minute, hour, weekday, day, month, year, century.
type Shown = [u8; 8];

/// Place of a time register in [`Shown`].
fn place(register: u8) -> Option<usize> {
    [SECOND, MINUTE, HOUR, WEEKDAY, DAY, MONTH, YEAR, CENTURY].iter().position(|&known| known == register)
}

impl Rtc {
    /// Shows `unix_time` (seconds since 1970, UTC) at time 0, in BCD and 24 hours.
    pub(crate) fn new(unix_time: u64, nvram: Nvram) -> Self {
        Self {
            index: 0,
            nvram,
            a: 0x26,
            b: B_24_HOURS,
            flags: 0,
            seen: 0,
            base: i64::try_from(unix_time).unwrap_or(0),
            next: SECOND_PERIODS,
            held: None,
        }
    }

    /// Writes port 0x70: which register port 0x71 is. Bit 7 is the NMI mask of the chip set, and there is no NMI.
    pub(crate) fn select(&mut self, value: u8) {
        self.index = value & 0x7f;
    }

    /// IRQ 8.
    pub(crate) fn irq(&self) -> bool {
        self.flags & self.b & INTERRUPTS != 0
    }

    /// Brings the flags to `now`.
    pub(crate) fn advance(&mut self, now: u64) {
        if now <= self.seen {
            return;
        }
        if let Some(period) = self.period()
            && now / period > self.seen / period
        {
            self.flags |= PERIODIC;
        }
        if let Some(first) = self.next_update()
            && first <= now
        {
            self.flags |= UPDATED;
            let shown = self.seconds(first);
            let passed = i64::try_from((now - first) / SECOND_PERIODS).unwrap_or(i64::MAX);
            if self.until_alarm(shown).is_some_and(|wait| wait <= passed) {
                self.flags |= ALARM;
            }
        }
        self.seen = now;
    }

    /// When an enabled interrupt comes next; `None` when none will, or one is waiting to be read.
    pub(crate) fn next_event(&self) -> Option<u64> {
        if self.irq() {
            return None;
        }
        let enabled = |interrupt: u8| self.b & interrupt != 0;
        let periodic = self.period().filter(|_| enabled(PERIODIC)).map(|period| (self.seen / period + 1) * period);
        let update = self.next_update();
        let updated = update.filter(|_| enabled(UPDATED));
        let alarm = update.filter(|_| enabled(ALARM)).and_then(|first| {
            let wait = u64::try_from(self.until_alarm(self.seconds(first))?).ok()?;
            Some(first + wait * SECOND_PERIODS)
        });
        [periodic, updated, alarm].into_iter().flatten().min()
    }

    /// Reads port 0x71.
    pub(crate) fn read(&mut self, now: u64) -> u8 {
        self.advance(now);
        match self.index {
            REG_A => self.a | if self.updating(now) { A_UIP } else { 0 },
            REG_B => self.b,
            REG_C => {
                let value = self.flags | if self.irq() { C_IRQ } else { 0 };
                self.flags = 0;
                value
            }
            REG_D => D_VALID,
            register => match place(century_alias(register)) {
                Some(place) => self.shown(now)[place],
                None => self.nvram.read(register),
            },
        }
    }

    /// Writes port 0x71.
    pub(crate) fn write(&mut self, value: u8, now: u64) {
        self.advance(now);
        match self.index {
            REG_A => self.write_a(value, now),
            REG_B => self.write_b(value, now),
            REG_C | REG_D => {}
            register => match place(century_alias(register)) {
                Some(place) => self.write_time(place, value, now),
                None => self.nvram.write(register, value),
            },
        }
    }

    /// Register A: divider and rate. While the divider is held in reset the clock stands; half a second after it is
    /// released comes the first update (data sheet, "Divider Control").
    fn write_a(&mut self, value: u8, now: u64) {
        let stood = self.stands();
        let seconds = self.seconds(now);
        self.a = value & !A_UIP;
        if self.stands() != stood {
            self.base = seconds;
            self.next = now + SECOND_PERIODS / 2;
        }
    }

    fn write_b(&mut self, value: u8, now: u64) {
        let mut value = value & !B_SQUARE_WAVE;
        if value & B_SET != 0 {
            value &= !UPDATED;
        }
        let before = self.b;
        if before & B_SET != 0 && value & B_SET == 0 {
            if let Some((shown, true)) = self.held {
                self.set_time(self.decode(&shown), now);
            }
            self.held = None;
        }
        self.b = value;
        let format_changed = (before ^ value) & (B_BINARY | B_24_HOURS) != 0;
        if value & B_SET != 0 && (before & B_SET == 0 || format_changed) {
            self.held = Some((self.encode(self.seconds(now)), false));
        }
    }

    fn write_time(&mut self, place: usize, value: u8, now: u64) {
        let mut shown = self.shown(now);
        shown[place] = value;
        if self.b & B_SET != 0 {
            self.held = Some((shown, true));
        } else {
            self.set_time(self.decode(&shown), now);
        }
    }

    /// Makes the clock show `seconds` now, without moving its next update.
    fn set_time(&mut self, seconds: i64, now: u64) {
        let shown = self.seconds(now);
        self.base = self.base.wrapping_add(seconds.wrapping_sub(shown));
    }

    /// Whether the divider chain is held in reset.
    fn stands(&self) -> bool {
        self.a & 0x60 == 0x60
    }

    /// Periods between periodic interrupts: rate 3 is 122 microseconds, each next twice that; rates 1 and 2 are as 8 and 9.
    fn period(&self) -> Option<u64> {
        let divider_runs = self.a & 0x70 == 0x20;
        match self.a & 0x0f {
            rate @ 1..=2 if divider_runs => Some(1 << (rate + 6)),
            rate @ 3.. if divider_runs => Some(1 << (rate - 1)),
            _ => None,
        }
    }

    /// The time of the first update after the time seen; `None` while SET or the divider's reset forbid any.
    fn next_update(&self) -> Option<u64> {
        if self.b & B_SET != 0 || self.stands() {
            return None;
        }
        let first = self.next + UPDATE;
        if self.seen < first {
            return Some(first);
        }
        Some(first + ((self.seen - first) / SECOND_PERIODS + 1) * SECOND_PERIODS)
    }

    /// Whether an update is in progress at `now`.
    fn updating(&self, now: u64) -> bool {
        let since = now.checked_sub(self.next);
        since.is_some_and(|since| since % SECOND_PERIODS < UPDATE) && self.b & B_SET == 0 && !self.stands()
    }

    /// The second that the clock is in at `now`, after its update.
    fn seconds(&self, now: u64) -> i64 {
        match now.checked_sub(self.next + UPDATE) {
            Some(since) if !self.stands() => {
                self.base.wrapping_add(1 + i64::try_from(since / SECOND_PERIODS).unwrap_or(0))
            }
            _ => self.base,
        }
    }

    fn shown(&self, now: u64) -> Shown {
        match self.held {
            Some((shown, _)) => shown,
            None => self.encode(self.seconds(now)),
        }
    }

    /// A number as the registers hold it: binary, or BCD.
    fn digits(&self, number: u8) -> u8 {
        if self.b & B_BINARY != 0 { number } else { ((number / 10) << 4) | (number % 10) }
    }

    fn number(&self, digits: u8) -> u8 {
        if self.b & B_BINARY != 0 { digits } else { (digits >> 4) * 10 + (digits & 0xf) }
    }

    /// An hour as it shows: with 12 hours, midnight and noon are 12, and bit 7 is "afternoon".
    fn hour_digits(&self, hour: u8) -> u8 {
        if self.b & B_24_HOURS != 0 {
            return self.digits(hour);
        }
        let afternoon = if hour >= 12 { 0x80 } else { 0 };
        let hour = if hour.is_multiple_of(12) { 12 } else { hour % 12 };
        self.digits(hour) | afternoon
    }

    fn encode(&self, seconds: i64) -> Shown {
        let date = Date::from_unix(seconds);
        let [year, century] = [date.year % 100, date.year / 100].map(|number| number.to_le_bytes()[0]);
        [
            self.digits(date.second),
            self.digits(date.minute),
            self.hour_digits(date.hour),
            self.digits(date.weekday),
            self.digits(date.day),
            self.digits(date.month),
            self.digits(year),
            self.digits(century),
        ]
    }

    /// The second that the registers name. The weekday does not count.
    fn decode(&self, shown: &Shown) -> i64 {
        let &[second, minute, hour, _, day, month, year, century] = shown;
        let hour = if self.b & B_24_HOURS != 0 {
            self.number(hour)
        } else {
            self.number(hour & 0x7f) % 12 + if hour & 0x80 != 0 { 12 } else { 0 }
        };
        let date = Date {
            year: u16::from(self.number(century)) * 100 + u16::from(self.number(year)),
            month: self.number(month),
            day: self.number(day),
            hour,
            minute: self.number(minute),
            second: self.number(second),
            weekday: 0,
        };
        date.to_unix()
    }

    /// Seconds from `shown` to the first second, itself included, that the alarm names; `None` when there is no such.
    fn until_alarm(&self, shown: i64) -> Option<i64> {
        let alarm = |register: u8| self.nvram.read(register + 1);
        let matching = |register: u8, value: u8| {
            let wanted = alarm(register);
            let digits = if register == HOUR { self.hour_digits(value) } else { self.digits(value) };
            wanted & ANY == ANY || wanted == digits
        };
        // 12-hour "afternoon" reaches bit 7 too, and only both high bits mean "any".
        let second = (0..60).find(|&second| matching(SECOND, second))?;
        let any_second = alarm(SECOND) & ANY == ANY;
        let now = shown.rem_euclid(DAY_SECONDS);
        let mut first_possible = None;
        for hour in (0..24).filter(|&hour| matching(HOUR, hour)) {
            for minute in (0..60).filter(|&minute| matching(MINUTE, minute)) {
                let start = i64::from(hour) * 3_600 + i64::from(minute) * 60;
                let at = if any_second { now.clamp(start, start + 59) } else { start + i64::from(second) };
                if at >= now {
                    return Some(at - now);
                }
                // All of this minute has passed for today; tomorrow's begins with its first matching second.
                first_possible.get_or_insert(start + i64::from(second));
            }
        }
        first_possible.map(|at| at + DAY_SECONDS - now)
    }
}

/// The PS/2's century register is the AT's.
fn century_alias(register: u8) -> u8 {
    if register == CENTURY_PS2 { CENTURY } else { register }
}
