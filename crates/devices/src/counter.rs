//! One counter of the 8254 (Intel 82C54 data sheet, "Programming the 82C54" and "Mode Definitions").
//!
//! Nothing ticks: a counter knows when its count was loaded, and computes its value, its output and its next rising
//! edge for any time asked for. Times are periods of the counter's clock. A count that is written at time `t` is loaded
//! by the next clock, at `t + 1`.

/// A full count: what a written 0 means, in binary and in BCD.
const FULL_BINARY: u32 = 0x1_0000;

/// The clock of a counter starts here, two full ranges from 0: a counter that goes on after its gate was low is described
/// by when it would have been loaded, which may lie a full range and more before the machine's first clock.
pub(crate) const EPOCH: u64 = 2 * FULL_BINARY as u64;
const FULL_BCD: u32 = 10_000;

/// Which bytes of the count are written and read (control word bits 5:4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bytes {
    Low,
    High,
    Both,
}

/// What the counting element does.
#[derive(Clone, Copy, Debug)]
enum Phase {
    /// It has no count, or waits for its trigger.
    Stopped { value: u16, out: bool },
    /// It counts down from `count`, loaded at `start`; until then the output is `before`.
    /// `high_first`: mode 3 begins with its high half.
    Counting { start: u64, count: u32, before: bool, high_first: bool },
    /// GATE is low: it stands `elapsed` clocks after it was loaded. A strobe of mode 4 that had begun ends at `high_from`.
    Held { elapsed: u64, count: u32, high_from: u64 },
}

/// What a counter shows in a given time.
#[derive(Debug)]
pub(crate) struct Counter {
    /// Control word bits 5:0 as written, for the status byte.
    control: u8,
    bytes: Bytes,
    gate: bool,
    phase: Phase,
    /// The count written last; `None` after a control word.
    reload: Option<u32>,
    /// Modes 2 and 3: a count that is loaded at the given time, when the period (half period) in progress ends.
    next: Option<(u32, u64)>,
    /// Modes 1 and 5: the count written last has not been loaded by a trigger.
    untriggered: bool,
    low_written: Option<u8>,
    read_high_next: bool,
    latched_count: Option<u16>,
    latched_status: Option<u8>,
    /// Rising edges up to this time have been reported.
    seen: u64,
}

impl Counter {
    /// As after a control word, with GATE high.
    pub(crate) fn new(control: u8) -> Self {
        let mut counter = Self {
            control: 0,
            bytes: Bytes::Both,
            gate: true,
            phase: Phase::Stopped { value: 0, out: true },
            reload: None,
            next: None,
            untriggered: false,
            low_written: None,
            read_high_next: false,
            latched_count: None,
            latched_status: None,
            seen: EPOCH,
        };
        counter.program(control, EPOCH);
        counter
    }

    /// Mode 0 to 5; the encodings 6 and 7 are modes 2 and 3.
    fn mode(&self) -> u8 {
        match self.control >> 1 & 7 {
            6 => 2,
            7 => 3,
            mode => mode,
        }
    }

    fn full(&self) -> u32 {
        if self.control & 1 != 0 { FULL_BCD } else { FULL_BINARY }
    }

    /// A control word for this counter, bits 5:0, with bits 5:4 not 0: the counter stops and waits for a count.
    pub(crate) fn program(&mut self, control: u8, now: u64) {
        self.advance(now);
        let value = self.value(now);
        self.control = control & 0x3f;
        self.bytes = match control >> 4 & 3 {
            1 => Bytes::Low,
            2 => Bytes::High,
            _ => Bytes::Both,
        };
        self.phase = Phase::Stopped { value, out: self.mode() != 0 };
        self.reload = None;
        self.next = None;
        self.untriggered = false;
        self.low_written = None;
        self.read_high_next = false;
        self.latched_count = None;
        self.latched_status = None;
    }

    /// A byte of the count is written.
    pub(crate) fn write(&mut self, value: u8, now: u64) {
        self.advance(now);
        let written = match (self.bytes, self.low_written) {
            (Bytes::Low, _) => u16::from(value),
            (Bytes::High, _) => u16::from_be_bytes([value, 0]),
            (Bytes::Both, Some(low)) => {
                self.low_written = None;
                u16::from_le_bytes([low, value])
            }
            (Bytes::Both, None) => {
                self.low_written = Some(value);
                if self.mode() == 0 {
                    // The first byte stops the count and lowers the output.
                    self.phase = Phase::Stopped { value: self.value(now), out: false };
                }
                return;
            }
        };
        self.load(written, now);
    }

