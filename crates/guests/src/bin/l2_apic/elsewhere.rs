//! Pages of L2's APIC where they should not be. SDM 3C 27.2.1.1 "VM-Execution Control Fields" says which an entry refuses; all others
//! the processor uses as they are, and finds ones where nothing is.

use arch::apic::{DEFAULT_BASE, Register};
use guests::vmx::Current;
use guests::{apic, cpu, memory, println};
use vmcs::Access;
use vmcs::controls::{PrimaryBased, SecondaryBased};
use vmcs::fields::{APIC_ACCESS_ADDR, VIRTUAL_APIC_PAGE_ADDR};

use crate::{Guest, at};

/// Nothing of this machine is here, nor further up; less than any guest's hypervisor would hide in.
const NOTHING: u64 = 0xb000_0000;

pub(crate) fn all() {
    println!("pages elsewhere");
    let Some(mut guest) = Guest::new(SecondaryBased::VIRTUALIZE_APIC_ACCESSES) else { return };
    let mut current = Current;
    let access = current.read(APIC_ACCESS_ADDR);
    for (what, field, good) in
        [("virtual-APIC page", VIRTUAL_APIC_PAGE_ADDR, guest.apic.page), ("APIC-access page", APIC_ACCESS_ADDR, access)]
    {
        for at in [good | 1, good | 0x800, 1 << 52, 1 << 63] {
            current.write(field, at);
            guest.l2.restart(|| {});
            println!(" {what}, {}: {}", if at >> 52 == 0 { "not aligned" } else { "too far" }, guest.l2.run());
        }
        current.write(field, NOTHING);
        guest.run("where nothing is", || println!("  L2 reads CR8 {:x}", cpu::cr8()));
        current.write(field, good);
    }
    // One page for both: what is virtualized is there.
    guest.apic.write(Register::TPR, 0x5a);
    current.write(APIC_ACCESS_ADDR, guest.apic.page);
    current.write(VIRTUAL_APIC_PAGE_ADDR, access);
    guest.run("exchanged", || println!("  L2 reads CR8 {:x}", cpu::cr8()));
    current.write(APIC_ACCESS_ADDR, access);
    memory::write_register(access + 0x80, 0x6b);
    guest.run("the same page", || {
        println!("  L2 reads {:x}", memory::read_register(at(Register::TPR)));
        cpu::write_cr8(3);
        println!("  L2 reads {:x}", memory::read_register(at(Register::TPR)));
    });
    over_the_apic_of_l1();
}

/// The page is that of L1's own APIC: L2 must not reach it.
fn over_the_apic_of_l1() {
    println!("the APIC-access page is L1's own APIC");
    let guest = Guest::with(|controls| {
        controls.primary -= PrimaryBased::USE_TPR_SHADOW;
        controls.secondary |= SecondaryBased::VIRTUALIZE_APIC_ACCESSES;
    });
    let Some(mut guest) = guest else { return };
    Current.write(APIC_ACCESS_ADDR, DEFAULT_BASE);
    for ept in [true, false] {
        guest.l2.control(|controls| controls.secondary.set(SecondaryBased::ENABLE_EPT, ept));
        println!(" {} EPT", if ept { "with" } else { "without" });
        guest.run("load of the id", || _ = memory::read_register(DEFAULT_BASE + 0x20));
        guest.run("store to the task priority", || memory::write_register(DEFAULT_BASE + 0x80, 0x30));
        guest.run("store of a command", || memory::write_register(DEFAULT_BASE + 0x300, 0x4_4061));
        println!("  L1's task priority {:x}, requested {}", cpu::cr8(), apic::bit(Register::IRR, 0x61));
    }
}
