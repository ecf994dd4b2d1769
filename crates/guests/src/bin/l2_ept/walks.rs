//! The guest's own page tables behind EPT, and events whose delivery meets a violation: SDM 3C 28.2.1 "Basic VM-Exit
//! Information", table of EPT violations' qualification.

use guests::vmx::ept::{ALL, READ, WRITE_BACK};
use guests::vmx::{Current, L2, equal, pages};
use guests::{cpu, interrupts, memory, println};
use vmcs::Access;
use vmcs::fields::{
    EPT_POINTER, GUEST_CR3, GUEST_PHYSICAL_ADDRESS, GUEST_RFLAGS, IDT_VECTORING_INFO, VM_ENTRY_INSTRUCTION_LEN,
    VM_ENTRY_INTERRUPTION_INFO,
};

use crate::{PAGE, flush, once, read, with_ept};

/// EPTP bit 6: accessed and dirty flags.
pub(crate) const ACCESSED_DIRTY: u64 = 1 << 6;

/// Gives L2 a level-4 table of its own, a copy of L1's, whose entries have not been accessed yet.
fn own_table() -> u64 {
    let table = pages::take();
    for offset in (0..4096).step_by(8) {
        memory::write(table + offset, memory::read::<u64>(cpu::cr3() + offset) & !0x20);
    }
    Current.write(GUEST_CR3, table);
    table
}

fn attempt(l2: &mut L2, what: &str, table: u64) {
    l2.restart(read);
    let report = l2.run();
    println!(" {what}: {report}");
    if !report.is_done() {
        equal("the table's entry", Current.read(GUEST_PHYSICAL_ADDRESS) & !0xfff, table);
    }
}

pub(crate) fn all() {
    println!("L2's page tables");
    let (mut l2, tables) = with_ept();
    let table = own_table();
    let entry = tables.entry(table, 1);
    let permit = |l2: &mut L2, what: &str, bits: u64| {
        memory::write(entry, table | bits | WRITE_BACK);
        flush();
        attempt(l2, what, table);
    };
    permit(&mut l2, "nothing", 0);
    permit(&mut l2, "all", ALL);
    equal("accessed", memory::read::<u64>(table) & 0x20, 0x20);
    permit(&mut l2, "read, accessed", READ);
    Current.write(EPT_POINTER, tables.pointer() | ACCESSED_DIRTY);
    permit(&mut l2, "all, with EPT's own flags", ALL);
    equal("accessed and dirty in EPT", memory::read::<u64>(entry) & 0x300, 0x300);
    delivery();
    ports();
}

/// What a string instruction sends to a port is L2's, not what L1 has at that address.
fn ports() {
    println!("OUTSB from a page that is another one of L1's");
    let (mut l2, tables) = with_ept();
    let other = PAGE + 4096;
    let entry = tables.entry(PAGE, 1);
    memory::write(PAGE, 0xc3_u64);
    memory::write(other, u64::from_le_bytes(*b" of L2\r\n"));
    for (what, value) in [("there", other | ALL | WRITE_BACK), ("not there", 0)] {
        memory::write(entry, value);
        flush();
        once(&mut l2, what, || {
            // SAFETY: COM1 is ours, which the BIOS or the console made ready; 8 bytes fit into its buffer.
            unsafe {
                core::arch::asm!("rep outsb", in("dx") 0x3f8_u16, inout("rsi") PAGE => _, inout("rcx") 8_u64 => _);
            };
        });
    }
    memory::write(entry, PAGE | ALL | WRITE_BACK);
    flush();
}

/// An event whose frame cannot be pushed.
fn delivery() {
    println!("an event is delivered to a stack that is not there");
    let (mut l2, tables) = with_ept();
    let mut current = Current;
    let stack = l2.stack - 4096;
    let entry = tables.entry(stack, 1);
    interrupts::handle(0x50, |frame| println!("  L2 takes vector {}", frame.vector));
    for (what, info, length) in
        [("external interrupt", 0x8000_0050_u32, 0), ("INT 50", 0x8000_0450, 2), ("#UD", 0x8000_0306, 0)]
    {
        memory::write(entry, 0_u64);
        flush();
        l2.restart(|| {});
        current.write(GUEST_RFLAGS, 0x202);
        current.write(VM_ENTRY_INTERRUPTION_INFO, info);
        current.write(VM_ENTRY_INSTRUCTION_LEN, length);
        println!(" {what}: {}", l2.run());
        equal("physical address", current.read(GUEST_PHYSICAL_ADDRESS) & !0xfff, stack);
        if what == "#UD" {
            break;
        }
        // Given back, it is delivered at last.
        memory::write(entry, stack | ALL | WRITE_BACK);
        current.write(VM_ENTRY_INTERRUPTION_INFO, current.read(IDT_VECTORING_INFO) & !0x7fff_f000);
        println!(" {what}, again: {}", l2.run());
    }
    interrupts::forget(0x50);
}
