//! An L2 without EPT, whose page tables L1 keeps, and what VPIDs do: SDM 3C 29.4 "Caching Translation Information".
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering};

use arch::Gpr;
use guests::vmx::{Current, L2, equal, instructions, pages, setup};
use guests::{cpu, entry, memory, pic, println};
use vmcs::controls::{PrimaryBased, SecondaryBased};
use vmcs::fields::{EXCEPTION_BITMAP, EXIT_QUALIFICATION, GUEST_CR3, VIRTUAL_PROCESSOR_ID};
use vmcs::{Access, ExitReason};

entry!(main);

/// A linear address that L1's tables do not have.
const AT: u64 = 1 << 39;
const PRESENT: u64 = 1;
const WRITABLE: u64 = 2;
const GLOBAL: u64 = 1 << 8;

/// What L2 read.
static READ: AtomicU64 = AtomicU64::new(0);

fn main() {
    setup::require();
    pic::remap();
    setup::on();
    let l2 = &mut L2::new(|| {});
    let tables = Tables::new();
    let mut current = Current;
    current.write(GUEST_CR3, tables.root);
    on_demand(l2, tables);
    cr3(l2, tables);
    cached(l2, tables);
    println!("done");
}

/// L1's tables for L2: everything of L1's, and one page at [`AT`].
#[derive(Clone, Copy)]
struct Tables {
    root: u64,
    entry: u64,
    pages: [u64; 2],
}

impl Tables {
    fn new() -> Self {
        let [root, pointers, directory, table, first, second] = core::array::from_fn(|_| pages::take());
        for offset in (0..4096).step_by(8) {
            memory::write(root + offset, memory::read::<u64>(cpu::cr3() + offset));
        }
        memory::write(root + 8 * (AT >> 39 & 511), pointers | PRESENT | WRITABLE);
        memory::write(pointers, directory | PRESENT | WRITABLE);
        memory::write(directory, table | PRESENT | WRITABLE);
        memory::write(first, 0x1111_u64);
        memory::write(second, 0x2222_u64);
        Self { root, entry: table, pages: [first, second] }
    }

    fn map(self, page: usize, bits: u64) {
        memory::write(self.entry, self.pages[page] | bits);
    }

    fn unmap(self) {
        memory::write(self.entry, 0_u64);
    }
}

fn look() {
    READ.store(memory::read_register(AT).into(), Ordering::Relaxed);
}

fn shown(what: &str, l2: &mut L2, wanted: u64) {
    println!(" {what}: {}", l2.run());
    equal("read", READ.load(Ordering::Relaxed), wanted);
}

/// Page faults of L2 tell L1 what to map.
fn on_demand(l2: &mut L2, tables: Tables) {
    println!("pages come when they are touched");
    let mut current = Current;
    current.write(EXCEPTION_BITMAP, 1 << 14);
    tables.unmap();
    l2.restart(|| {
        look();
        memory::write_register(AT + 8, 0x3333);
    });
    for bits in [PRESENT, PRESENT | WRITABLE] {
        println!(" {}", l2.run());
        equal("the address", current.read(EXIT_QUALIFICATION) & !0xfff, AT);
        tables.map(0, bits);
    }
    shown("then", l2, 0x1111);
    equal("written", memory::read::<u32>(tables.pages[0] + 8).into(), 0x3333);
    equal("accessed and dirty", memory::read::<u64>(tables.entry) & 0x60, 0x60);
    current.write(EXCEPTION_BITMAP, 0);
}

