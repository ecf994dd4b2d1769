//! What holds for every guest, also a hostile one.

use arch::{GuestPhys, Width};
use proptest::prelude::*;

use super::machine::{Machine, Record};
use crate::{IOAPIC_BASE, Platform, PlatformConfig};

#[derive(Clone, Debug)]
enum Act {
    Port { port: u16, width: Width, write: Option<u32> },
    Memory { offset: u64, width: Width, write: Option<u64> },
    Register { register: u8, write: u32 },
    Pass { ticks: u64, tick: bool },
    Acknowledge,
    Eoi(u8),
    Serial(u8),
}

fn widths() -> impl Strategy<Value = Width> {
    prop::sample::select(vec![Width::Byte, Width::Word, Width::Dword, Width::Qword])
}

/// Ports that matter, and any other now and then.
fn ports() -> impl Strategy<Value = u16> {
    let owned: Vec<u16> = [0x20..0x22, 0xa0..0xa2, 0x40..0x44, 0x60..0x65, 0x70..0x72, 0x3f8..0x400, 0xb000..0xb00c]
        .into_iter()
        .flatten()
        .chain([0x4d0, 0x4d1, 0x92, 0xf4, 0xcf8, 0xcf9, 0xcfc])
        .collect();
    prop_oneof![20 => prop::sample::select(owned), 1 => any::<u16>()]
}

/// Bytes that are commands somewhere come more often.
fn values() -> impl Strategy<Value = u32> {
    prop_oneof![2 => any::<u32>(), 2 => 0..=0xff_u32, 1 => prop::sample::select(vec![0x11, 0x20, 0x34, 0x36, 0x0c, 0x0b])]
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let pass = prop_oneof![0..10_000_u64, 0..10_000_000_000_u64, any::<u64>()];
    let act = prop_oneof![
        12 => (ports(), widths(), prop::option::of(values())).prop_map(|(port, width, write)| Act::Port { port, width, write }),
        2 => (0..0x1000_u64, widths(), prop::option::of(any::<u64>()))
            .prop_map(|(offset, width, write)| Act::Memory { offset, width, write }),
        4 => (0..0x40_u8, values()).prop_map(|(register, write)| Act::Register { register, write }),
        4 => (pass, any::<bool>()).prop_map(|(ticks, tick)| Act::Pass { ticks, tick }),
        1 => Just(Act::Acknowledge),
        1 => any::<u8>().prop_map(Act::Eoi),
        1 => any::<u8>().prop_map(Act::Serial),
    ];
    prop::collection::vec(act, 1..150)
}

fn perform(machine: &mut Machine, act: Act) {
    match act {
        Act::Port { port, width, write: Some(value) } => machine.write(port, width, value),
        Act::Port { port, width, write: None } => {
            let value = machine.read(port, width);
            assert_eq!(u64::from(value) & !width.mask(), 0, "no bits above the width");
        }
        Act::Memory { offset, width, write } => {
            let at = GuestPhys(IOAPIC_BASE.get() + offset);
            match write {
                Some(value) => {
                    machine.platform.mmio_write(at, width, value, machine.now, &mut machine.out);
                }
                None => {
                    let value = machine.platform.mmio_read(at, width, machine.now, &mut machine.out);
                    assert_eq!(value.unwrap() & !width.mask(), 0);
                }
            }
        }
        Act::Register { register, write } => machine.ioapic_write(register, write),
        Act::Pass { ticks, tick } => {
            machine.now = machine.now.saturating_add(ticks);
            if tick {
                machine.platform.tick(machine.now, &mut machine.out);
                let deadline = machine.platform.deadline();
                assert!(deadline > machine.now || deadline == u64::MAX, "{deadline} is not after {}", machine.now);
            }
        }
        Act::Acknowledge => {
            machine.acknowledge();
        }
        Act::Eoi(vector) => machine.platform.end_of_interrupt(vector, &mut machine.out),
        Act::Serial(byte) => {
            machine.platform.serial_in(byte, &mut machine.out);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// No sequence of accesses panics; after a tick the deadline is later than now; and the outside always knows the
    /// level of the PIC's output (`Record` also insists that only changes are told).
    #[test]
    fn nothing_breaks(acts in acts()) {
        let mut machine = Machine::new();
        for act in acts {
            perform(&mut machine, act);
            prop_assert_eq!(machine.platform.pic_has_interrupt(), machine.out.pic_output);
        }
    }

    /// Deadlines lose nothing: a platform that is ticked only at its deadlines ends with the same interrupts as one
    /// that is ticked all the time.
    #[test]
    fn deadlines_are_enough(acts in prop::collection::vec((ports(), values(), 0..30_000_000_u64), 1..40)) {
        let (mut lazy, mut eager) = (Machine::new(), Machine::new());
        for machine in [&mut lazy, &mut eager] {
            machine.ioapic_write(0x14, 0x30);
            machine.ioapic_write(0x20, 0x38);
        }
        for (port, value, nanoseconds) in acts {
            for machine in [&mut lazy, &mut eager] {
                machine.outb(port, value.to_le_bytes()[0]);
            }
            for _ in 0..7 {
                lazy.run(nanoseconds / 7);
                let now = eager.now;
                eager.run(nanoseconds / 7);
                let end = eager.now;
                for part in 0..5 {
                    eager.now = now + (end - now) * part / 4;
                    eager.platform.tick(eager.now.max(now), &mut eager.out);
                }
            }
            // A falling output has no deadline: it only withdraws a request that nobody has taken yet.
            lazy.platform.tick(lazy.now, &mut lazy.out);
            prop_assert_eq!(lazy.out.messages.len(), eager.out.messages.len());
            prop_assert_eq!(lazy.out.pic_output, eager.out.pic_output);
        }
    }

    /// Any configuration makes a platform that runs.
    #[test]
    fn any_configuration(
        tsc_hz: u64, memory_below_4g: u64, memory_above_4g: u64, unix_time: u64, cpus: u32, now: u64, later: u64,
    ) {
        let config = PlatformConfig { tsc_hz, memory_below_4g, memory_above_4g, unix_time, cpus, now };
        let mut machine = Machine { platform: Platform::new(config), out: Record::default(), now: now.saturating_add(later) };
        machine.platform.tick(machine.now, &mut machine.out);
        for port in [0x61, 0x71, 0x40] {
            machine.inb(port);
        }
        machine.read(0xb008, Width::Dword);
        let deadline = machine.platform.deadline();
        prop_assert!(deadline > machine.now || deadline == u64::MAX);
    }
}
