//! ACPI power management as an operating system's driver uses it.

use arch::Width;

use super::machine::Machine;

/// The timer runs at 3.579545 MHz, in 24 bits, and reads the same by bytes.
#[test]
fn timer() {
    let mut machine = Machine::quiet();
    let start = machine.read(0xb008, Width::Dword);
    machine.pass(1_000_000_000);
    let second = machine.read(0xb008, Width::Dword);
    assert!((second - start).abs_diff(3_579_545) <= 1);
    assert_eq!(u32::from(machine.inb(0xb009)), second >> 8 & 0xff);
    machine.pass(60_000_000_000);
    assert!(machine.read(0xb008, Width::Dword) < 1 << 24);
    assert_eq!(u64::from(machine.read(0xb008, Width::Dword)), 61 * 3_579_545 % (1 << 24));
    machine.write(0xb008, Width::Dword, 0);
    assert_ne!(machine.read(0xb008, Width::Dword), 0, "read-only");
}

/// The carry of bit 23 comes every 2.34 s, raises the SCI at IRQ 9 when enabled, and is cleared by writing 1.
#[test]
fn carry_raises_the_sci() {
    let mut machine = Machine::quiet();
    machine.write(0x4d0, Width::Word, 0x0200);
    machine.write(0xb002, Width::Word, 1);
    machine.outb(0x21, 0xfb);
    machine.outb(0xa1, 0xfd);
    let carry = (1_u64 << 23) * 1_000_000_000 / 3_579_545;
    assert_eq!(machine.run(carry - 1_000), []);
    assert_eq!(machine.run(2_000).len(), 1);
    assert_eq!(machine.acknowledge(), 0x71);
    assert_eq!(machine.read(0xb000, Width::Word), 1);
    machine.write(0xb000, Width::Word, 0xfffe);
    assert_eq!(machine.read(0xb000, Width::Word), 1, "other bits do not clear it");
    machine.write(0xb000, Width::Word, 1);
    assert_eq!(machine.read(0xb000, Width::Word), 0);
    machine.write(0xa0, Width::Byte, 0x20);
    machine.write(0x20, Width::Byte, 0x20);
    assert!(!machine.out.pic_output);
    assert_eq!(machine.run(carry).len(), 1, "and once more");
}

/// The machine is in ACPI mode when the operating system starts, and keeps what is written to the control register but
/// for SLP_EN.
#[test]
fn control() {
    let mut machine = Machine::quiet();
    assert_eq!(machine.read(0xb004, Width::Word), 1);
    machine.write(0xb004, Width::Word, 1 << 13 | 5 << 10 | 1);
    assert_eq!(machine.read(0xb004, Width::Word), 5 << 10 | 1);
}
