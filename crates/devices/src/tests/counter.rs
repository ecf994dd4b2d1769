//! The counters of the 8254 against a model that does what the data sheet says, clock by clock.

use proptest::prelude::*;

use crate::counter::{Counter, EPOCH};

/// A counter that ticks: each method is a sentence of "Mode Definitions". Counts from 2 up, binary.
struct Clocked {
    mode: u8,
    written: Option<u32>,
    element: u32,
    odd: bool,
    out: bool,
    gate: bool,
    trigger: bool,
    load: bool,
    running: bool,
    armed: bool,
}

impl Clocked {
    fn new(mode: u8) -> Self {
        Self {
            mode,
            written: None,
            element: 0,
            odd: false,
            out: mode != 0,
            gate: true,
            trigger: false,
            load: false,
            running: false,
            armed: false,
        }
    }

    fn write(&mut self, count: u32) {
        self.written = Some(count);
        match self.mode {
            0 => {
                self.out = false;
                self.load = true;
            }
            4 => self.load = true,
            // "A new count does not affect the current counting sequence."
            2 | 3 => self.load = !self.running,
            _ => {}
        }
    }

    fn set_gate(&mut self, gate: bool) {
        if gate && !self.gate {
            self.trigger = true;
        }
        if !gate && matches!(self.mode, 2 | 3) {
            self.out = true;
        }
        self.gate = gate;
    }

    fn reload(&mut self) {
        let count = self.written.unwrap();
        self.odd = count % 2 == 1;
        self.element = if self.mode == 3 { count & !1 } else { count };
        self.running = true;
        self.armed = true;
    }

    /// One CLK pulse. Whether the output rose.
    fn clock(&mut self) -> bool {
        let before = self.out;
        let trigger = std::mem::take(&mut self.trigger) && self.written.is_some();
        let load = std::mem::take(&mut self.load);
        match self.mode {
            0 if load => self.reload(),
            0 if self.running && self.gate => {
                self.element = self.element.wrapping_sub(1) & 0xffff;
                if self.element == 0 {
                    self.out = true;
                }
            }
            1 if trigger => {
                self.reload();
                self.out = false;
            }
            1 if self.running => {
                self.element = self.element.wrapping_sub(1) & 0xffff;
                if self.element == 0 {
                    self.out = true;
                }
            }
            2 if self.gate && (load || trigger) => {
                self.reload();
                self.out = true;
            }
            2 if self.gate && self.running => {
                if self.out {
                    self.element -= 1;
                    self.out = self.element != 1;
                } else {
                    self.reload();
                    self.out = true;
                }
            }
            3 if self.gate && (load || trigger) => {
                self.reload();
                self.out = true;
            }
            3 if self.gate && self.running => {
                let last = if self.odd && self.out { 0 } else { 2 };
                if self.element == last {
                    self.out = !self.out;
                    self.reload();
                } else {
                    self.element -= 2;
                }
            }
            4 | 5 => {
                self.out = true;
                if load || trigger && self.mode == 5 {
                    self.reload();
                } else if self.running && (self.gate || self.mode == 5) {
                    self.element = self.element.wrapping_sub(1) & 0xffff;
                    if self.element == 0 && std::mem::take(&mut self.armed) {
                        self.out = false;
                    }
                }
            }
            _ => {}
        }
        self.out && !before
    }
}

/// What is done to a counter, each at least one clock after the one before.
#[derive(Clone, Debug)]
enum Step {
    Write(u32),
    Gate(bool),
    Wait,
}

