//! Ports: widths, absent ones, string instructions, PCI configuration space, CMOS.

use guests::console::COM1;
use guests::port::{in8, in16, in32, out8, out16, out32};
use guests::{cpu, pm_timer, println};

use crate::{attempt, equal, outcome};

/// Ports at which nobody answers.
const ABSENT: [u16; 4] = [0x0ffc, 0x5678, 0x9000, 0xfff0];

pub(crate) fn all() {
    println!("ports");
    for port in ABSENT {
        out8(port, 0);
        out16(port, 0);
        out32(port, 0);
        equal("absent, 8 bits", in8(port).into(), 0xff);
        equal("absent, 16 bits", in16(port).into(), 0xffff);
        equal("absent, 32 bits", in32(port).into(), 0xffff_ffff);
    }
    // A narrow IN leaves the rest of EAX; a wide one clears the upper half of RAX.
    let mut rax = 0x1122_3344_5566_7788_u64;
    let _ = attempt!("in al, dx", inout("rax") rax, in("rdx") ABSENT[0]);
    equal("IN AL", rax, 0x1122_3344_5566_77ff);
    let _ = attempt!("in ax, dx", inout("rax") rax, in("rdx") ABSENT[0]);
    equal("IN AX", rax, 0x1122_3344_5566_ffff);
    let _ = attempt!("in eax, dx", inout("rax") rax, in("rdx") ABSENT[0]);
    equal("IN EAX", rax, 0xffff_ffff);
    out8(0x21, 0xa5);
    equal("PIC mask", in8(0x21).into(), 0xa5);
    out8(0x21, 0xff);
    out8(0x80, 0x12);
    equal("keyboard controller takes a byte", u64::from(in8(0x64) & 2), 0);
    equal("A20 is on", (in8(0x92) & 2).into(), 2);
    strings();
    pci();
    cmos();
}

fn strings() {
    println!("string instructions");
    guests::console::flush();
    let text = b" REP OUTSB\n";
    let mut left = 0_u64;
    let _ = attempt!("rep outsb", in("rdx") COM1, inout("rsi") text.as_ptr() => _, inout("rcx") text.len() => left);
    // The transmitter's FIFO has 16 bytes.
    guests::console::flush();
    equal("RCX", left, 0);
    let mut buffer = [0_u8; 16];
    out8(0x21, 0x5a);
    let _ = attempt!("rep insb", in("rdx") 0x21, inout("rdi") buffer.as_mut_ptr() => _, inout("rcx") 5_u64 => left);
    out8(0x21, 0xff);
    equal(
        "REP INSB",
        u64::from_be_bytes([0, 0, buffer[0], buffer[1], buffer[2], buffer[3], buffer[4], buffer[5]]),
        0x5a5a_5a5a_5a00,
    );
    let end = buffer.as_mut_ptr() as u64 + 12;
    let mut to = end;
    let _ = attempt!("std", "rep insd", "cld", in("rdx") ABSENT[0], inout("rdi") to, inout("rcx") 3_u64 => left);
    equal("REP INSD, downwards", end - to, 12);
    equal("what it read", u64::from(buffer[4..].iter().all(|&byte| byte == 0xff)), 1);
    let _ = attempt!("rep insw", in("rdx") ABSENT[0], inout("rdi") to, inout("rcx") 0_u64 => left);
    equal("REP INSW of none", end - to, 12);
    let nowhere = 1_u64 << 32;
    outcome("INSB to a page that is not there", attempt!("insb", in("rdx") ABSENT[0], inout("rdi") nowhere => _));
    outcome("OUTSB from there", attempt!("outsb", in("rdx") 0x80, inout("rsi") nowhere => _));
    let mut from = nowhere - 4;
    let fault = attempt!("rep outsb", "2:", in("rdx") 0x80, inout("rsi") from, inout("rcx") 0_u64 => _);
    outcome("REP OUTSB of none, from beside there", fault);
    from = 1 << 62;
    outcome("OUTSB, not canonical", attempt!("outsb", in("rdx") 0x80, inout("rsi") from => _));
}

fn pci_read(bus: u32, device: u32, register: u32) -> u32 {
    out32(0xcf8, 1 << 31 | bus << 16 | device << 11 | register);
    in32(0xcfc)
}

fn pci() {
    println!("PCI");
    println!(" a host bridge: {}", pci_read(0, 0, 8) >> 16 == 0x0600);
    equal("address reads back", in32(0xcf8).into(), 0x8000_0008);
    equal("a device that is not there", pci_read(0, 31, 0).into(), 0xffff_ffff);
    equal("a bus that is not there", pci_read(0x7f, 0, 0).into(), 0xffff_ffff);
    let vendor = pci_read(0, 0, 0);
    equal("16 bits of it", in16(0xcfc).into(), (vendor & 0xffff).into());
    equal("8 bits of it", in8(0xcff).into(), (vendor >> 24).into());
    out32(0xcf8, 0);
    equal("without the enable bit", in32(0xcfc).into(), 0xffff_ffff);
}

fn cmos() {
    println!("CMOS");
    let read = |register: u8| {
        out8(0x70, register);
        in8(0x71)
    };
    equal("its battery is good", (read(0xd) & 0x80).into(), 0x80);
    let digits = |value: u8| value & 0xf < 10 && value >> 4 < 10;
    println!(" time in digits: {}", [0, 2, 4, 7, 8, 9].into_iter().all(|register| digits(read(register))));
    let start = pm_timer::now();
    let first = read(0);
    while read(0) == first && u64::from(pm_timer::since(start)) < pm_timer::FREQUENCY * 2 {
        cpu::cpuid(0, 0);
    }
    println!(" the second changes: {}", read(0) != first);
}
