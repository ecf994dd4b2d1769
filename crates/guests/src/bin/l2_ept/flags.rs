//! Accessed and dirty flags, page-modification log, execution by mode: SDM 3C 29.3.5 "Accessed and Dirty Flags for EPT", 29.3.6
//! "Page-Modification Logging", 29.3.3.2 "EPT Violations".

use guests::vmx::ept::{EXECUTE, READ, WRITE, WRITE_BACK};
use guests::vmx::{Current, equal, pages};
use guests::{memory, println};
use vmcs::Access;
use vmcs::controls::SecondaryBased;
use vmcs::fields::{EPT_POINTER, GUEST_PML_INDEX, PML_ADDRESS};

use crate::walks::ACCESSED_DIRTY;
use crate::{PAGE, execute, flush, once, read, with_ept, write};

const ACCESSED: u64 = 1 << 8;
const DIRTY: u64 = 1 << 9;

pub(crate) fn all() {
    println!("accessed and dirty flags");
    let (mut l2, tables) = with_ept();
    let entry = tables.entry(PAGE, 1);
    let flags = || memory::read::<u64>(entry) & (ACCESSED | DIRTY);
    once(&mut l2, "write, without flags", write);
    equal("neither", flags(), 0);
    Current.write(EPT_POINTER, tables.pointer() | ACCESSED_DIRTY);
    flush();
    once(&mut l2, "read", read);
    equal("accessed", flags(), ACCESSED);
    equal("accessed one level above", memory::read::<u64>(tables.entry(PAGE, 2)) & (ACCESSED | DIRTY), ACCESSED);
    once(&mut l2, "write", write);
    equal("and dirty", flags(), ACCESSED | DIRTY);
    memory::write(entry, memory::read::<u64>(entry) & !(ACCESSED | DIRTY));
    flush();
    once(&mut l2, "execute", execute);
    equal("accessed", flags(), ACCESSED);
    modification_log();
    execution_by_mode();
}

fn modification_log() {
    println!("page-modification log");
    let (mut l2, tables) = with_ept();
    if !l2.control(|controls| controls.secondary |= SecondaryBased::ENABLE_PML) {
        println!(" not offered");
        return;
    }
    let mut current = Current;
    let log = pages::take();
    current.write(EPT_POINTER, tables.pointer() | ACCESSED_DIRTY);
    current.write(PML_ADDRESS, log);
    // What L2 needs itself becomes dirty first.
    current.write(GUEST_PML_INDEX, 511);
    let code = || {
        for page in 0..3 {
            memory::write_register(PAGE + 4096 * page, 0xc3);
        }
    };
    for page in 0..3 {
        let entry = tables.entry(PAGE + 4096 * page, 1);
        memory::write(entry, memory::read::<u64>(entry) & !(ACCESSED | DIRTY));
    }
    l2.restart(code);
    println!(" three pages are written: {}", l2.run());
    let index = u64::from(current.read(GUEST_PML_INDEX));
    for page in 0..3 {
        let is_logged = (index + 1..512).any(|slot| memory::read::<u64>(log + 8 * slot) == PAGE + 4096 * page);
        equal("logged", u64::from(is_logged), 1);
    }
    // All that L2 needs is dirty by now.
    let clean = || {
        for page in 0..3 {
            let entry = tables.entry(PAGE + 4096 * page, 1);
            memory::write(entry, memory::read::<u64>(entry) & !DIRTY);
        }
        flush();
    };
    clean();
    current.write(GUEST_PML_INDEX, 100);
    l2.restart(code);
    println!(" again: {}", l2.run());
    equal("index", current.read(GUEST_PML_INDEX).into(), 97);
    equal("the first", memory::read(log + 800), PAGE);
    equal("the second", memory::read(log + 792), PAGE + 4096);
    equal("the third", memory::read(log + 784), PAGE + 8192);
    l2.restart(code);
    println!(" again, dirty already: {}", l2.run());
    equal("index", current.read(GUEST_PML_INDEX).into(), 97);
    clean();
    current.write(GUEST_PML_INDEX, 1);
    l2.restart(code);
    println!(" room for two: {}", l2.run());
    equal("index", current.read(GUEST_PML_INDEX).into(), 0xffff);
    equal("the third is not dirty", memory::read::<u64>(tables.entry(PAGE + 8192, 1)) & DIRTY, 0);
    current.write(GUEST_PML_INDEX, 511);
    println!(" emptied: {}", l2.run());
    equal("index", current.read(GUEST_PML_INDEX).into(), 510);
}

fn execution_by_mode() {
    /// Execute, for user-mode addresses.
    const USER_EXECUTE: u64 = 1 << 10;
    println!("execution by mode");
    let (mut l2, tables) = with_ept();
    // All upper levels and all other pages: both kinds.
    for address in 0..2048_u64 {
        let entry = tables.entry(address << 21, 2);
        memory::write(entry, memory::read::<u64>(entry) | USER_EXECUTE);
    }
    for gib in 0..4_u64 {
        let entry = tables.entry(gib << 30, 3);
        memory::write(entry, memory::read::<u64>(entry) | USER_EXECUTE);
    }
    memory::write(tables.root, memory::read::<u64>(tables.root) | USER_EXECUTE);
    let entry = tables.entry(PAGE, 1);
    memory::write(tables.entry(PAGE, 2), memory::read::<u64>(tables.entry(PAGE, 2)) | USER_EXECUTE);
    memory::write(entry, PAGE | READ | WRITE | USER_EXECUTE | WRITE_BACK);
    flush();
    once(&mut l2, "control off, bit 10 only", execute);
    if !l2.control(|controls| controls.secondary |= SecondaryBased::MODE_BASED_EXECUTE_CONTROL_FOR_EPT) {
        println!(" not offered");
        return;
    }
    flush();
    once(&mut l2, "for user mode only", execute);
    once(&mut l2, "read", read);
    memory::write(entry, PAGE | READ | WRITE | EXECUTE | WRITE_BACK);
    flush();
    once(&mut l2, "for supervisor mode only", execute);
}
