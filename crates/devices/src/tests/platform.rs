//! Which port is whose, and what a guest can ask of the machine as a whole.

use arch::{GuestPhys, Width};

use super::machine::Machine;
use crate::PowerRequest::{Exit, Off, Reset};

/// Every way to ask for power-off, reset or exit, and what each asks for.
#[test]
fn power_requests() {
    let cases: &[(&[(u16, Width, u32)], _)] = &[
        // SLP_TYP 0 and SLP_EN is "off"; by bytes, the high one decides.
        (&[(0xb004, Width::Word, 1 << 13)], Some(Off)),
        (&[(0xb005, Width::Byte, 1 << 5)], Some(Off)),
        (&[(0xb004, Width::Word, 1 << 13 | 5 << 10)], None),
        (&[(0xb004, Width::Word, 1)], None),
        (&[(0xcf9, Width::Byte, 0x06)], Some(Reset)),
        (&[(0xcf9, Width::Byte, 0x04)], Some(Reset)),
        (&[(0xcf9, Width::Byte, 0x02)], None),
        // Linux writes CONFIG_ADDRESS, 32 bits wide, over the reset port.
        (&[(0xcf8, Width::Dword, 0x8000_0400)], None),
        (&[(0x92, Width::Byte, 0x03)], Some(Reset)),
        (&[(0x92, Width::Byte, 0x02)], None),
        (&[(0x64, Width::Byte, 0xfe)], Some(Reset)),
        (&[(0x64, Width::Byte, 0xff)], None),
        (&[(0x64, Width::Byte, 0xae)], None),
        (&[(0x64, Width::Byte, 0xd1), (0x60, Width::Byte, 0x02)], Some(Reset)),
        (&[(0x64, Width::Byte, 0xd1), (0x60, Width::Byte, 0xdf)], None),
        (&[(0x60, Width::Byte, 0x02)], None),
        (&[(0xf4, Width::Dword, 0)], Some(Exit(0))),
        (&[(0xf4, Width::Dword, 0xdead_beef)], Some(Exit(0xdead_beef))),
        (&[(0xf4, Width::Word, 0x1234)], Some(Exit(0x1234))),
        (&[(0xf4, Width::Byte, 0x7f)], Some(Exit(0x7f))),
    ];
    for (writes, expected) in cases {
        let mut machine = Machine::new();
        for &(port, width, value) in *writes {
            machine.write(port, width, value);
        }
        assert_eq!(machine.out.power, expected.iter().copied().collect::<Vec<_>>(), "{writes:x?}");
        assert_eq!(machine.out.unknown, []);
    }
}

/// Ports without a device read all ones and are reported once an access, whatever its width; nobody's memory is `None`.
#[test]
fn nobody_answers() {
    let mut machine = Machine::new();
    for (port, width, expected) in [
        (0x2f8, Width::Byte, 0xff),
        (0x3c0, Width::Word, 0xffff),
        (0x1f0, Width::Dword, u32::MAX),
        (0xffff, Width::Word, 0xffff),
    ] {
        assert_eq!(machine.read(port, width), expected, "{port:#x}");
        machine.write(port, width, 0x5a5a_5a5a);
        assert_eq!(machine.out.unknown, [(port, width, false), (port, width, true)]);
        machine.out.unknown.clear();
    }
    for at in [0xfec0_1000, 0xfebf_fffc, 0xfee0_0000] {
        let at = GuestPhys(at);
        assert_eq!(machine.platform.mmio_read(at, Width::Dword, machine.now, &mut machine.out), None);
        assert!(!machine.platform.mmio_write(at, Width::Dword, 0, machine.now, &mut machine.out));
    }
}

/// A wide access to byte-wide registers reaches each in turn, the lowest port first, as on the ISA bus.
#[test]
fn wide_accesses_are_split() {
    let mut machine = Machine::quiet();
    machine.outb(0x3fb, 0x83);
    machine.write(0x3f8, Width::Word, 0x0102);
    assert_eq!((machine.inb(0x3f8), machine.inb(0x3f9)), (0x02, 0x01));
    // Divisor, then IIR and LCR.
    assert_eq!(machine.read(0x3f8, Width::Dword), 0x8301_0102);
    // PIC command and mask: one OCW3 and one OCW1.
    machine.write(0x20, Width::Word, 0xa50b);
    assert_eq!(machine.inb(0x21), 0xa5);
    // The last register of the UART and a port that is nobody's.
    machine.outb(0x3ff, 0x77);
    assert_eq!(machine.read(0x3ff, Width::Word), 0xff77);
    assert_eq!(machine.out.unknown, []);
}
