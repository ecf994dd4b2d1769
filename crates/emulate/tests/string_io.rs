//! INS and OUTS against the manual.

mod support;

use arch::control::Rflags;
use arch::segment::{AccessRights, SegmentName};
use arch::{Fault, Gpr, GuestMemory, GuestPhys, Width};
use emulate::{CodeSize, Done, Failure, IoString, Ports, string_io};
use support::{Ram, Vcpu, identity_map};

const RCX: usize = Gpr::Rcx as usize;
const RSI: usize = Gpr::Rsi as usize;
const RDI: usize = Gpr::Rdi as usize;

/// A port that reads as 0xa0, 0xa1, … and keeps what is written.
#[derive(Default)]
struct Fifo {
    reads: u32,
    written: Vec<(u16, usize, u32)>,
}

impl Ports for Fifo {
    fn read(&mut self, _port: u16, _width: Width) -> u32 {
        self.reads += 1;
        0x9f + self.reads
    }
    fn write(&mut self, port: u16, width: Width, value: u32) {
        self.written.push((port, width.bytes(), value));
    }
}

fn machine(code: CodeSize) -> (Ram, Vcpu, Fifo) {
    let ram = Ram::new(0x1_0000);
    identity_map(&ram);
    (ram, Vcpu::new(code), Fifo::default())
}

const INSB: IoString = IoString {
    input: true,
    port: 0x1f0,
    width: Width::Byte,
    segment: SegmentName::Ds,
    address_width: Width::Qword,
    repeat: false,
    length: 1,
};

#[test]
fn outs() {
    let (ram, mut vcpu, mut ports) = machine(CodeSize::Bits64);
    ram.write(GuestPhys(0x9000), &[1, 2, 3, 4, 5, 6, 7, 8]).unwrap();
    (vcpu.gprs[RSI], vcpu.gprs[RCX]) = (0x9000, 2);
    let io = IoString { input: false, width: Width::Dword, repeat: true, length: 2, ..INSB };
    assert_eq!(string_io(&mut vcpu, &ram, &mut ports, &io), Ok(Done::Complete));
    assert_eq!(ports.written, [(0x1f0, 4, 0x0403_0201), (0x1f0, 4, 0x0807_0605)]);
    assert_eq!((vcpu.gprs[RSI], vcpu.gprs[RCX], vcpu.rip), (0x9008, 0, 0x8002));
}

/// REP INSW in real mode, backwards, with 16-bit registers whose upper halves stay; more iterations than one batch.
#[test]
fn ins_in_real_mode() {
    let (ram, mut vcpu, mut ports) = machine(CodeSize::Bits16);
    vcpu.segments[SegmentName::Es as usize].base = 0x4000;
    vcpu.rflags |= Rflags::DF;
    (vcpu.gprs[RDI], vcpu.gprs[RCX]) = (0xabcd_0200, 0x1234_0064);
    let io = IoString { width: Width::Word, address_width: Width::Word, repeat: true, length: 2, ..INSB };
    assert_eq!(string_io(&mut vcpu, &ram, &mut ports, &io), Ok(Done::Repeating));
    assert_eq!((vcpu.rip, vcpu.gprs[RCX]), (0x8000, 0x1234_0024));
    assert_eq!(string_io(&mut vcpu, &ram, &mut ports, &io), Ok(Done::Complete));
    assert_eq!((vcpu.rip, vcpu.gprs[RCX], vcpu.gprs[RDI]), (0x8002, 0x1234_0000, 0xabcd_0138));
    assert_eq!((ports.reads, ram.bytes.borrow()[0x4200], ram.bytes.borrow()[0x41fe]), (100, 0xa0, 0xa1));
}

/// The destination is checked before the port is read: a page that is not there, a segment that may not be written, and
/// an address where there is no RAM.
#[test]
fn faults_come_before_the_port() {
    let (ram, mut vcpu, mut ports) = machine(CodeSize::Bits64);
    vcpu.gprs[RDI] = 4 << 30;
    let fault = Fault::Pf { address: 4 << 30, error: 2 };
    assert_eq!(string_io(&mut vcpu, &ram, &mut ports, &INSB), Err(Failure::Fault(fault)));
    vcpu.gprs[RDI] = 0x8000_0000_0000;
    assert_eq!(string_io(&mut vcpu, &ram, &mut ports, &INSB), Err(Failure::Fault(Fault::Gp(0))));
    vcpu.gprs[RDI] = 0xfee0_0000;
    let outside = Failure::Unsupported { bytes: [0; 15], length: 0 };
    assert_eq!(string_io(&mut vcpu, &ram, &mut ports, &INSB), Err(outside));
    let (ram, mut vcpu, mut ports_32) = machine(CodeSize::Bits32);
    vcpu.segments[SegmentName::Es as usize].rights = AccessRights(0xc091);
    let io = IoString { address_width: Width::Dword, ..INSB };
    assert_eq!(string_io(&mut vcpu, &ram, &mut ports_32, &io), Err(Failure::Fault(Fault::Gp(0))));
    assert_eq!((ports.reads, ports_32.reads, vcpu.rip), (0, 0, 0x8000));
}

/// A doubleword that crosses from one page to another that is not its neighbour.
#[test]
fn element_crosses_pages() {
    let (ram, mut vcpu, mut ports) = machine(CodeSize::Bits64);
    ram.set_u64(0x2000, 0x3000 | 7);
    ram.set_u64(0x3000, 0x4000 | 7);
    ram.set_u64(0x4000 + 8 * 0x9, 0xb000 | 7);
    ram.set_u64(0x4000 + 8 * 0xa, 0x9000 | 7);
    vcpu.gprs[RDI] = 0x9ffe;
    let io = IoString { width: Width::Dword, ..INSB };
    assert_eq!(string_io(&mut vcpu, &ram, &mut ports, &io), Ok(Done::Complete));
    assert_eq!(ram.bytes.borrow()[0xbffe..0xc000], [0xa0, 0]);
    // The dirty flag of both pages.
    assert_eq!((ram.get_u64(0x4048), ram.get_u64(0x4050)), (0xb067, 0x9067));
    (vcpu.gprs[RSI], vcpu.gprs[RCX]) = (0x9ffe, 1);
    assert_eq!(string_io(&mut vcpu, &ram, &mut ports, &IoString { input: false, ..io }), Ok(Done::Complete));
    assert_eq!(ports.written, [(0x1f0, 4, 0xa0)]);
}
