//! Seconds since 1970 as the date and time that a calendar clock shows, and back (UTC, proleptic Gregorian).

/// Days from 0000-03-01 to 1970-01-01.
const EPOCH_FROM_MARCH_0: i64 = 719_468;
/// Days in 400 years.
const ERA: i64 = 146_097;
/// Seconds in a day.
const DAY: i64 = 86_400;
/// First second of the year 0, the earliest that two digits of century and two of year can show.
const YEAR_0: i64 = -62_167_219_200;
/// First second of the year 10000, after which they begin again.
const YEAR_10000: i64 = 253_402_300_800;

/// A date and time, field by field, as a calendar clock holds them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Date {
    pub(crate) year: u16,
    /// 1 to 12.
    pub(crate) month: u8,
    /// 1 to 31.
    pub(crate) day: u8,
    pub(crate) hour: u8,
    pub(crate) minute: u8,
    pub(crate) second: u8,
    /// 1 is Sunday.
    pub(crate) weekday: u8,
}

/// A small non-negative number as a byte.
fn byte(number: i64) -> u8 {
    number.to_le_bytes()[0]
}

impl Date {
    /// The date `seconds` after the start of 1970, wrapping to the years 0 to 9999.
    pub(crate) fn from_unix(seconds: i64) -> Self {
        let seconds = YEAR_0 + seconds.wrapping_sub(YEAR_0).rem_euclid(YEAR_10000 - YEAR_0);
        let days = seconds.div_euclid(DAY);
        let time = seconds.rem_euclid(DAY);
        // Years are counted from 1 March, so that the leap day is the last of its year.
        let shifted = days + EPOCH_FROM_MARCH_0;
        let era = shifted.div_euclid(ERA);
        let day_of_era = shifted.rem_euclid(ERA);
        let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month + 2) / 5 + 1;
        let month = if month < 10 { month + 3 } else { month - 9 };
        let year = year_of_era + 400 * era + i64::from(month <= 2);
        let [low, high, ..] = year.to_le_bytes();
        Self {
            year: u16::from_le_bytes([low, high]),
            month: byte(month),
            day: byte(day),
            hour: byte(time / 3_600),
            minute: byte(time / 60 % 60),
            second: byte(time % 60),
            // 1970-01-01 was a Thursday.
            weekday: byte((days + 4).rem_euclid(7) + 1),
        }
    }

    /// Seconds since 1970. Fields out of range run over into the next: day 0 is the last of the month before.
    pub(crate) fn to_unix(self) -> i64 {
        let months = i64::from(self.month) - 3;
        let year = i64::from(self.year) + months.div_euclid(12);
        let month = months.rem_euclid(12);
        let era = year.div_euclid(400);
        let year_of_era = year.rem_euclid(400);
        let day_of_year = (153 * month + 2) / 5 + i64::from(self.day) - 1;
        let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
        let days = era * ERA + day_of_era - EPOCH_FROM_MARCH_0;
        days * DAY + i64::from(self.hour) * 3_600 + i64::from(self.minute) * 60 + i64::from(self.second)
    }
}
