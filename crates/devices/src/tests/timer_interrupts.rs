//! The timer's way to the processors: PIT, PIC, IOAPIC and deadlines together.

use arch::Width;
use arch::apic::DeliveryMode;

use super::machine::{Machine, TSC_HZ};

const SECOND: u64 = 1_000_000_000;

impl Machine {
    /// Counter 0 in `mode` with `count`.
    fn set_timer(&mut self, mode: u8, count: u16) {
        self.outb(0x43, 0x30 | mode << 1);
        for byte in count.to_le_bytes() {
            self.outb(0x40, byte);
        }
    }
}

/// What Linux tries first (`check_timer`): the tick, 250 a second, at IOAPIC pin 2, by edge. Every message comes at its
/// time: none early, none a clock late, and no ticks between.
#[test]
fn tick_through_the_ioapic() {
    let mut machine = Machine::quiet();
    machine.ioapic_write(0x14, 0x30);
    machine.set_timer(2, 4_773);
    let start = machine.now;
    let ticks = machine.run(SECOND);
    assert_eq!(ticks.len(), 249, "1,193,182 / 4,773 is 249.99");
    assert_eq!(machine.out.messages.len(), ticks.len());
    assert!(machine.out.messages.iter().all(|message| message.vector == 0x30 && message.mode == DeliveryMode::Fixed));
    for (index, &tick) in ticks.iter().enumerate() {
        // Loaded one clock after the write, which itself fell somewhere in a clock.
        let clocks = u128::from(tick - start) * 1_193_182 / u128::from(TSC_HZ);
        let expected = u128::try_from(index + 1).unwrap() * 4_773;
        assert!((expected..=expected + 2).contains(&clocks), "tick {index} after {clocks} clocks");
    }
}

/// The same through the PIC, as an uninterrupted kernel sees it: one rise of the output and one vector a period.
#[test]
fn tick_through_the_pic() {
    for mode in [2, 3] {
        let mut machine = Machine::quiet();
        machine.outb(0x21, 0xfe);
        machine.set_timer(mode, 11_900);
        for tick in 1..=100 {
            assert_eq!(machine.run(SECOND / 100).len(), 1, "mode {mode}, tick {tick}");
            assert!(machine.platform.pic_has_interrupt());
            assert_eq!(machine.acknowledge(), 0x08);
            machine.outb(0x20, 0x20);
            assert!(!machine.platform.pic_has_interrupt());
        }
        assert_eq!(machine.out.pic_rises, 100);
    }
}

/// A one-shot (mode 0, and mode 4 as KVM guests use it) interrupts once.
#[test]
fn one_shot() {
    for mode in [0, 4] {
        let mut machine = Machine::quiet();
        machine.ioapic_write(0x14, 0x30);
        machine.set_timer(mode, 1_193);
        assert_eq!(machine.run(990_000), []);
        assert_eq!(machine.run(SECOND).len(), 1, "mode {mode}");
        assert_eq!(machine.out.messages.len(), 1);
    }
}

/// A masked timer costs nothing: no deadline. Its edges are still there for a guest that polls the request register.
#[test]
fn masked_timer_has_no_deadline() {
    let mut machine = Machine::quiet();
    assert_eq!(machine.platform.deadline(), u64::MAX);
    machine.set_timer(2, 11_932);
    assert_eq!(machine.run(SECOND), []);
    assert_eq!(machine.inb(0x20) & 1, 1);
    machine.outb(0x21, 0xfe);
    assert!(machine.out.pic_output, "unmasked with the request waiting");
    assert_ne!(machine.platform.deadline(), u64::MAX);
}

/// A tick that comes late, after many periods, is one edge.
#[test]
fn late_tick() {
    let mut machine = Machine::quiet();
    machine.ioapic_write(0x14, 0x30);
    machine.set_timer(2, 1_193);
    machine.pass(SECOND);
    machine.platform.tick(machine.now, &mut machine.out);
    assert_eq!(machine.out.messages.len(), 1);
    assert!(machine.platform.deadline() > machine.now);
    machine.run(10_000_000);
    assert!((10..=11).contains(&machine.out.messages.len()));
}

/// Linux calibrates the TSC by counter 2: gate on, mode 0, and a wait for its output in port 0x61.
#[test]
fn calibration_by_counter_2() {
    let mut machine = Machine::quiet();
    let gate = machine.inb(0x61) & !0x02 | 0x01;
    machine.outb(0x61, gate);
    machine.outb(0x43, 0xb0);
    machine.outb(0x42, 0xff);
    machine.outb(0x42, 0xff);
    let start = machine.now;
    while machine.inb(0x61) & 0x20 == 0 {
        machine.pass(1_000);
    }
    let waited = u128::from(machine.now - start);
    let expected = 65_536 * u128::from(TSC_HZ) / 1_193_182;
    assert!(waited.abs_diff(expected) < u128::from(TSC_HZ) / 500_000, "{waited} against {expected}");
    // With the gate off nothing moves, and the refresh bit goes on toggling every 15 microseconds.
    machine.outb(0x61, 0x00);
    let (mut toggles, mut last) = (0, machine.inb(0x61) & 0x10);
    for _ in 0..1_000 {
        machine.pass(1_000);
        let bit = machine.inb(0x61) & 0x10;
        toggles += u32::from(bit != last);
        last = bit;
    }
    assert!((65..=67).contains(&toggles), "{toggles} in a millisecond");
}

/// The firmware's tick, 18.2 Hz at vector 8, is on when an operating system starts.
#[test]
fn firmware_tick() {
    let mut machine = Machine::new();
    assert_eq!(machine.run(54_000_000), []);
    assert_eq!(machine.run(2_000_000).len(), 1);
    assert_eq!(machine.acknowledge(), 0x08);
}

/// Read-back of all counters at one moment: the calibration loops of several kernels.
#[test]
fn read_back() {
    let mut machine = Machine::quiet();
    machine.set_timer(2, 10_000);
    machine.pass(1_000_000);
    machine.outb(0x43, 0xc2);
    assert_eq!(machine.inb(0x40), 0xb4, "output high, loaded, two bytes, mode 2");
    let latched = u16::from_le_bytes([machine.inb(0x40), machine.inb(0x40)]);
    assert!(latched.abs_diff(10_000 - 1_193) <= 2);
    assert_eq!(machine.read(0x43, Width::Byte), 0);
}
