//! L2's memory for the emulator: through L1's tables, page by page.

#[path = "support/l1.rs"]
mod l1;

use std::cell::Cell;

use arch::{GuestMemory, GuestPhys, L2Phys, OutsideMemory};
use ept::{Access, Denied, Ept12, L2Memory, ModificationLog, PageSize, Permissions, Rules, Violation};
use l1::L1;

const RULES: Rules =
    Rules { execute_only: true, mode_based_execute: false, largest: PageSize::Size1G, physical_width: 46 };
/// Tables at 0x4000 with accessed and dirty flags.
const EPTP: u64 = 0x405e;
const A: u64 = 1 << 8;
const D: u64 = 1 << 9;

/// What the entries of the page table at 0x1000 map: two pages out of order, one that is read-only, one that is
/// execute-only, a device, a broken one, and from there on nothing.
const PAGES: [u64; 6] = [0x9037, 0x8037, 0xa031, 0xb034, 0xfee0_0007, 0xc032];

fn l1() -> L1 {
    let l1 = L1::new();
    [(0x4000, 0x3007), (0x3000, 0x2007), (0x2000, 0x1007)].iter().for_each(|&(at, entry)| l1.set_word(at, entry));
    (0..).zip(PAGES).for_each(|(n, entry)| l1.set_word(0x1000 + 8 * n, entry));
    l1
}