fn steps() -> impl Strategy<Value = Vec<(Step, u64)>> {
    let step = prop_oneof![
        3 => prop_oneof![2..12_u32, 2..300_u32, Just(0x1_0000)].prop_map(Step::Write),
        2 => any::<bool>().prop_map(Step::Gate),
        2 => Just(Step::Wait),
    ];
    let clocks = prop_oneof![4 => 1..20_u64, 2 => 1..700_u64, 1 => 60_000..70_000_u64];
    prop::collection::vec((step, clocks), 1..25)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Output, count and rising edges equal those of the clocked model, however counts, gates and time are mixed. The
    /// count is compared while it is defined: not before a first load, and not while GATE stops modes 2 and 3.
    #[test]
    fn like_the_data_sheet(mode in 0..6_u8, steps in steps()) {
        let mut counter = Counter::new(0x30 | mode << 1);
        let mut clocked = Clocked::new(mode);
        let mut now = EPOCH + 100;
        counter.advance(now);
        for (step, clocks) in steps {
            match step {
                Step::Write(count) => {
                    clocked.write(count);
                    let [low, high, ..] = count.to_le_bytes();
                    counter.write(low, now);
                    counter.write(high, now);
                }
                Step::Gate(gate) => {
                    clocked.set_gate(gate);
                    counter.set_gate(gate, now);
                }
                Step::Wait => {}
            }
            let event = counter.next_event();
            let mut rises = 0;
            for clock in 1..=clocks {
                if clocked.clock() {
                    rises += 1;
                    prop_assert!(event.is_some_and(|event| event <= now + clock), "an edge nobody announced");
                }
            }
            now += clocks;
            prop_assert_eq!(counter.advance(now), rises > 0);
            prop_assert_eq!(counter.out(now), clocked.out, "output at {}", now);
            if clocked.running && (clocked.gate || !matches!(mode, 2 | 3)) {
                let value = u16::from_le_bytes([counter.read(now), counter.read(now)]);
                prop_assert_eq!(u32::from(value), clocked.element & 0xffff, "count at {}", now);
            }
        }
    }
}

/// The bytes of a count in each access mode, latched and read back (data sheet, "Read Operations").
#[test]
fn latches() {
    let mut counter = Counter::new(0x34);
    counter.write(0x34, 0);
    counter.write(0x12, 0);
    counter.latch_count(1);
    counter.latch_count(50);
    assert_eq!([counter.read(60), counter.read(70)], [0x34, 0x12], "the first latch counts");
    // 0x100 clocks later, unlatched.
    assert_eq!([counter.read(0x101), counter.read(0x101)], [0x34, 0x11]);
    counter.latch_status(0x102);
    counter.latch_count(0x102);
    assert_eq!(counter.read(0x200), 0x80 | 0x34, "status first: output high, count loaded, mode 2 by two bytes");
    assert_eq!([counter.read(0x200), counter.read(0x200)], [0x33, 0x11]);

    let mut low_only = Counter::new(0x10);
    low_only.write(0x80, 0);
    low_only.latch_status(0);
    assert_eq!(low_only.read(0), 0x40 | 0x10, "output low, not yet loaded");
    assert_eq!([low_only.read(1), low_only.read(2)], [0x80, 0x7f]);
    let mut high_only = Counter::new(0x20);
    high_only.write(0x80, 0);
    assert_eq!([high_only.read(1), high_only.read(2)], [0x80, 0x7f]);
}

/// BCD counts: 0 is 10,000, and digits borrow.
#[test]
fn binary_coded_decimal() {
    let mut counter = Counter::new(0x31);
    counter.write(0x00, 0);
    counter.write(0x10, 0);
    let mut read = |now| u16::from_le_bytes([counter.read(now), counter.read(now)]);
    assert_eq!([read(1), read(2), read(1_001), read(1_002)], [0x1000, 0x0999, 0x0000, 0x9999]);
    let mut full = Counter::new(0x31);
    full.write(0, 0);
    full.write(0, 0);
    assert!(!full.out(10_000));
    assert!(full.out(10_001), "10,000 clocks after the load");
}

/// The one illegal count, 1 in modes 2 and 3, neither divides by zero nor asks for a tick each clock.
#[test]
fn count_of_one() {
    for control in [0x14, 0x16] {
        let mut counter = Counter::new(control);
        counter.write(1, 0);
        assert!(counter.out(5));
        assert_eq!(counter.next_event(), None);
        counter.write(1, 7);
        assert!(!counter.advance(9));
    }
}
