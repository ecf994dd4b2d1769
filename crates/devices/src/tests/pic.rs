//! The PIC pair against the 8259A data sheet.

use crate::pic::PicPair;

/// The pair as Linux sets it up, with vectors 0x30 and 0x38 and nothing masked.
fn linux() -> PicPair {
    let mut pic = PicPair::new();
    initialize(&mut pic, 0x01, 0x01);
    pic
}

fn initialize(pic: &mut PicPair, master_icw4: u8, slave_icw4: u8) {
    for (port, base, wiring, icw4) in [(0x20, 0x30, 0x04, master_icw4), (0xa0, 0x38, 0x02, slave_icw4)] {
        pic.write(port, 0x11);
        for word in [base, wiring, icw4, 0x00] {
            pic.write(port + 1, word);
        }
    }
}

fn raise(pic: &mut PicPair, irqs: &[u8]) {
    for &irq in irqs {
        pic.set_line(irq, true);
    }
}

/// Acknowledges as long as there is something: the IRQ numbers in their order.
fn drain(pic: &mut PicPair) -> Vec<u8> {
    std::iter::from_fn(|| pic.output().then(|| pic.acknowledge() - 0x30)).take(20).collect()
}

/// Fully nested mode: an interrupt in service holds back its own and lower priorities, the slave's nine between 1 and 3.
#[test]
fn priorities() {
    let mut pic = linux();
    raise(&mut pic, &[4, 14, 8]);
    assert_eq!(drain(&mut pic), [8], "IRQ 8 to 15 rank between 1 and 3");
    raise(&mut pic, &[1]);
    assert_eq!(drain(&mut pic), [1]);
    pic.write(0x20, 0x20);
    assert_eq!(drain(&mut pic), [], "the slave's level is still in service at the master");
    pic.write(0xa0, 0x20);
    pic.write(0x20, 0x20);
    assert_eq!(drain(&mut pic), [14]);
    pic.write(0xa0, 0x20);
    pic.write(0x20, 0x20);
    assert_eq!(drain(&mut pic), [4]);
}

/// A request that goes away before it is acknowledged leaves the vector of input 7 and nothing in service.
#[test]
fn spurious() {
    let mut pic = linux();
    raise(&mut pic, &[3]);
    pic.set_line(3, false);
    assert!(!pic.output());
    assert_eq!(pic.acknowledge(), 0x37);
    pic.write(0x20, 0x0b);
    assert_eq!(pic.read(0x20), 0);
}

/// On the slave: the master was asked by edge and serves its input 2, the slave has nothing left and answers 15.
/// With the cascade input computed from the slave at every change this needs a slave that withdraws in between: by a
/// mask write the master is told in time, so the processor sees the master's own 7.
#[test]
fn withdrawn_at_the_slave() {
    let mut pic = linux();
    raise(&mut pic, &[9]);
    assert!(pic.output());
    pic.write(0xa1, 0xff);
    assert!(!pic.output());
    assert_eq!(pic.acknowledge(), 0x37);
    pic.write(0xa1, 0x00);
    assert_eq!(drain(&mut pic), [9], "the edge was not lost: the slave still holds the request");
}

/// An edge is one request; a level asks until it falls. ELCR bits for the timer, keyboard, cascade, RTC and FPU are fixed.
#[test]
fn edge_and_level() {
    let mut pic = linux();
    pic.write_level(0x4d0, 0xff);
    pic.write_level(0x4d1, 0xff);
    assert_eq!((pic.read_level(0x4d0), pic.read_level(0x4d1)), (0xf8, 0xde));
    pic.write_level(0x4d0, 0x00);
    pic.write_level(0x4d1, 0x02);
    for (irq, again) in [(5, false), (9, true)] {
        raise(&mut pic, &[irq]);
        assert_eq!(drain(&mut pic), [irq]);
        pic.write(0xa0, 0x20);
        pic.write(0x20, 0x20);
        assert_eq!(pic.output(), again, "IRQ {irq} still high");
        pic.set_line(irq, false);
        assert!(!pic.output());
    }
    // An edge input that is high while ICW1 is written must fall and rise again; a level input asks on.
    raise(&mut pic, &[5, 9]);
    initialize(&mut pic, 0x01, 0x01);
    assert_eq!(drain(&mut pic), [9]);
}