/// L1 answers MOV CR3 and INVLPG.
fn cr3(l2: &mut L2, tables: Tables) {
    println!("CR3 and INVLPG exit");
    l2.control(|controls| {
        controls.primary |=
            PrimaryBased::CR3_LOAD_EXITING | PrimaryBased::CR3_STORE_EXITING | PrimaryBased::INVLPG_EXITING;
    });
    let mut current = Current;
    tables.map(0, PRESENT);
    l2.restart(|| {
        // SAFETY: L1 answers; the tables have everything in the same place.
        unsafe { core::arch::asm!("mov r8, cr3", "mov cr3, r8", "invlpg [{}]", in(reg) AT, out("r8") _) };
        look();
    });
    for _ in 0..5 {
        let report = l2.run();
        println!(" {report}");
        match report.reason() {
            // L2 has a CR3 of its own imagination.
            Some(ExitReason::CONTROL_REGISTER) if report.qualification() & 0x10 != 0 => l2.regs.set(Gpr::R8, 0x1_2000),
            Some(ExitReason::CONTROL_REGISTER) => equal("CR3", l2.regs.get(Gpr::R8), 0x1_2000),
            Some(ExitReason::INVLPG) => {
                equal("the address", current.read(EXIT_QUALIFICATION), AT);
                tables.map(1, PRESENT);
            }
            _ => break,
        }
        l2.skip();
    }
    equal("read", READ.load(Ordering::Relaxed), 0x2222);
    l2.control(|controls| {
        controls.primary -=
            PrimaryBased::CR3_LOAD_EXITING | PrimaryBased::CR3_STORE_EXITING | PrimaryBased::INVLPG_EXITING;
    });
    current.write(GUEST_CR3, tables.root);
}

/// What is cached of L2's translations, and what forgets it.
fn cached(l2: &mut L2, tables: Tables) {
    println!("without VPID every entry forgets");
    tables.map(0, PRESENT | GLOBAL);
    l2.restart(look);
    shown("first", l2, 0x1111);
    tables.map(1, PRESENT | GLOBAL);
    l2.restart(look);
    shown("second", l2, 0x2222);

    println!("with VPID 1");
    if !l2.control(|controls| controls.secondary |= SecondaryBased::ENABLE_VPID) {
        println!(" not offered");
        return;
    }
    let mut current = Current;
    current.write(VIRTUAL_PROCESSOR_ID, 1);
    for (what, bits, kind, descriptor) in [
        ("INVVPID of the address", PRESENT, 0, [1, AT]),
        ("INVVPID of the address, global", PRESENT | GLOBAL, 0, [1, AT]),
        ("INVVPID of the VPID, global", PRESENT | GLOBAL, 1, [1, 0]),
        ("INVVPID of all, global", PRESENT | GLOBAL, 2, [0, 0]),
        ("INVVPID of the VPID but for what is global", PRESENT, 3, [1, 0]),
    ] {
        tables.map(0, bits);
        let _ = instructions::invvpid(1, [1, 0]);
        l2.restart(look);
        shown("before", l2, 0x1111);
        tables.map(1, bits);
        if let Err(failure) = instructions::invvpid(kind, descriptor) {
            println!(" {what}: {failure}");
        }
        l2.restart(look);
        shown(what, l2, 0x2222);
    }
    println!("L2 forgets itself");
    for (what, code) in [
        (
            "INVLPG",
            (|| {
                look();
                swap();
                // SAFETY: the translation changed.
                unsafe { core::arch::asm!("invlpg [{}]", in(reg) AT) };
                look();
            }) as fn(),
        ),
        ("MOV to CR3", || {
            look();
            swap();
            cpu::write_cr3(cpu::cr3());
            look();
        }),
        ("MOV to CR4, PGE", || {
            look();
            swap();
            cpu::write_cr4(cpu::cr4() ^ 1 << 7);
            look();
        }),
    ] {
        tables.map(0, PRESENT);
        ENTRY.store(tables.entry, Ordering::Relaxed);
        OTHER.store(tables.pages[1] | PRESENT, Ordering::Relaxed);
        let _ = instructions::invvpid(1, [1, 0]);
        l2.restart(code);
        shown(what, l2, 0x2222);
    }
}

static ENTRY: AtomicU64 = AtomicU64::new(0);
static OTHER: AtomicU64 = AtomicU64::new(0);

/// L2 changes its own translation.
fn swap() {
    memory::write(ENTRY.load(Ordering::Relaxed), OTHER.load(Ordering::Relaxed));
}
