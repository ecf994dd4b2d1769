//! The 8254 timer and port 0x61 around it: three counters, of which 0 is IRQ 0, 1 the refresh request and 2 the speaker.

use crate::counter::{Counter, EPOCH};

/// Period of the refresh counter as PC firmware programs it: 15 microseconds.
const REFRESH: u64 = 18;

/// Port 0x61 bits.
const GATE2: u8 = 1 << 0;
const SPEAKER: u8 = 1 << 1;
const REFRESH_TOGGLE: u8 = 1 << 4;
const OUT2: u8 = 1 << 5;

/// The three counters and the speaker's switch. Times are periods of [`crate::clock::PIT_HZ`].
#[derive(Debug)]
pub(crate) struct Pit {
    counters: [Counter; 3],
    speaker: bool,
}

impl Pit {
    /// As PC firmware leaves it: counter 0 in mode 2 with a full count (18.2 Hz), counter 2 without a count.
    pub(crate) fn new() -> Self {
        let mut ticks = Counter::new(0x34);
        ticks.write(0, EPOCH);
        ticks.write(0, EPOCH);
        let mut refresh = Counter::new(0x14);
        refresh.write(REFRESH.to_le_bytes()[0], EPOCH);
        Self { counters: [ticks, refresh, Counter::new(0x36)], speaker: false }
    }

    /// Brings counter 0 to `now`; whether its output rose since the last time.
    pub(crate) fn advance(&mut self, now: u64) -> bool {
        self.counters[0].advance(now)
    }

    /// IRQ 0: the output of counter 0.
    pub(crate) fn irq(&mut self, now: u64) -> bool {
        self.counters[0].out(now)
    }

    /// When counter 0 next wants [`Self::advance`].
    pub(crate) fn next_event(&self) -> Option<u64> {
        self.counters[0].next_event()
    }

    /// Reads port 0x40 + `register`. The control word cannot be read: 0, as in Bochs.
    pub(crate) fn read(&mut self, register: u16, now: u64) -> u8 {
        self.counters.get_mut(usize::from(register)).map_or(0, |counter| counter.read(now))
    }

    /// Writes port 0x40 + `register`.
    pub(crate) fn write(&mut self, register: u16, value: u8, now: u64) {
        match self.counters.get_mut(usize::from(register)) {
            Some(counter) => counter.write(value, now),
            None => self.control(value, now),
        }
    }

    fn control(&mut self, value: u8, now: u64) {
        let Some(counter) = self.counters.get_mut(usize::from(value >> 6)) else {
            return self.read_back(value, now);
        };
        if value & 0x30 == 0 {
            counter.latch_count(now);
        } else {
            counter.program(value, now);
        }
    }

    /// The read-back command: bits 5 and 4 (low) latch count and status of the counters in bits 3:1.
    fn read_back(&mut self, value: u8, now: u64) {
        for (index, counter) in self.counters.iter_mut().enumerate() {
            if value >> (index + 1) & 1 == 0 {
                continue;
            }
            if value & 1 << 5 == 0 {
                counter.latch_count(now);
            }
            if value & 1 << 4 == 0 {
                counter.latch_status(now);
            }
        }
    }

    /// Reads port 0x61. Software measures time by its refresh bit, which toggles every 15 microseconds.
    pub(crate) fn read_control(&mut self, now: u64) -> u8 {
        let bit = |set: bool, bit: u8| if set { bit } else { 0 };
        let [.., speaker] = &mut self.counters;
        bit(speaker.gate(), GATE2)
            | bit(self.speaker, SPEAKER)
            | bit((now / REFRESH) & 1 != 0, REFRESH_TOGGLE)
            | bit(speaker.out(now), OUT2)
    }

    /// Writes port 0x61: the gate of counter 2, and whether the speaker follows it.
    pub(crate) fn write_control(&mut self, value: u8, now: u64) {
        let [.., speaker] = &mut self.counters;
        speaker.set_gate(value & GATE2 != 0, now);
        self.speaker = value & SPEAKER != 0;
    }
}
