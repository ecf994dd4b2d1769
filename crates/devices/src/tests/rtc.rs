//! The real-time clock as a driver sees it, against the MC146818A data sheet.

use proptest::prelude::*;

use super::machine::Machine;
use crate::nvram::Nvram;
use crate::rtc::Rtc;

const MILLISECOND: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MILLISECOND;

impl Machine {
    fn cmos(&mut self, index: u8) -> u8 {
        self.outb(0x70, index);
        self.inb(0x71)
    }

    fn set_cmos(&mut self, index: u8, value: u8) {
        self.outb(0x70, index);
        self.outb(0x71, value);
    }

    /// Century, year, month, day, weekday, hour, minute, second.
    fn calendar(&mut self) -> [u8; 8] {
        [0x32, 0x09, 0x08, 0x07, 0x06, 0x04, 0x02, 0x00].map(|index| self.cmos(index))
    }

    /// With IRQ 8 let through.
    fn with_rtc() -> Self {
        let mut machine = Self::quiet();
        machine.outb(0x21, 0xfb);
        machine.outb(0xa1, 0xfe);
        machine
    }

    /// The vector of a waiting interrupt, ended at both controllers, and register C.
    fn serve_rtc(&mut self) -> (u8, u8) {
        let vector = self.acknowledge();
        self.outb(0xa0, 0x20);
        self.outb(0x20, 0x20);
        (vector, self.cmos(0x0c))
    }
}

/// BCD, 24 hours, over the end of a 28 February in a leap year.
#[test]
fn time_passes() {
    let mut machine = Machine::quiet();
    assert_eq!(machine.calendar(), [0x20, 0x24, 0x02, 0x28, 0x04, 0x23, 0x59, 0x30]);
    machine.pass(29 * SECOND + 900 * MILLISECOND);
    assert_eq!(machine.calendar(), [0x20, 0x24, 0x02, 0x28, 0x04, 0x23, 0x59, 0x59]);
    machine.pass(200 * MILLISECOND);
    assert_eq!(machine.calendar(), [0x20, 0x24, 0x02, 0x29, 0x05, 0x00, 0x00, 0x00]);
    assert_eq!(machine.cmos(0x37), 0x20, "the PS/2's century");
    assert_eq!(machine.cmos(0x0d), 0x80, "valid");
}

/// Hours and numbers in the four formats (data sheet, "Time, Calendar and Alarm Data Modes").
#[test]
fn formats() {
    for (hours_later, [bcd_24, bcd_12, binary_24, binary_12]) in [
        (0, [0x23, 0x91, 23, 0x8b]),
        (1, [0x00, 0x12, 0, 12]),
        (2, [0x01, 0x01, 1, 1]),
        (13, [0x12, 0x92, 12, 0x8c]),
        (14, [0x13, 0x81, 13, 0x81]),
    ] {
        let mut machine = Machine::quiet();
        machine.pass(hours_later * 3_600 * SECOND);
        for (format, expected) in [(0x02, bcd_24), (0x00, bcd_12), (0x06, binary_24), (0x04, binary_12)] {
            machine.set_cmos(0x0b, format);
            assert_eq!(machine.cmos(0x04), expected, "{hours_later} hours later, format {format}");
            // Written back as it was read, the time stays.
            let before = machine.calendar();
            machine.set_cmos(0x04, expected);
            assert_eq!(machine.calendar(), before);
        }
    }
}

/// Update in progress covers the 244 microseconds before the time changes, and only those.
#[test]
fn update_in_progress() {
    let mut machine = Machine::quiet();
    machine.pass(SECOND - 2_000);
    assert_eq!((machine.cmos(0x0a), machine.cmos(0x00)), (0x26, 0x30));
    machine.pass(100_000);
    assert_eq!((machine.cmos(0x0a), machine.cmos(0x00)), (0xa6, 0x30));
    machine.pass(244_000);
    assert_eq!((machine.cmos(0x0a), machine.cmos(0x00)), (0x26, 0x31));
    machine.set_cmos(0x0b, 0x82);
    machine.pass(SECOND - 244_000);
    assert_eq!(machine.cmos(0x0a), 0x26, "no update while SET");
}

/// Linux's way to set the clock: SET, divider reset, the registers, divider on, SET off. The next update comes half a
/// second later.
#[test]
fn set_the_time() {
    let mut machine = Machine::quiet();
    machine.pass(123 * MILLISECOND);
    machine.set_cmos(0x0b, 0x82);
    machine.set_cmos(0x0a, 0x70);
    for (index, value) in [(0x32, 0x19), (9, 0x99), (8, 0x12), (7, 0x31), (4, 0x23), (2, 0x59), (0, 0x59)] {
        machine.set_cmos(index, value);
    }
    machine.pass(700 * MILLISECOND);
    machine.set_cmos(0x0b, 0x02);
    machine.set_cmos(0x0a, 0x26);
    let last_second = [0x19, 0x99, 0x12, 0x31, 0x06, 0x23, 0x59, 0x59];
    assert_eq!(machine.calendar(), last_second);
    machine.pass(499 * MILLISECOND);
    assert_eq!(machine.calendar(), last_second);
    machine.pass(2 * MILLISECOND);
    assert_eq!(machine.calendar(), [0x20, 0x00, 0x01, 0x01, 0x07, 0x00, 0x00, 0x00]);
}