    fn load(&mut self, written: u16, now: u64) {
        let number = if self.control & 1 != 0 { from_bcd(written) } else { u32::from(written) };
        let count = if number == 0 { self.full() } else { number };
        self.reload = Some(count);
        match (self.mode(), self.phase) {
            (1 | 5, _) => self.untriggered = true,
            (2 | 3, Phase::Counting { .. }) => self.next = Some((count, self.boundary(now))),
            _ if self.gate => self.start(now),
            _ => self.phase = Phase::Held { elapsed: 0, count, high_from: now },
        }
    }

    /// The count in `reload` is loaded with the next clock.
    fn start(&mut self, now: u64) {
        if let Some(count) = self.reload {
            // Mode 0 alone lowers its output with the write already.
            let before = self.mode() != 0 && self.level(now);
            self.phase = Phase::Counting { start: now + 1, count, before, high_first: true };
            self.next = None;
            self.untriggered = false;
        }
    }

    /// When the period (mode 3: half period) in progress at `now` ends.
    fn boundary(&self, now: u64) -> u64 {
        let Phase::Counting { start, count, high_first, .. } = self.phase else { return now + 1 };
        let period = u64::from(count);
        let into = now.saturating_sub(start) % period;
        let begun = now.max(start) - into;
        if self.mode() != 3 {
            return begun + period;
        }
        let first = if high_first { period.div_ceil(2) } else { period / 2 };
        if into < first { begun + first } else { begun + period }
    }

    /// GATE changes (counter 2, by port 0x61; the others' are tied high).
    pub(crate) fn set_gate(&mut self, gate: bool, now: u64) {
        self.advance(now);
        if gate == self.gate {
            return;
        }
        self.gate = gate;
        match (self.mode(), self.phase) {
            (1 | 5, _) if gate => self.start(now),
            (1 | 5, _) => {}
            (_, Phase::Counting { start, count, .. }) if !gate => {
                let count = self.next.take().map_or(count, |(count, _)| count);
                let elapsed = now.saturating_sub(start);
                self.phase = if self.mode() == 4 && !self.level(now) {
                    // One round later the count is the same and the strobe is over.
                    Phase::Held { elapsed: elapsed + u64::from(self.full()), count, high_from: now + 1 }
                } else {
                    Phase::Held { elapsed, count, high_from: now }
                };
            }
            (2 | 3, Phase::Held { .. }) if gate => self.start(now),
            (_, Phase::Held { elapsed, count, .. }) if gate => {
                let start = now.saturating_sub(elapsed);
                self.phase = Phase::Counting { start, count, before: true, high_first: true };
            }
            _ => {}
        }
    }

    /// The GATE input.
    pub(crate) fn gate(&self) -> bool {
        self.gate
    }

    /// Brings the counter to `now`. Whether the output rose since the last call.
    pub(crate) fn advance(&mut self, now: u64) -> bool {
        let mut rose = false;
        if let Some((count, at)) = self.next.filter(|&(_, at)| at <= now) {
            rose = self.next_rise().is_some_and(|rise| rise <= at);
            let high_first = self.mode() != 3 || !self.level(at - 1);
            self.seen = at;
            self.next = None;
            self.phase = Phase::Counting { start: at, count, before: true, high_first };
        }
        rose |= self.next_rise().is_some_and(|rise| rise <= now);
        self.seen = self.seen.max(now);
        rose
    }

    /// The output at `now`.
    pub(crate) fn out(&mut self, now: u64) -> bool {
        self.advance(now);
        self.level(now)
    }

    fn level(&self, now: u64) -> bool {
        match self.phase {
            Phase::Stopped { out, .. } => out,
            Phase::Held { elapsed, count, .. } if self.mode() == 0 => elapsed >= u64::from(count),
            Phase::Held { high_from, .. } => now >= high_from,
            Phase::Counting { start, before, .. } if now < start => before,
            Phase::Counting { start, count, high_first, .. } => {
                let (elapsed, count) = (now - start, u64::from(count));
                match self.mode() {
                    0 | 1 => elapsed >= count,
                    // A count of 1 is not allowed in modes 2 and 3: the output stays high.
                    2 => count == 1 || elapsed % count != count - 1,
                    3 if count == 1 => true,
                    3 if high_first => elapsed % count < count.div_ceil(2),
                    3 => elapsed % count >= count / 2,
                    _ => elapsed != count,
                }
            }
        }
    }