/// Works on L2's memory; returns its result, and what L1 must be told.
fn with<R>(l1: &L1, read: Access, work: impl FnOnce(&L2Memory<'_, L1>) -> R) -> (R, Option<(L2Phys, Denied)>) {
    let ept12 = Ept12::new(EPTP, RULES);
    let denied = Cell::new(None);
    let result = work(&L2Memory::new(l1, &ept12, None, read, &denied));
    (result, denied.get())
}

fn flags(l1: &L1, page: u64) -> u64 {
    l1.word(0x1000 + 8 * page) & (A | D)
}

fn violation(at: u64, needed: Permissions, permitted: Permissions) -> Option<(L2Phys, Denied)> {
    Some((L2Phys(at), Denied::Violation(Violation { needed, permitted })))
}

/// An access across two pages reaches both of them, wherever L1 has them, and marks each.
#[test]
fn accesses_across_pages() {
    let l1 = l1();
    let across = GuestPhys(0xffc);
    let (written, denied) = with(&l1, Access::READ, |memory| memory.write(across, &[1, 2, 3, 4, 5, 6, 7, 8]));
    assert_eq!((written, denied), (Ok(()), None));
    assert_eq!((l1.word(0x9ff8), l1.word(0x8000)), (0x0403_0201_0000_0000, 0x0807_0605));
    assert_eq!((flags(&l1, 0), flags(&l1, 1)), (A | D, A | D));

    let mut bytes = [0; 8];
    l1.set_word(0xa000, 0x99);
    let (read, denied) = with(&l1, Access::READ, |memory| memory.read(GuestPhys(0x1ffc), &mut bytes));
    assert_eq!((read, denied, bytes), (Ok(()), None, [0, 0, 0, 0, 0x99, 0, 0, 0]));
    assert_eq!(flags(&l1, 2), A);
}

/// An exchange needs both permissions, and is a write even if it does not take place.
#[test]
fn exchanges() {
    let l1 = l1();
    l1.set_word(0x9010, 5);
    let exchange = |at, current| with(&l1, Access::READ, |memory| memory.compare_exchange(GuestPhys(at), current, 6));
    assert_eq!(exchange(0x10, 4), (Ok(false), None));
    assert_eq!((l1.word(0x9010), flags(&l1, 0)), (5, A | D));
    assert_eq!(exchange(0x10, 5), (Ok(true), None));
    assert_eq!(l1.word(0x9010), 6);
    let both = Permissions::READ | Permissions::WRITE;
    assert_eq!(exchange(0x2010, 0), (Err(OutsideMemory), violation(0x2010, both, Permissions::READ)));
}

/// What L1's tables do not allow is L1's exit, with the address of the page that is at fault; of a write across pages
/// then nothing is done, and nothing more is after it.
#[test]
fn denials() {
    let write = |at: u64| {
        let l1 = l1();
        l1.set_word(0x8ff8, 7);
        let outcome = with(&l1, Access::READ, |memory| {
            let first = memory.write(GuestPhys(at), &[0xff; 8]);
            assert_eq!(first.and(memory.write(GuestPhys(0), &[0xff])), first, "the first denial counts");
            first
        });
        assert_eq!((l1.word(0x8ff8), l1.word(0x9000)), (7, 0));
        outcome
    };
    let (read, w, x) = (Permissions::READ, Permissions::WRITE, Permissions::EXECUTE);
    assert_eq!(write(0x1ffc), (Err(OutsideMemory), violation(0x2000, w, read)));
    assert_eq!(write(0x3000), (Err(OutsideMemory), violation(0x3000, w, x)));
    assert_eq!(write(0x5008), (Err(OutsideMemory), Some((L2Phys(0x5008), Denied::Misconfiguration))));
    assert_eq!(write(0x6000), (Err(OutsideMemory), violation(0x6000, w, Permissions::empty())));
    assert_eq!(write(u64::MAX - 3), (Err(OutsideMemory), violation(u64::MAX - 3, w, Permissions::empty())));
}

/// Where L1 has no RAM it is no matter of permissions: L1's device may answer. A write that begins in RAM is not begun.
#[test]
fn device_memory() {
    let l1 = l1();
    let mut byte = [0];
    assert_eq!(with(&l1, Access::READ, |memory| memory.read(GuestPhys(0x4000), &mut byte)), (Err(OutsideMemory), None));
    l1.set_word(0x1000 + 8 * 3, 0xb037);
    let across = with(&l1, Access::READ, |memory| memory.write(GuestPhys(0x3ffc), &[0xff; 8]));
    assert_eq!((across, l1.word(0xbff8)), ((Err(OutsideMemory), None), 0));
}

/// Instructions are read where L1 allows to fetch them, operands where it allows to read; the entries of L2's paging
/// structures are written to by reading them.
#[test]
fn kinds_of_reads() {
    for (at, kind, expected) in [
        (0x3000, Access::fetch(true), None),
        (0x3000, Access::READ, violation(0x3000, Permissions::READ, Permissions::EXECUTE)),
        (0x2000, Access::fetch(false), violation(0x2000, Permissions::EXECUTE, Permissions::READ)),
        (0x2000, Access::READ, None),
        (0x0000, Access::PAGING_STRUCTURE, None),
        (
            0x2000,
            Access::PAGING_STRUCTURE,
            violation(0x2000, Permissions::READ | Permissions::WRITE, Permissions::READ),
        ),
    ] {
        let l1 = l1();
        let (result, denied) = with(&l1, kind, |memory| memory.read_u64(GuestPhys(at)));
        assert_eq!((result.is_err(), denied), (expected.is_some(), expected), "{at:#x} {kind:?}");
        assert_eq!(flags(&l1, 0), if at == 0 { A | D } else { 0 });
    }
}

/// L0's writes for L2 are in L1's log like L2's own, and stop where it is full.
#[test]
fn writes_are_logged() {
    let l1 = l1();
    let ept12 = Ept12::new(EPTP, RULES);
    let (log, denied) = (ModificationLog::new(GuestPhys(0x6000), 0), Cell::new(None));
    let memory = L2Memory::new(&l1, &ept12, Some(&log), Access::READ, &denied);
    l1.set_word(0x6000, !0);
    memory.write(GuestPhys(0x123), &[1]).unwrap();
    assert_eq!((l1.word(0x6000), log.index()), (0, 0xffff));
    assert_eq!(memory.write(GuestPhys(0x1000), &[1]), Err(OutsideMemory));
    assert_eq!(denied.get(), Some((L2Phys(0x1000), Denied::LogFull)));
}
