//! COM1 against the PC16550D data sheet, and as Linux's driver probes it.

use super::machine::Machine;

const COM1: u16 = 0x3f8;
const DATA: u16 = COM1;
const IER: u16 = COM1 + 1;
const IIR: u16 = COM1 + 2;
const FCR: u16 = COM1 + 2;
const LCR: u16 = COM1 + 3;
const MCR: u16 = COM1 + 4;
const LSR: u16 = COM1 + 5;
const MSR: u16 = COM1 + 6;
const SCR: u16 = COM1 + 7;

impl Machine {
    /// With IRQ 4 let through the PIC and OUT2 on.
    fn with_com1() -> Self {
        let mut machine = Self::quiet();
        machine.outb(0x21, 0xef);
        machine.outb(MCR, 0x0b);
        machine.inb(MSR);
        machine
    }

    fn arrive(&mut self, bytes: &[u8]) -> Vec<bool> {
        bytes.iter().map(|&byte| self.platform.serial_in(byte, &mut self.out)).collect()
    }
}

/// The probe of Linux's 8250 driver (`autoconfig`), access by access, ends with "16550A".
#[test]
fn linux_finds_a_16550a() {
    let mut machine = Machine::quiet();
    // Is there anything? IER keeps its low four bits, and only those.
    let ier = machine.inb(IER);
    machine.outb(IER, 0);
    assert_eq!(machine.inb(IER) & 0x0f, 0);
    machine.outb(IER, 0x0f);
    assert_eq!(machine.inb(IER) & 0x0f, 0x0f);
    machine.outb(IER, ier);
    // Loop-back: RTS and OUT2 come back as CTS and DCD.
    let mcr = machine.inb(MCR);
    machine.outb(MCR, 0x10 | 0x0a);
    assert_eq!(machine.inb(MSR) & 0xf0, 0x90);
    machine.outb(MCR, mcr);
    // Not an extended type: IIR, not EFR, behind LCR 0xbf.
    machine.outb(LCR, 0xbf);
    machine.outb(COM1 + 2, 0);
    machine.outb(LCR, 0);
    machine.outb(FCR, 0x01);
    assert_eq!(machine.inb(IIR) >> 6, 0b11, "working FIFOs: 16550A");
    // Not a 16750: bit 5 of FCR does not show.
    machine.outb(FCR, 0x21);
    assert_eq!(machine.inb(IIR) >> 5, 0b110);
    machine.outb(LCR, 0x80);
    machine.outb(FCR, 0x21);
    assert_eq!(machine.inb(IIR) >> 5, 0b110);
    machine.outb(LCR, 0);
    // Not an XScale: bit 6 of IER does not stay.
    machine.outb(IER, 0x40);
    assert_eq!(machine.inb(IER) & 0x40, 0);
    // Start-up's tests of the transmitter interrupt: enabling it raises it, twice.
    for _ in 0..2 {
        machine.outb(IER, 0x02);
        assert_eq!(machine.inb(IIR) & 0x0f, 0x02);
        machine.outb(IER, 0);
    }
    assert_eq!(machine.inb(LSR), 0x60);
}

/// When the THR-empty interrupt comes and what takes it away (data sheet, table "Interrupt Control Functions").
#[test]
fn transmitter_interrupt() {
    let mut machine = Machine::with_com1();
    assert_eq!(machine.inb(IIR), 0x01);
    machine.outb(IER, 0x02);
    assert!(machine.out.pic_output, "enabled while THR is empty");
    machine.inb(LSR);
    assert_eq!(machine.inb(IIR), 0x02, "reading LSR does not clear it");
    assert_eq!(machine.inb(IIR), 0x01, "reading IIR does");
    assert!(!machine.out.pic_output);
    machine.outb(IER, 0x02);
    assert_eq!(machine.inb(IIR), 0x01, "enabled before: nothing new");
    machine.outb(DATA, b'a');
    assert_eq!(machine.inb(IIR), 0x02, "the byte has left");
    // A read of IIR that reports something else leaves it alone.
    machine.outb(DATA, b'b');
    machine.outb(IER, 0x03);
    machine.arrive(b"x");
    assert_eq!(machine.inb(IIR), 0x04);
    assert_eq!(machine.inb(IIR), 0x04);
    assert_eq!(machine.inb(DATA), b'x');
    assert_eq!(machine.inb(IIR), 0x02);
    machine.outb(DATA, b'c');
    machine.outb(IER, 0x00);
    assert_eq!(machine.inb(IIR), 0x01);
    assert_eq!(machine.out.serial, b"abc");
}