    /// The first rising edge after the time seen, if the counter is left alone. With a count waiting to be loaded,
    /// the edge may be of the period after that; it is then reported no later than the load.
    pub(crate) fn next_rise(&self) -> Option<u64> {
        let (start, count, before, high_first) = match self.phase {
            Phase::Stopped { .. } => return None,
            Phase::Held { high_from, .. } => return (self.seen < high_from).then_some(high_from),
            Phase::Counting { start, count, before, high_first } => (start, count, before, high_first),
        };
        // A strobe that a new count cuts short ends with the load.
        if self.seen < start && !before && self.level(start) {
            return Some(start);
        }
        let count = u64::from(count);
        let (first, period) = match self.mode() {
            0 | 1 => (start + count, None),
            2 | 3 if count == 1 => return None,
            3 if !high_first => (start + count / 2, Some(count)),
            2 | 3 => (start + count, Some(count)),
            _ => (start + count + 1, None),
        };
        if self.seen < first {
            return Some(first);
        }
        period.map(|period| first + ((self.seen - first) / period + 1) * period)
    }

    /// When the counter next wants [`Self::advance`] for its output to be seen in time.
    pub(crate) fn next_event(&self) -> Option<u64> {
        match (self.next_rise(), self.next) {
            (Some(rise), Some((_, at))) => Some(rise.min(at)),
            (rise, next) => rise.or(next.map(|(_, at)| at)),
        }
    }

    /// The counting element at `now`, as it would be read.
    fn value(&self, now: u64) -> u16 {
        let number = match self.phase {
            Phase::Stopped { value, .. } => return value,
            Phase::Held { elapsed, count, .. } => self.count_at(elapsed, count, true),
            Phase::Counting { start, count, high_first, .. } => {
                self.count_at(now.saturating_sub(start), count, high_first)
            }
        };
        let [low, high, ..] = if self.control & 1 != 0 { to_bcd(number) } else { number }.to_le_bytes();
        u16::from_le_bytes([low, high])
    }

    /// The count `elapsed` clocks after `count` was loaded.
    fn count_at(&self, elapsed: u64, count: u32, high_first: bool) -> u32 {
        let into = remainder(elapsed, count);
        match self.mode() {
            2 => count - into,
            3 => {
                // Two by two within each half, from the even number at or below the count.
                let first = if high_first { count.div_ceil(2) } else { count / 2 };
                let into = if into < first { into } else { into - first };
                (count & !1) - 2 * into
            }
            // The one-shot modes count on past zero, through the full range.
            _ => (count + self.full() - remainder(elapsed, self.full())) % self.full(),
        }
    }

    /// Latches the count, unless one is latched that nobody has read.
    pub(crate) fn latch_count(&mut self, now: u64) {
        self.advance(now);
        if self.latched_count.is_none() {
            self.latched_count = Some(self.value(now));
        }
    }

    /// Latches the status, unless one is latched that nobody has read.
    pub(crate) fn latch_status(&mut self, now: u64) {
        let out = self.out(now);
        let loaded = match self.phase {
            Phase::Counting { start, .. } => now >= start && self.next.is_none() && !self.untriggered,
            Phase::Held { .. } => !self.untriggered,
            Phase::Stopped { .. } => false,
        };
        let status = u8::from(out) << 7 | u8::from(!loaded) << 6 | self.control;
        self.latched_status.get_or_insert(status);
    }

    /// Reads a byte: a latched status first, then of a latched count, else of the count as it is.
    pub(crate) fn read(&mut self, now: u64) -> u8 {
        self.advance(now);
        if let Some(status) = self.latched_status.take() {
            return status;
        }
        let high = match self.bytes {
            Bytes::Low => false,
            Bytes::High => true,
            Bytes::Both => {
                self.read_high_next = !self.read_high_next;
                !self.read_high_next
            }
        };
        let [low_byte, high_byte] = self.latched_count.unwrap_or_else(|| self.value(now)).to_le_bytes();
        if high || self.bytes == Bytes::Low {
            self.latched_count = None;
        }
        if high { high_byte } else { low_byte }
    }
}

fn remainder(elapsed: u64, of: u32) -> u32 {
    let [a, b, c, d, ..] = (elapsed % u64::from(of.max(1))).to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

/// Four BCD digits as a number; a digit above 9 counts as what it is.
fn from_bcd(digits: u16) -> u32 {
    let digit = |shift: u32| u32::from(digits >> shift & 0xf);
    (digit(0) + 10 * digit(4) + 100 * digit(8) + 1000 * digit(12)) % FULL_BCD
}

/// A number below 10,000 (larger ones wrap) as four BCD digits.
fn to_bcd(number: u32) -> u32 {
    let digit = |unit: u32| number / unit % 10;
    digit(1) | digit(10) << 4 | digit(100) << 8 | digit(1000) << 12
}
