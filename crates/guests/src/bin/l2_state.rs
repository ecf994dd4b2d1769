//! What an entry loads for L2, what an exit saves of it, and what it loads for L1. SDM 3C 27.3.2 "Loading Guest State", 28.3 "Saving
//! Guest State", 28.5 "Loading Host State".
#![no_std]
#![no_main]

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};

use arch::msr::Msr;
use guests::entry::{CODE64, DATA, TSS};
use guests::vmx::state::{self, DS, ES, FS, GS, LDTR};
use guests::vmx::{Current, L2, equal, pages, setup};
use guests::{cpu, entry, memory, msr, pic, println};
use vmcs::fields::*;
use vmcs::{Access, Field, field};

entry!(main);

/// A selector of the GDT's free slot.
const FREE: u64 = 0x50;
const TS: u64 = 1 << 3;
const AM: u64 = 1 << 18;
const TSD: u64 = 1 << 2;
/// Carry, direction, alignment check: what L2 sets of RFLAGS.
const FLAGS: u64 = 1 << 0 | 1 << 10 | 1 << 18;
const UNUSABLE: u32 = 1 << 16;

unsafe extern "C" {
    static gdt: u8;
}

/// What L2 saw.
static SEEN: [AtomicU64; 16] = [const { AtomicU64::new(0) }; 16];

fn main() {
    setup::require();
    pic::remap();
    setup::on();
    loaded();
    saved();
    host();
    println!("done");
}

fn see(index: usize, value: u64) {
    SEEN[index].store(value, Ordering::Relaxed);
}

macro_rules! read {
    ($instruction:literal) => {{
        let value: u64;
        // SAFETY: reads a register.
        unsafe { asm!("xor eax, eax", $instruction, out("rax") value) };
        value
    }};
}

/// Limits of GDTR and IDTR.
fn limits() -> (u64, u64) {
    let mut tables = [0_u64; 4];
    // SAFETY: stores ten bytes each into what is there for it.
    unsafe { asm!("sgdt [{0}]", "sidt [{0} + 16]", in(reg) &raw mut tables) };
    (tables[0] & 0xffff, tables[2] & 0xffff)
}

/// Everything that code can see of its state, into [`SEEN`].
fn look() {
    for (index, value) in [
        read!("mov eax, cs"),
        read!("mov eax, ss"),
        read!("mov eax, ds"),
        read!("mov eax, es"),
        read!("mov eax, fs"),
        read!("mov eax, gs"),
        read!("sldt eax"),
        read!("str eax"),
        msr::read(Msr::FS_BASE),
        msr::read(Msr::GS_BASE),
        cpu::cr0(),
        cpu::cr3(),
        cpu::cr4(),
        limits().0,
        limits().1,
        read!("mov rax, gs:[0x10]"),
    ]
    .into_iter()
    .enumerate()
    {
        see(index, value);
    }
}

const NAMES: [&str; 16] = [
    "CS",
    "SS",
    "DS",
    "ES",
    "FS",
    "GS",
    "LDTR",
    "TR",
    "FS base",
    "GS base",
    "CR0",
    "CR3",
    "CR4",
    "GDTR limit",
    "IDTR limit",
    "memory by GS",
];

fn compare(wanted: [u64; 16]) {
    for ((name, seen), wanted) in NAMES.into_iter().zip(&SEEN).zip(wanted) {
        equal(name, seen.load(Ordering::Relaxed), wanted);
    }
}

/// An L2 whose RDMSR and WRMSR do not exit.
fn free(code: fn()) -> L2 {
    let mut l2 = L2::new(code);
    l2.control(|controls| controls.primary |= vmcs::controls::PrimaryBased::USE_MSR_BITMAPS);
    Current.write(MSR_BITMAP, pages::take());
    l2
}

fn loaded() {
    println!("loaded by an entry");
    let mut l2 = free(look);
    let mut current = Current;
    let page = pages::take();
    memory::write(page + 0x10, 0x1234_5678_9abc_def0_u64);
    DS.write(0x33, 0, 0xffff_ffff, 0xc0f3);
    ES.write(0, 0, 0, state::UNUSABLE);
    FS.write(0x28, 0x5555_0000, 0xffff, 0x93);
    GS.write(0x2b, page, 0xf_ffff, 0x40f3);
    LDTR.write(0x58, page, 0xff, 0x82);
    current.write(GUEST_CR0, cpu::cr0() | AM);
    current.write(GUEST_CR3, cpu::cr3() | 0x18);
    current.write(GUEST_CR4, cpu::cr4() | TSD);
    current.write(GUEST_GDTR_LIMIT, 0x7f);
    current.write(GUEST_IDTR_LIMIT, 0xfff);
    println!(" {}", l2.run());
    compare([
        CODE64.into(),
        DATA.into(),
        0x33,
        0,
        0x28,
        0x2b,
        0x58,
        TSS.into(),
        0x5555_0000,
        page,
        cpu::cr0() | AM,
        cpu::cr3() | 0x18,
        cpu::cr4() | TSD,
        0x7f,
        0xfff,
        0x1234_5678_9abc_def0,
    ]);
}

#[repr(C, packed)]
struct Pointer {
    limit: u16,
    base: u64,
}