/// A driver that never reads IIR and only writes the next byte at each interrupt must go on: the line falls and rises
/// with each byte, or an edge-triggered controller would see only the first.
#[test]
fn each_byte_is_an_edge() {
    let mut machine = Machine::with_com1();
    machine.outb(IER, 0x02);
    for byte in *b"hello" {
        assert!(machine.platform.pic_has_interrupt());
        assert_eq!(machine.acknowledge(), 0x0c);
        machine.outb(DATA, byte);
        machine.outb(0x20, 0x20);
    }
    assert!(machine.platform.pic_has_interrupt());
    assert_eq!(machine.out.serial, b"hello");
}

/// OUT2 lets the interrupt through to the bus, at whatever time it is switched.
#[test]
fn out2_gates_the_interrupt() {
    let mut machine = Machine::with_com1();
    machine.outb(MCR, 0x03);
    machine.outb(IER, 0x02);
    assert!(!machine.out.pic_output);
    machine.outb(MCR, 0x0b);
    assert!(machine.out.pic_output);
    machine.outb(MCR, 0x03);
    assert!(!machine.out.pic_output);
}

/// Trigger levels: below them the timeout code is shown, from them on the data code; IIR follows each read.
#[test]
fn receiver_fifo() {
    for (fcr, level) in [(0x01, 1), (0x41, 4), (0x81, 8), (0xc1, 14)] {
        let mut machine = Machine::with_com1();
        machine.outb(FCR, fcr);
        machine.outb(IER, 0x01);
        let bytes: Vec<u8> = (1..=17).collect();
        let accepted = machine.arrive(&bytes);
        assert_eq!(accepted, [vec![true; 16], vec![false]].concat(), "16 bytes, no overrun by the host");
        for waiting in (1..=16_u8).rev() {
            let code = if waiting >= level { 0xc4 } else { 0xcc };
            assert_eq!(machine.inb(IIR), code, "{waiting} waiting, level {level}");
            assert_eq!(machine.inb(LSR), 0x61);
            assert_eq!(machine.inb(DATA), 17 - waiting);
        }
        assert_eq!((machine.inb(IIR), machine.inb(LSR)), (0xc1, 0x60));
        assert!(!machine.out.pic_output);
    }
}

/// Without FIFOs one byte waits, and IIR shows no FIFO bits; switching them empties the receiver.
#[test]
fn receiver_without_fifo() {
    let mut machine = Machine::with_com1();
    machine.outb(IER, 0x01);
    assert_eq!(machine.arrive(b"ab"), [true, false]);
    assert_eq!(machine.inb(IIR), 0x04);
    assert_eq!(machine.inb(DATA), b'a');
    assert_eq!(machine.arrive(b"b"), [true]);
    machine.outb(FCR, 0x01);
    assert_eq!(machine.inb(LSR), 0x60);
    machine.arrive(b"cd");
    machine.outb(FCR, 0x03);
    assert_eq!(machine.inb(LSR), 0x60, "the receiver FIFO reset empties it");
    machine.arrive(b"e");
    machine.outb(FCR, 0x80);
    assert_eq!(machine.inb(LSR), 0x60);
    machine.outb(FCR, 0xc1);
    machine.arrive(b"f");
    machine.outb(FCR, 0x01);
    assert_eq!(
        machine.inb(IIR),
        0xc4,
        "the new trigger level counts at once, and without the reset bit nothing is lost"
    );
}

