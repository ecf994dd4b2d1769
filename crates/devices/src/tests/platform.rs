//! Which port is whose, and what a guest can ask of the machine as a whole.

use arch::{GuestPhys, Width};

use super::machine::Machine;
use crate::PowerRequest::{Exit, Off, Reset};

/// Every way to ask for power-off, reset or exit, and what each asks for.
#[test]
fn power_requests() {
    /// Port, width and value.
    type Write = (u16, Width, u32);
    let cases: &[(&[Write], _)] = &[
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

/// The keyboard controller that is hardly there never lets a guest wait for ever: it is always ready to be written, and
/// holds an answer only after a command that classic A20 code waits on.
#[test]
fn keyboard_controller_never_blocks() {
    let mut machine = Machine::new();
    assert_eq!(machine.inb(0x64) & 0b11, 0, "input and output buffers empty");
    for command in 0..=0xef {
        machine.outb(0x64, command);
        assert_eq!(machine.inb(0x64) & 0b10, 0, "{command:#x}");
        while machine.inb(0x64) & 1 != 0 {
            machine.inb(0x60);
        }
        machine.outb(0x60, 0xff);
    }
    machine.outb(0x64, 0xd0);
    assert_eq!(machine.inb(0x64) & 1, 1);
    assert_eq!(machine.inb(0x60) & 0b11, 0b11, "A20 open, reset not asserted");
    assert_eq!(machine.out.power, []);
}

/// What Linux does to find PCI (`pci_check_type1`, then a scan): a host bridge of Intel's, and nothing else.
#[test]
fn pci_holds_a_host_bridge() {
    let mut machine = Machine::new();
    machine.outb(0xcfb, 0x01);
    machine.write(0xcf8, Width::Dword, 0x8000_0000);
    assert_eq!(machine.read(0xcf8, Width::Dword), 0x8000_0000);
    assert_eq!(machine.read(0xcfc, Width::Dword), 0x1237_8086);
    assert_eq!(machine.read(0xcfe, Width::Word), 0x1237);
    machine.write(0xcfc, Width::Dword, 0);
    assert_eq!(machine.inb(0xcfc), 0x86);
    machine.write(0xcf8, Width::Dword, 0x8000_0008);
    assert_eq!(machine.read(0xcfe, Width::Word), 0x0600, "class: host bridge");
    for function in (1..0x200).map(|function| 0x8000_0000 | function << 8) {
        machine.write(0xcf8, Width::Dword, function);
        assert_eq!(machine.read(0xcfc, Width::Dword), u32::MAX, "{function:#x}");
    }
    machine.write(0xcf8, Width::Dword, 0);
    assert_eq!(machine.read(0xcfc, Width::Dword), u32::MAX, "no configuration cycle without the enable bit");
    assert_eq!(machine.out.unknown, []);
}

/// What an operating system finds when it starts, as read on the comparison machine (Bochs 3.0 with its BIOS, by a boot
/// sector that does nothing but read). Left out is what depends on hardware that is not here.
#[test]
fn as_the_bochs_bios_leaves_it() {
    let mut machine = Machine::new();
    for (port, expected) in [
        (0x20, 0x00),
        (0x21, 0xb8),
        (0xa0, 0x00),
        (0xa1, 0x8f),
        (0x4d0, 0x00),
        (0x4d1, 0x0a),
        (0x92, 0x02),
        (0xcf9, 0x00),
        (0x70, 0xff),
        (0x43, 0x00),
        (0xed, 0xff),
        (0xf4, 0xff),
        (0x3f9, 0x00),
        (0x3fa, 0x01),
        (0x3fc, 0x00),
        (0x3fd, 0x60),
        (0x3fe, 0x30),
    ] {
        assert_eq!(machine.inb(port), expected, "port {port:#x}");
    }
    assert_eq!(machine.inb(0x61) & !0x10, 0x21, "counter 2 gated on, its output high");
    machine.pass(10_000);
    machine.outb(0x43, 0xe2);
    assert_eq!(machine.inb(0x40), 0xb4, "counter 0: loaded, mode 2");
    for (index, expected) in [(0x0a, 0x26), (0x0b, 0x02), (0x0d, 0x80), (0x0f, 0x00), (0x15, 0x80), (0x16, 0x02)] {
        machine.outb(0x70, index);
        assert_eq!(machine.inb(0x71), expected, "CMOS {index:#x}");
    }
}

/// Old code writes DMA page registers, waits by port 0x80 or 0xed, and expects nothing of it.
#[test]
fn quiet_ports() {
    let mut machine = Machine::new();
    for port in (0x00..=0x0f).chain(0x80..=0x8f).chain(0xc0..=0xdf).chain([0xed]) {
        machine.outb(port, 0x5a);
        machine.inb(port);
    }
    assert_eq!(machine.inb(0x80), 0x5a, "the POST code reads back, as in Bochs");
    assert_eq!(machine.out.unknown, []);
}

/// Firmware's memory sizes: 512 MiB below and 1 GiB above 4 GiB.
#[test]
fn cmos_memory_sizes() {
    let mut machine = Machine::new();
    let mut cmos = |index: u8| {
        machine.outb(0x70, index | 0x80);
        u32::from(machine.inb(0x71))
    };
    assert_eq!(cmos(0x15) | cmos(0x16) << 8, 640);
    assert_eq!(cmos(0x17) | cmos(0x18) << 8, 0xfc00, "KiB above 1 MiB, as far as they count");
    assert_eq!(cmos(0x30) | cmos(0x31) << 8, 0xfc00);
    assert_eq!(cmos(0x34) | cmos(0x35) << 8, (512 - 16) * 16, "64-KiB blocks above 16 MiB");
    assert_eq!(cmos(0x5b) | cmos(0x5c) << 8 | cmos(0x5d) << 16, 1024 * 16, "64-KiB blocks above 4 GiB");
    let sum: u32 = (0x10..=0x2d).map(&mut cmos).sum();
    assert_eq!(cmos(0x2e) << 8 | cmos(0x2f), sum);
}
