//! The calendar against dates that `date -u` prints.

use proptest::prelude::*;

use crate::calendar::Date;

/// `date -u -d @SECONDS '+%Y %m %d %H %M %S %w'`, the weekday plus one.
#[test]
fn known_dates() {
    for (seconds, [year, month, day, hour, minute, second, weekday]) in [
        (0, [1970, 1, 1, 0, 0, 0, 5]),
        (951_827_696, [2000, 2, 29, 12, 34, 56, 3]),
        (1_709_164_799, [2024, 2, 28, 23, 59, 59, 4]),
        (1_709_164_800, [2024, 2, 29, 0, 0, 0, 5]),
        (1_735_689_599, [2024, 12, 31, 23, 59, 59, 3]),
        (2_147_483_648, [2038, 1, 19, 3, 14, 8, 3]),
        (4_107_542_400, [2100, 3, 1, 0, 0, 0, 2]),
        (-1, [1969, 12, 31, 23, 59, 59, 4]),
        (253_402_300_799, [9999, 12, 31, 23, 59, 59, 6]),
    ] {
        let date = Date::from_unix(seconds);
        let fields = [date.month, date.day, date.hour, date.minute, date.second, date.weekday].map(u16::from);
        assert_eq!((date.year, fields), (year, [month, day, hour, minute, second, weekday]), "{seconds}");
        assert_eq!(date.to_unix(), seconds);
    }
}

proptest! {
    /// Whatever the registers hold, it is some second, and no arithmetic overflows.
    #[test]
    fn nonsense_is_some_second(bytes: [u8; 6], year: u16) {
        let [month, day, hour, minute, second, weekday] = bytes;
        let seconds = Date { year, month, day, hour, minute, second, weekday }.to_unix();
        Date::from_unix(seconds);
    }

    /// Every second of the years 0 to 9999 is shown as a date that names it.
    #[test]
    fn round_trip(seconds in -62_167_219_200_i64..253_402_300_800) {
        prop_assert_eq!(Date::from_unix(seconds).to_unix(), seconds);
    }
}
