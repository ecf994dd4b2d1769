//! Which access which permissions allow: SDM 3C 29.3.3.2 "EPT Violations"; what no entry may say: 29.3.3.1 "EPT
//! Misconfigurations".

use guests::vmx::ept::{ALL, EXECUTE, READ, WRITE, WRITE_BACK};
use guests::{cpu, memory, println};

use crate::{PAGE, execute, flush, once, read, with_ept, write};

pub(crate) fn all() {
    let (mut l2, tables) = with_ept();
    let entry = tables.entry(PAGE, 1);
    for (what, bits) in [
        ("nothing", 0),
        ("read", READ),
        ("read and write", READ | WRITE),
        ("read and execute", READ | EXECUTE),
        ("execute", EXECUTE),
        ("all", ALL),
    ] {
        println!("{what}");
        memory::write(entry, PAGE | bits | WRITE_BACK);
        flush();
        once(&mut l2, "read", read);
        once(&mut l2, "write", write);
        once(&mut l2, "execute", execute);
    }

    let upper = tables.entry(PAGE, 2);
    let before: u64 = memory::read(upper);
    for (what, bits) in [("read", READ), ("read and execute", READ | EXECUTE), ("nothing", 0)] {
        println!("one level above: {what}");
        memory::write(upper, before & !ALL | bits);
        flush();
        once(&mut l2, "read", read);
        once(&mut l2, "write", write);
        once(&mut l2, "execute", execute);
    }
    memory::write(upper, before);
    flush();

    println!("a violation is mended without INVEPT");
    memory::write(entry, PAGE | READ | WRITE_BACK);
    flush();
    once(&mut l2, "write", write);
    memory::write(entry, PAGE | ALL | WRITE_BACK);
    println!(" again: {}", l2.run());

    println!("misconfigurations");
    let width = cpu::cpuid(0x8000_0008, 0).eax & 0xff;
    for (what, value) in [
        ("write without read", PAGE | WRITE | WRITE_BACK),
        ("write and execute without read", PAGE | WRITE | EXECUTE | WRITE_BACK),
        ("memory type 2", PAGE | ALL | 2 << 3),
        ("memory type 3", PAGE | ALL | 3 << 3),
        ("memory type 7", PAGE | ALL | 7 << 3),
        ("beyond the address width", PAGE | ALL | WRITE_BACK | 1 << width),
        ("not present, whatever the rest", 0xfff8_0000_0000_0ff8),
        ("uncacheable", PAGE | ALL),
        ("write-combining", PAGE | ALL | 1 << 3),
        ("ignore PAT", PAGE | ALL | WRITE_BACK | 1 << 6),
        ("ignored bits", PAGE | ALL | WRITE_BACK | 1 << 7 | 1 << 11 | 0xf << 52),
    ] {
        memory::write(entry, value);
        flush();
        once(&mut l2, what, read);
    }
    memory::write(entry, PAGE | ALL | WRITE_BACK);
    let directory = tables.entry(PAGE, 2);
    let before: u64 = memory::read(directory);
    for (what, value) in [
        ("a table with memory type 1", before | 1 << 3),
        ("a table with bit 6", before | 1 << 6),
        ("a table beyond the address width", before | 1 << width),
        ("a table with ignored bits", before | 1 << 10 | 1 << 11 | 1 << 52),
        ("2 MiB, right", PAGE | ALL | WRITE_BACK | 1 << 7),
    ] {
        memory::write(directory, value);
        flush();
        once(&mut l2, what, read);
    }
    memory::write(directory, before);
    let pointers = tables.entry(PAGE, 3);
    let before: u64 = memory::read(pointers);
    memory::write(pointers, ALL | WRITE_BACK | 1 << 7);
    flush();
    once(&mut l2, "1 GiB, right", read);
    memory::write(pointers, before);
    flush();
    once(&mut l2, "all as before", read);
}