/// Each OCW2 command (data sheet, figure "Operation Command Word Format") after IRQ 4 and then 1 went into service.
#[test]
fn end_of_interrupt_commands() {
    for (command, in_service, next) in [
        // Command, what stays in service, and which of IRQ 0, 3 and 7 interrupts first if all ask then.
        (0x20, 1 << 4, Some(0)),
        (0x61, 1 << 4, Some(0)),
        (0x64, 1 << 1, Some(0)),
        // Rotations: 1 is now lowest, so the order is 2 to 7, 0, 1.
        (0xa0, 1 << 4, Some(3)),
        (0xe1, 1 << 4, Some(3)),
        // IRQ 4 lowest: 5, 6, 7, 0 come before IRQ 1, which is in service.
        (0xe4, 1 << 1, Some(7)),
        // Set priority, no-operation.
        (0xc5, 1 << 1 | 1 << 4, Some(7)),
        (0x40, 1 << 1 | 1 << 4, Some(0)),
    ] {
        let mut pic = linux();
        raise(&mut pic, &[4]);
        drain(&mut pic);
        raise(&mut pic, &[1]);
        drain(&mut pic);
        pic.write(0x20, command);
        pic.write(0x20, 0x0b);
        assert_eq!(pic.read(0x20), in_service, "in service after {command:#x}");
        pic.write(0x21, 0xff);
        raise(&mut pic, &[0, 3, 7]);
        pic.write(0x21, 0x00);
        assert_eq!(pic.output().then(|| pic.acknowledge() - 0x30), next, "next after {command:#x}");
    }
}

/// Automatic EOI leaves nothing in service; with rotation the one served becomes the lowest.
#[test]
fn automatic_eoi() {
    let mut pic = linux();
    initialize(&mut pic, 0x03, 0x01);
    raise(&mut pic, &[6, 1]);
    assert_eq!(drain(&mut pic), [1, 6]);
    pic.write(0x20, 0x80);
    for irq in [1, 6] {
        pic.set_line(irq, false);
    }
    raise(&mut pic, &[3]);
    assert_eq!(drain(&mut pic), [3]);
    pic.write(0x21, 0xff);
    raise(&mut pic, &[0, 1, 4]);
    pic.write(0x21, 0x00);
    assert_eq!(pic.acknowledge(), 0x34, "3 was lowest: 4 is highest");
    // 4 is lowest now: 5, 6, 7, 0, 1.
    assert_eq!(drain(&mut pic), [0, 1]);
}

/// Special mask mode: a level in service that is masked no longer holds back lower ones, and a non-specific EOI does
/// not touch it.
#[test]
fn special_mask() {
    let mut pic = linux();
    raise(&mut pic, &[3]);
    drain(&mut pic);
    pic.write(0x21, 1 << 3);
    raise(&mut pic, &[5]);
    assert!(!pic.output());
    pic.write(0x20, 0x68);
    assert_eq!(drain(&mut pic), [5]);
    pic.write(0x20, 0x20);
    pic.write(0x20, 0x0b);
    assert_eq!(pic.read(0x20), 1 << 3);
    pic.write(0x20, 0x20);
    assert_eq!(pic.read(0x20), 1 << 3);
    pic.write(0x20, 0x48);
    pic.write(0x20, 0x20);
    assert_eq!(pic.read(0x20), 0);
}

/// The special fully nested mode lets a higher request of the same slave through.
#[test]
fn special_fully_nested() {
    for (icw4, expected) in [(0x01, vec![]), (0x11, vec![10])] {
        let mut pic = linux();
        initialize(&mut pic, icw4, 0x01);
        raise(&mut pic, &[14]);
        assert_eq!(drain(&mut pic), [14]);
        raise(&mut pic, &[10]);
        assert_eq!(drain(&mut pic), expected, "ICW4 {icw4:#x}");
    }
}

/// Poll: the next read is the acknowledge, and says whether there was anything.
#[test]
fn poll() {
    let mut pic = linux();
    raise(&mut pic, &[6]);
    pic.write(0x20, 0x0c);
    assert_eq!(pic.read(0x20), 0x86);
    pic.write(0x20, 0x0b);
    assert_eq!(pic.read(0x20), 1 << 6, "in service, as by INTA");
    pic.write(0x20, 0x20);
    pic.write(0x20, 0x0c);
    assert_eq!(pic.read(0x20) & 0x80, 0);
    assert_eq!(pic.read(0x21), 0, "one read only");
}

/// Linux's probe: the mask register holds what is written to it.
#[test]
fn mask_reads_back() {
    let mut pic = PicPair::new();
    for value in [0xfb, 0xff, 0x00] {
        pic.write(0x21, value);
        pic.write(0xa1, !value);
        assert_eq!((pic.read(0x21), pic.read(0xa1)), (value, !value));
    }
}

/// While ICWs are expected, the odd port takes them and the mask stays clear; without IC4 there are three.
#[test]
fn initialization_sequence() {
    let mut pic = PicPair::new();
    pic.write(0x20, 0x10);
    pic.write(0x21, 0x47);
    pic.write(0x21, 0x04);
    assert_eq!(pic.read(0x21), 0);
    pic.write(0x21, 0xfe);
    assert_eq!(pic.read(0x21), 0xfe, "the third word is already the mask");
    raise(&mut pic, &[0]);
    assert_eq!(pic.acknowledge(), 0x40, "low three bits of ICW2 do not count");
}
