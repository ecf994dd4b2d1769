//! What is mapped where, by pages of each size.

use core::sync::atomic::{AtomicU64, Ordering};
use guests::vmx::ept::{ALL, LARGE, WRITE_BACK};
use guests::vmx::{L2, equal, instructions};
use guests::{memory, println};

use crate::{PAGE, flush, with_ept};

/// What L2 read.
static READ: AtomicU64 = AtomicU64::new(0);
/// Memory that is mapped in the place of another.
const OTHER: u64 = PAGE + (2 << 20);

fn look(l2: &mut L2, what: &str, wanted: u64) {
    l2.restart(|| READ.store(memory::read_register(PAGE).into(), Ordering::Relaxed));
    println!(" {what}: {}", l2.run());
    equal("read", READ.load(Ordering::Relaxed), wanted);
}

pub(crate) fn all() {
    println!("translation");
    let (mut l2, tables) = with_ept();
    let [here, there] = [0x1111_u32, 0x2222];
    let saved: u64 = memory::read(PAGE);
    memory::write(PAGE, here);
    memory::write(OTHER, there);
    look(&mut l2, "itself", here.into());
    let directory = tables.entry(PAGE, 2);
    memory::write(directory, OTHER | ALL | WRITE_BACK | LARGE);
    flush();
    look(&mut l2, "another page of 2 MiB", there.into());
    memory::write(directory, PAGE | ALL | WRITE_BACK | LARGE);
    flush();
    let entry = tables.entry(PAGE, 1);
    look(&mut l2, "itself, by 4 KiB", here.into());
    memory::write(entry, OTHER | ALL | WRITE_BACK);
    // What was cached by this EPTP is forgotten by its own INVEPT.
    let single = instructions::invept(1, [tables.pointer(), 0]);
    equal("INVEPT of one", u64::from(single.is_ok()), 1);
    look(&mut l2, "another page of 4 KiB", there.into());
    // Two addresses, one page.
    l2.restart(|| memory::write_register(PAGE, 0x3333));
    println!(" L2 writes there: {}", l2.run());
    equal("L1 sees it", memory::read::<u32>(OTHER).into(), 0x3333);
    equal("and not here", memory::read::<u32>(PAGE).into(), here.into());
    memory::write(PAGE, saved);
    memory::write(OTHER, 0_u64);
}
