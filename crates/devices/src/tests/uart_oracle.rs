//! The UART against vm-superio's `Serial`, by the same random accesses.

use std::convert::Infallible;

use proptest::prelude::*;
use vm_superio::{Serial, Trigger};

use super::machine::Machine;

struct Silent;

impl Trigger for Silent {
    type E = Infallible;

    fn trigger(&self) -> Result<(), Infallible> {
        Ok(())
    }
}

const COM1: u16 = 0x3f8;

#[derive(Clone, Debug)]
enum Access {
    Read(u16),
    Write(u16, u8),
    Arrives(u8),
}

fn accesses() -> impl Strategy<Value = Vec<Access>> {
    let access = prop_oneof![
        4 => (0..8_u16).prop_map(Access::Read),
        4 => (0..8_u16, any::<u8>()).prop_map(|(register, value)| Access::Write(register, value)),
        2 => any::<u8>().prop_map(Access::Arrives),
    ];
    prop::collection::vec(access, 1..200)
}

proptest! {
    /// Whatever is read, sent and received is the same. vm-superio takes short cuts, which the sequence goes around:
    ///
    /// - its FIFOs are always on, 64 bytes deep, without trigger levels: FCR stays 1, and 16 bytes are the most;
    /// - its IIR ORs the sources together and forgets all of them when read: IIR is compared while no data waits;
    /// - every IER write with the THR-empty bit raises that interrupt, not only the one that enables it, and none takes
    ///   it away: the bit changes with each IER write, and IIR is read when it goes;
    /// - looped-back bytes do not raise it: IIR is read after them;
    /// - it has no delta bits in MSR, and DCD on outside loop-back: MSR is compared by its lines in loop-back;
    /// - an empty receiver reads 0, not the last byte: the receiver is read while data waits;
    /// - it sends 8 bits whatever the word length, stores all of MCR, and knows no break.
    #[test]
    fn like_vm_superio(accesses in accesses()) {
        let mut ours = Machine::quiet();
        let mut theirs = Serial::new(Silent, Vec::new());
        let write = |ours: &mut Machine, theirs: &mut Serial<_, _, _>, register: u16, value: u8| {
            ours.outb(COM1 + register, value);
            theirs.write(register.to_le_bytes()[0], value).unwrap();
        };
        ours.outb(COM1 + 2, 0x01);
        for (register, value) in [(3, 0x83), (0, 0x0c), (1, 0x00), (3, 0x03), (4, 0x08)] {
            write(&mut ours, &mut theirs, register, value);
        }
        let (mut dlab, mut looped, mut transmitter) = (false, false, false);
        let mut waiting = 0;
        for access in accesses {
            match access {
                Access::Read(0) if !dlab && waiting == 0 => {}
                Access::Read(2) if waiting > 0 => {}
                Access::Read(6) if !looped => {}
                Access::Read(register) => {
                    let mask = if register == 6 { 0xf0 } else { 0xff };
                    let (our, their) = (ours.inb(COM1 + register), theirs.read(register.to_le_bytes()[0]));
                    prop_assert_eq!(our & mask, their & mask, "register {}", register);
                    if register == 0 && !dlab {
                        waiting -= 1;
                    }
                }
                Access::Write(0, _) if !dlab && looped && waiting == 16 => {}
                Access::Write(0, value) if !dlab => {
                    write(&mut ours, &mut theirs, 0, value);
                    if looped {
                        waiting += 1;
                        ours.inb(COM1 + 2);
                        theirs.read(2);
                        // With data waiting, ours has not reported the transmitter and must be told to drop it.
                        transmitter = false;
                        write(&mut ours, &mut theirs, 1, 0);
                        theirs.read(2);
                    }
                }
                Access::Write(1, value) if !dlab => {
                    transmitter = !transmitter;
                    write(&mut ours, &mut theirs, 1, value & 0x0d | u8::from(transmitter) << 1);
                    if !transmitter {
                        ours.inb(COM1 + 2);
                        theirs.read(2);
                    }
                }
                Access::Write(2, _) => {}
                Access::Write(3, value) => {
                    dlab = value & 0x80 != 0;
                    write(&mut ours, &mut theirs, 3, value & 0xbf | 0x03);
                }
                Access::Write(4, value) => {
                    looped = value & 0x10 != 0;
                    write(&mut ours, &mut theirs, 4, value & 0x1f);
                    ours.inb(COM1 + 6);
                }
                Access::Write(register, value) => write(&mut ours, &mut theirs, register, value),
                Access::Arrives(_) if waiting == 16 => {}
                Access::Arrives(byte) => {
                    let theirs = theirs.enqueue_raw_bytes(&[byte]).unwrap() == 1;
                    prop_assert_eq!(ours.platform.serial_in(byte, &mut ours.out), theirs);
                    waiting += usize::from(theirs);
                }
            }
            if waiting == 0 && !transmitter {
                theirs.read(2);
            }
        }
        prop_assert_eq!(&ours.out.serial, theirs.writer());
    }
}
