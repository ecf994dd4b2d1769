//! Loads from and stores to the APIC's page. SDM 3C 30.4 "Virtualizing Memory-Mapped APIC Accesses".

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};

use arch::apic::Register;
use guests::{fault, memory, print, println};
use vmcs::ExitReason;
use vmcs::controls::{PrimaryBased, SecondaryBased};

use crate::{APIC, Guest};

/// Offsets of registers, and of what is none.
const OFFSETS: [u64; 33] = [
    0x000, 0x020, 0x030, 0x080, 0x090, 0x0a0, 0x0b0, 0x0c0, 0x0d0, 0x0e0, 0x0f0, 0x100, 0x170, 0x180, 0x1f0, 0x200,
    0x270, 0x280, 0x2f0, 0x300, 0x310, 0x320, 0x330, 0x340, 0x350, 0x360, 0x370, 0x380, 0x390, 0x3e0, 0x3f0, 0x400,
    0xffc,
];

/// The offset, and the value: given or got.
static OFFSET: AtomicU64 = AtomicU64::new(0);
static VALUE: AtomicU64 = AtomicU64::new(0);

/// An access of L2's.
type Code = fn();

fn address() -> u64 {
    APIC.load(Ordering::Relaxed).wrapping_add(OFFSET.load(Ordering::Relaxed))
}

const READS: [(&str, Code); 4] = [
    ("1", || VALUE.store(memory::read::<u8>(address()).into(), Ordering::Relaxed)),
    ("2", || VALUE.store(memory::read::<u16>(address()).into(), Ordering::Relaxed)),
    ("4", || VALUE.store(memory::read::<u32>(address()).into(), Ordering::Relaxed)),
    ("8", || VALUE.store(memory::read::<u64>(address()), Ordering::Relaxed)),
];
const WRITES: [(&str, Code); 4] = [
    ("1", || memory::write(address(), 0x6b_u8)),
    ("2", || memory::write(address(), 0x6b6b_u16)),
    ("4", || memory::write(address(), 0x6b6b_6b6b_u32)),
    ("8", || memory::write(address(), 0x6b6b_6b6b_6b6b_6b6b_u64)),
];

pub(crate) fn all() {
    const ACCESSES: SecondaryBased = SecondaryBased::VIRTUALIZE_APIC_ACCESSES;
    println!("the APIC's page");
    if let Some(mut guest) = Guest::new(ACCESSES) {
        of_page(&mut guest);
        event_delivery(&mut guest);
    }
    println!("the APIC's page, without a TPR shadow");
    if let Some(mut guest) = Guest::with(|controls| {
        controls.primary -= PrimaryBased::USE_TPR_SHADOW;
        controls.secondary |= ACCESSES;
    }) {
        loads(&mut guest, &[0x20, 0x80]);
        stores(&mut guest, &[0x80, 0xb0]);
    }
    println!("the APIC's registers");
    if let Some(mut guest) = Guest::new(ACCESSES | SecondaryBased::APIC_REGISTER_VIRTUALIZATION) {
        of_page(&mut guest);
    }
}

fn of_page(guest: &mut Guest) {
    println!(" loads");
    loads(guest, &OFFSETS);
    println!(" stores");
    stores(guest, &OFFSETS);
    println!(" loads of other widths and alignments");
    for offset in [0x80, 0x81, 0x82, 0x83, 0x7e] {
        for (width, code) in READS {
            one(guest, offset, width, code, true);
        }
    }
    println!(" stores of other widths and alignments");
    for offset in [0x80, 0x81, 0x83, 0x310, 0x312] {
        for (width, code) in WRITES {
            one(guest, offset, width, code, false);
        }
    }
    println!(" across the ends of the page");
    one(guest, 0xffc, "8", READS[3].1, true);
    one(guest, 0xffe, "4", WRITES[2].1, false);
    OFFSET.store(0_u64.wrapping_sub(4), Ordering::Relaxed);
    guest.run("load of 8 from 4 before it", READS[3].1);
    guest.run("store of 8 from 4 before it", WRITES[3].1);
    println!(" a load and a store in one");
    OFFSET.store(0x80, Ordering::Relaxed);
    guest.apic.fill();
    guest.run("AND", || {
        // SAFETY: the page is L2's APIC.
        unsafe { asm!("and dword ptr [{}], 0xf0", in(reg) address()) }
    });
    println!("  VTPR {:#x}", guest.apic.read(Register::TPR));
}

fn loads(guest: &mut Guest, offsets: &[u64]) {
    for &offset in offsets {
        one(guest, offset, "4", READS[2].1, true);
    }
}

fn stores(guest: &mut Guest, offsets: &[u64]) {
    for &offset in offsets {
        one(guest, offset, "4", WRITES[2].1, false);
    }
}

/// One access, and what it left in the register.
fn one(guest: &mut Guest, offset: u64, width: &str, code: Code, is_load: bool) {
    guest.apic.fill();
    OFFSET.store(offset, Ordering::Relaxed);
    VALUE.store(0, Ordering::Relaxed);
    guest.l2.restart(code);
    let report = guest.l2.run();
    fault::forget();
    print!("  {offset:#05x}, {width}: {report}");
    if is_load && report.is_done() {
        print!(", {:#x}", VALUE.load(Ordering::Relaxed));
    } else if !is_load && report.reason() != Some(ExitReason::APIC_ACCESS) {
        print!(", {:#x}", memory::read_register(guest.apic.page + (offset & 0xff0)));
    }
    if report.reason() == Some(ExitReason::APIC_WRITE) {
        // It comes after the store: L2 is behind it.
        print!("; {}", guest.l2.run());
    }
    println!();
}

/// L2's stack lies in the page of its APIC.
fn event_delivery(guest: &mut Guest) {
    println!(" delivery of an event");
    let code = (|| {
        // SAFETY: nobody comes back.
        unsafe { asm!("mov rsp, {}", "ud2", in(reg) APIC.load(Ordering::Relaxed) + 0x800, options(noreturn)) }
    }) as Code;
    guest.run("#UD", code);
}
