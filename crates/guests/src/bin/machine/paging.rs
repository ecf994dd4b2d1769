//! Page faults and their error codes, in ring 0. SDM 3A "Page-Fault Exceptions".

use core::sync::atomic::AtomicU64;

use guests::{Fault, cpu, expect_fault, memory, msr, println};

use arch::msr::Msr;

use crate::{attempt, equal, outcome};

/// A linear address that the first 4 GiB do not have.
const AT: u64 = 1 << 32;
const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
const LARGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;

#[repr(align(4096))]
struct Table([AtomicU64; 512]);

static TABLES: [Table; 3] = [const { Table([const { AtomicU64::new(0) }; 512]) }; 3];

unsafe extern "C" {
    static boot_pml4: u8;
    static boot_pdpt: u8;
}

/// Maps a page of 4 KiB at [`AT`] with these bits; the page is the last of the tables itself.
fn map(bits: u64) {
    let [directory, pages, page] = [0, 1, 2].map(table);
    memory::write(&raw const boot_pdpt as u64 + 8 * (AT >> 30), directory | PRESENT | WRITABLE);
    memory::write(directory, pages | PRESENT | WRITABLE);
    memory::write(pages, if bits == 0 { 0 } else { page | bits });
    cpu::write_cr3(cpu::cr3());
}

fn table(index: usize) -> u64 {
    TABLES[index].0.as_ptr() as u64
}

fn entry() -> u64 {
    memory::read(table(1))
}

fn read() -> Option<Fault> {
    attempt!("mov {}, [{}]", out(reg) _, in(reg) AT)
}

fn write() -> Option<Fault> {
    attempt!("mov qword ptr [{}], 0xc3", in(reg) AT)
}

fn fetch() -> Option<Fault> {
    attempt!("call {}", in(reg) AT, clobber_abi("C"))
}

pub(crate) fn all() {
    println!("page faults");
    map(0);
    let fault = read();
    outcome("read, not present", fault);
    equal("CR2", fault.map_or(0, |fault| fault.cr2), AT);
    outcome("write, not present", write());
    outcome("fetch, not present", fetch());
    map(PRESENT | WRITABLE);
    outcome("write, writable", write());
    equal("accessed and dirty", entry() & 0x60, 0x60);
    outcome("fetch", fetch());
    map(PRESENT);
    outcome("read, read-only", read());
    equal("accessed", entry() & 0x60, 0x20);
    outcome("write, read-only", write());
    cpu::write_cr0(cpu::cr0() & !(1 << 16));
    outcome("write, read-only, without WP", write());
    cpu::write_cr0(cpu::cr0() | 1 << 16);

    outcome("the no-execute bit without NXE", {
        map(PRESENT | NO_EXECUTE);
        read()
    });
    msr::write(Msr::EFER, msr::read(Msr::EFER) | 1 << 11);
    map(PRESENT | WRITABLE | NO_EXECUTE);
    outcome("read, no execute", read());
    outcome("fetch, no execute", fetch());
    map(0);
    outcome("fetch, not present, NXE", fetch());
    msr::write(Msr::EFER, msr::read(Msr::EFER) & !(1 << 11));
    map(PRESENT | 1 << 51);
    let width = cpu::cpuid(0x8000_0008, 0).eax & 0xff;
    println!(
        " reserved bit: {}",
        if read().map(|fault| fault.error) == Some(9) || width == 52 { "ok" } else { "not ok" }
    );
    // A large page that is not aligned to its size.
    memory::write(table(0), 0x2000 | PRESENT | LARGE);
    cpu::write_cr3(cpu::cr3());
    outcome("large page, reserved bit", read());

    // Without INVLPG a translation may stay; with it, it may not.
    map(PRESENT | WRITABLE);
    outcome("mapped again", read());
    memory::write(table(1), 0_u64);
    let _ = attempt!("invlpg [{}]", in(reg) AT);
    outcome("unmapped, INVLPG", read());

    // SMEP: the kernel does not execute a user's page; SMAP: nor reads it unless AC says so.
    let level4 = &raw const boot_pml4 as u64;
    memory::write(level4, memory::read::<u64>(level4) | 4);
    memory::write(&raw const boot_pdpt as u64 + 8 * (AT >> 30), table(0) | 7);
    memory::write(table(0), table(1) | 7);
    memory::write(table(1), table(2) | 7);
    cpu::write_cr3(cpu::cr3());
    write();
    for (what, bit, action) in [("SMEP", 20, fetch as fn() -> Option<Fault>), ("SMAP", 21, read)] {
        let shown = cpu::cpuid(7, 0).ebx & 1 << if bit == 20 { 7 } else { 20 } != 0;
        if !shown {
            println!(" {what}: ok");
            continue;
        }
        let set = expect_fault(|| cpu::write_cr4(cpu::cr4() | 1 << bit));
        let error = action().map_or(0, |fault| fault.error);
        let permitted = bit == 20 || attempt!("stac", "mov {}, [{}]", "clac", out(reg) _, in(reg) AT).is_none();
        cpu::write_cr4(cpu::cr4() & !(1 << bit));
        let wanted = if bit == 20 { 0x11 } else { 1 };
        let right = set.is_none() && error == wanted && permitted && action().is_none();
        println!(" {what}: {}", if right { "ok" } else { "not ok" });
    }
    memory::write(level4, memory::read::<u64>(level4) & !4);
    memory::write(&raw const boot_pdpt as u64 + 8 * (AT >> 30), 0_u64);
    cpu::write_cr3(cpu::cr3());
}