/// Loop-back: what is sent comes in, nothing goes out, the host waits; an overrun is a line-status interrupt, first of
/// all by priority, and gone with the read of LSR.
#[test]
fn loop_back() {
    let mut machine = Machine::with_com1();
    machine.outb(FCR, 0x01);
    machine.outb(MCR, 0x1b);
    machine.outb(IER, 0x07);
    for byte in 0..17 {
        machine.outb(DATA, byte);
    }
    assert_eq!(machine.arrive(b"x"), [false]);
    assert_eq!(machine.inb(IIR), 0xc6);
    assert_eq!(machine.inb(LSR), 0x63);
    assert_eq!(machine.inb(LSR), 0x61);
    let read: Vec<u8> = (0..16).map(|_| machine.inb(DATA)).collect();
    assert_eq!(read, (0..16).collect::<Vec<_>>(), "the seventeenth was lost");
    assert_eq!(machine.out.serial, []);
    // Without FIFO the waiting byte is the one that is lost.
    machine.outb(FCR, 0x00);
    machine.outb(DATA, 1);
    machine.outb(DATA, 2);
    assert_eq!((machine.inb(LSR), machine.inb(DATA)), (0x63, 2));
    // A break comes in as a zero with framing error.
    machine.outb(LCR, 0x43);
    assert_eq!((machine.inb(LSR), machine.inb(DATA)), (0x79, 0));
}

/// The modem lines: connected outside; the outputs in loop-back. Changes show once, RI's only when it falls.
#[test]
fn modem_status() {
    let mut machine = Machine::with_com1();
    assert_eq!(machine.inb(MSR), 0x30);
    machine.outb(IER, 0x08);
    for (outputs, expected) in [
        // CTS and DSR fall.
        (0x18, 0x83 | 0x08),
        (0x1a, 0x90 | 0x01),
        (0x1b, 0xb0 | 0x02),
        // RI rises: no interrupt.
        (0x1f, 0xf0),
        // RI falls.
        (0x1b, 0xb0 | 0x04),
    ] {
        machine.outb(MCR, outputs);
        let interrupt = expected & 0x0f != 0;
        assert_eq!(machine.out.pic_output, interrupt, "MCR {outputs:#x}");
        assert_eq!(machine.inb(IIR), if interrupt { 0x00 } else { 0x01 });
        assert_eq!(machine.inb(MSR), expected, "MCR {outputs:#x}");
        assert!(!machine.out.pic_output);
    }
}

/// Registers that only store; the divisor behind DLAB; the line carries as many bits as the word has.
#[test]
fn storage_and_word_length() {
    let mut machine = Machine::quiet();
    for value in [0x00, 0x5a, 0xff] {
        machine.outb(SCR, value);
        assert_eq!(machine.inb(SCR), value);
        machine.outb(MCR, value);
        assert_eq!(machine.inb(MCR), value & 0x1f);
        machine.outb(MCR, 0);
        machine.outb(LCR, value | 0x80);
        machine.outb(DATA, value);
        machine.outb(IER, !value);
        assert_eq!((machine.inb(DATA), machine.inb(IER)), (value, !value));
        machine.outb(LCR, value & 0x7f);
        assert_eq!(machine.inb(LCR), value & 0x7f);
        machine.outb(LCR, 0x03);
        assert_eq!(machine.inb(IER), 0);
    }
    for (length, expected) in [(0, 0x1f), (1, 0x3f), (2, 0x7f), (3, 0xff)] {
        machine.outb(LCR, length);
        machine.outb(DATA, 0xff);
        assert_eq!(machine.out.serial.pop(), Some(expected));
    }
    assert_eq!(machine.inb(LSR), 0x60);
}