/// Changes everything and calls.
fn change() {
    let table = Pointer { limit: 0x67, base: &raw const gdt as u64 };
    let stack: u64;
    cpu::write_cr0(cpu::cr0() | TS);
    cpu::write_cr3(cpu::cr3() | 0x18);
    cpu::write_cr4(cpu::cr4() | TSD);
    msr::write(Msr::GS_BASE, 0x7777_0000);
    msr::write(Msr::SYSENTER_CS, 0x77);
    // SAFETY: the tables stay where they are, and the segments are not used; the exit comes with all of it as it is.
    unsafe {
        asm!(
            "lgdt [{table}]",
            "lldt {ldt:x}",
            "mov ds, {null:e}",
            "mov es, {data:e}",
            "mov fs, {data:e}",
            "mov {stack}, rsp",
            "push {flags}",
            "popfq",
            "vmcall",
            "push 2",
            "popfq",
            table = in(reg) &table,
            ldt = in(reg) FREE,
            null = in(reg) 0,
            data = in(reg) u32::from(DATA),
            flags = in(reg) FLAGS | 2,
            stack = out(reg) stack,
            inout("rax") 0x5a7e_u64 => _,
        );
    }
    see(0, stack);
}

fn saved() {
    println!("saved by an exit");
    let mut l2 = free(change);
    // An LDT of 32 bytes, at the GDT's own address; a descriptor of 16 bytes.
    let (descriptor, base) = (&raw const gdt as u64 + FREE, &raw const gdt as u64);
    memory::write(descriptor, 0x1f | (base & 0xff_ffff) << 16 | 0x82 << 40 | (base >> 24 & 0xff) << 56);
    memory::write(descriptor + 8, base >> 32);
    let current = Current;
    println!(" {}", l2.run());
    let rights = |segment: Field<field::W32>| u64::from(current.read(segment));
    equal("DS", current.read(DS.selector).into(), 0);
    equal("DS is unusable", rights(DS.rights) & u64::from(UNUSABLE), UNUSABLE.into());
    for (name, segment) in [("ES", ES), ("FS", FS)] {
        equal(name, current.read(segment.selector).into(), DATA.into());
        equal("base", current.read(segment.base), 0);
        equal("limit", current.read(segment.limit).into(), 0xffff_ffff);
        equal("rights", rights(segment.rights), 0xc093);
    }
    equal("GS base", current.read(GS.base), 0x7777_0000);
    equal("LDTR", current.read(LDTR.selector).into(), FREE);
    equal("base", current.read(LDTR.base), base);
    equal("limit", current.read(LDTR.limit).into(), 0x1f);
    equal("rights", rights(LDTR.rights), 0x82);
    equal("GDTR limit", current.read(GUEST_GDTR_LIMIT).into(), 0x67);
    equal("IDTR limit", current.read(GUEST_IDTR_LIMIT).into(), 0xfff);
    equal("CR0: TS", current.read(GUEST_CR0) & TS, TS);
    equal("CR3", current.read(GUEST_CR3), cpu::cr3() | 0x18);
    equal("CR4: TSD", current.read(GUEST_CR4) & TSD, TSD);
    equal("RFLAGS", current.read(GUEST_RFLAGS), FLAGS | 2);
    equal("SYSENTER_CS", current.read(GUEST_SYSENTER_CS).into(), 0x77);
    let stack = current.read(GUEST_RSP);
    l2.skip();
    println!(" then: {}", l2.run());
    equal("RSP", SEEN[0].load(Ordering::Relaxed), stack);
    memory::write(descriptor, [0_u64; 2]);
}

fn host() {
    println!("loaded by an exit");
    let mut l2 = free(change);
    let (descriptor, base) = (&raw const gdt as u64 + FREE, &raw const gdt as u64);
    memory::write(descriptor, 0x1f | (base & 0xff_ffff) << 16 | 0x82 << 40 | (base >> 24 & 0xff) << 56);
    memory::write(descriptor + 8, base >> 32);
    let mut current = Current;
    let page = pages::take();
    memory::write(page + 0x10, 0x1111_u64);
    let [cr0, cr3, cr4] = [cpu::cr0(), cpu::cr3(), cpu::cr4()];
    current.write(HOST_FS_SELECTOR, DATA);
    current.write(HOST_FS_BASE, 0x3333);
    current.write(HOST_GS_BASE, page);
    current.write(HOST_DS_SELECTOR, 0);
    current.write(HOST_CR4, cr4 | 1 << 7);
    println!(" {}", l2.run());
    look();
    compare([
        CODE64.into(),
        DATA.into(),
        0,
        DATA.into(),
        DATA.into(),
        0,
        0,
        TSS.into(),
        0x3333,
        page,
        cr0,
        cr3,
        cr4 | 1 << 7,
        0xffff,
        0xffff,
        0x1111,
    ]);
    // All of RFLAGS but bit 1 is cleared; arithmetic has been done since.
    let flags: u64;
    // SAFETY: reads the flags.
    unsafe { asm!("pushfq", "pop {}", out(reg) flags) };
    equal("interrupts, direction, trap, alignment check", flags & (1 << 8 | 1 << 9 | 1 << 10 | 1 << 18), 0);
    equal("SYSENTER_CS", msr::read(Msr::SYSENTER_CS), 0);
    cpu::write_cr4(cr4);
    memory::write(descriptor, [0_u64; 2]);
    // SAFETY: what every guest starts with.
    unsafe { asm!("mov ds, {0:e}", "mov fs, {1:e}", in(reg) u32::from(DATA), in(reg) 0) };
    msr::write(Msr::GS_BASE, 0);
}