/// SET stops what shows, not the clock behind it.
#[test]
fn set_holds_what_shows() {
    let mut machine = Machine::quiet();
    machine.set_cmos(0x0b, 0x82);
    machine.pass(5 * SECOND + MILLISECOND);
    assert_eq!(machine.cmos(0x00), 0x30);
    machine.set_cmos(0x0b, 0x02);
    assert_eq!(machine.cmos(0x00), 0x35);
}

/// All thirteen rates: 122 microseconds to half a second (data sheet, "Periodic Interrupt Rates"); one interrupt a period.
#[test]
fn periodic_interrupt() {
    for rate in 1..=15_u8 {
        let nanoseconds = match rate {
            1 => 3_906_250,
            2 => 7_812_500,
            _ => 1_000_000_000 / 32_768 * (1 << (rate - 1)),
        };
        let mut machine = Machine::with_rtc();
        machine.set_cmos(0x0a, 0x20 | rate);
        machine.set_cmos(0x0b, 0x42);
        let start = machine.now;
        for period in 1..=4 {
            assert_eq!(machine.run(nanoseconds * 11 / 10).len(), 1, "rate {rate}");
            assert_eq!(machine.serve_rtc().1 & 0xc0, 0xc0, "rate {rate}");
            machine.now = start;
            machine.pass(nanoseconds * period + nanoseconds / 100);
        }
    }
    let mut machine = Machine::with_rtc();
    machine.set_cmos(0x0a, 0x20);
    machine.set_cmos(0x0b, 0x42);
    assert_eq!(machine.run(2 * SECOND), [], "rate 0: none");
}

/// The update-ended interrupt comes once a second, with the new time; the line stays up until register C is read.
#[test]
fn update_interrupt() {
    let mut machine = Machine::with_rtc();
    machine.set_cmos(0x0b, 0x12);
    assert_eq!(machine.run(3 * SECOND).len(), 1, "no second edge without a read of register C");
    machine.cmos(0x0c);
    machine.acknowledge();
    machine.outb(0xa0, 0x20);
    machine.outb(0x20, 0x20);
    for _ in 0..3 {
        let shown = machine.cmos(0x00);
        let ticks = machine.run(SECOND);
        assert_eq!(ticks.len(), 1);
        assert_eq!(machine.cmos(0x00), shown + 1);
        assert_eq!(machine.serve_rtc(), (0x70, 0x90 | 0x40), "IRQF, UF, and PF which goes on unasked");
        assert_eq!(machine.cmos(0x0c), 0, "cleared by the read");
    }
}

/// The alarm: an exact time, tomorrow's, every hour, every second.
#[test]
fn alarm_interrupt() {
    // From 23:59:30.
    for ([hour, minute, second], seconds) in [
        ([0x23, 0x59, 0x40], 10),
        ([0x00, 0x00, 0x05], 35),
        ([0x23, 0x59, 0x30], 86_400),
        ([0xff, 0x10, 0x00], 630),
        ([0xc0, 0xff, 0x15], 45),
        ([0xff, 0xff, 0xff], 1),
    ] {
        let mut machine = Machine::with_rtc();
        for (index, value) in [(5, hour), (3, minute), (1, second)] {
            machine.set_cmos(index, value);
        }
        machine.set_cmos(0x0b, 0x22);
        machine.cmos(0x0c);
        assert_eq!(machine.run(seconds * SECOND - MILLISECOND), [], "{hour:x}:{minute:x}:{second:x}");
        assert_eq!(machine.run(2 * MILLISECOND).len(), 1, "{hour:x}:{minute:x}:{second:x}");
        assert_eq!(machine.serve_rtc().1 & 0xa0, 0xa0);
    }
    let mut machine = Machine::with_rtc();
    machine.set_cmos(0x01, 0x61);
    machine.set_cmos(0x0b, 0x22);
    assert_eq!(machine.run(100_000 * SECOND), [], "there is no second 61");
}

/// Memory keeps what is written, above all the shutdown code that SMP start-up uses.
#[test]
fn memory() {
    let mut machine = Machine::quiet();
    for index in (0x0e..0x80).filter(|index| ![0x32, 0x37].contains(index)) {
        machine.set_cmos(index, index ^ 0xa5);
    }
    for index in (0x0e..0x80).filter(|index| ![0x32, 0x37].contains(index)) {
        assert_eq!(machine.cmos(index), index ^ 0xa5);
    }
    assert_eq!(machine.inb(0x70), 0xff, "the index cannot be read");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The time of the next alarm, which is computed, is the first second that matches when they are tried one by one.
    #[test]
    fn next_alarm_is_the_first_match(
        at in 0..200_000_u64,
        hour in prop_oneof![0..24_u8, Just(0xff)],
        minute in prop_oneof![0..60_u8, Just(0xff)],
        second in prop_oneof![0..60_u8, Just(0xff)],
    ) {
        let mut rtc = Rtc::new(at, Nvram::new(0, 0));
        let mut write = |index: u8, value: u8| {
            rtc.select(index);
            rtc.write(value, 0);
        };
        write(0x0b, 0x26);
        for (index, value) in [(5, hour), (3, minute), (1, second)] {
            write(index, value);
        }
        let any_or = |wanted: u8, value: u64| wanted == 0xff || u64::from(wanted) == value;
        let matches = |time: u64| {
            any_or(hour, time / 3_600 % 24) && any_or(minute, time / 60 % 60) && any_or(second, time % 60)
        };
        let first = (at + 1..).find(|&time| matches(time)).unwrap();
        prop_assert_eq!(rtc.next_event(), Some((first - at) * 32_768 + 8));
    }
}
