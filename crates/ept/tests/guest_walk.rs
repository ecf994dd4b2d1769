//! L1's tables: what an access finds, which flags it leaves, what L1 is told.

#[path = "support/l1.rs"]
mod l1;

use arch::{GuestPhys, L2Phys};
use ept::{Access, Denied, Ept12, MemoryType, ModificationLog, PageSize, Permissions, Rules, Translation, Violation};
use l1::L1;

const READ: Permissions = Permissions::READ;
const WRITE: Permissions = Permissions::WRITE;
const EXECUTE: Permissions = Permissions::EXECUTE;
const USER: Permissions = Permissions::EXECUTE_USER;
const NONE: Permissions = Permissions::empty();

const RULES: Rules =
    Rules { execute_only: true, mode_based_execute: false, largest: PageSize::Size1G, physical_width: 46 };
const MODES: Rules = Rules { mode_based_execute: true, ..RULES };

/// Accessed and dirty, bits 8 and 9: SDM 3C, table "Format of an EPT Page-Table Entry that Maps a 4-KByte Page".
const A: u64 = 1 << 8;
const D: u64 = 1 << 9;
/// EPTPs of tables at 0x4000: write-back, four levels, without and with accessed and dirty flags (SDM 3C, table "Format
/// of Extended-Page-Table Pointer").
const PLAIN: u64 = 0x401e;
const FLAGS: u64 = 0x405e;

/// Where L2's page 0 is, and the entries that map it: level N's is the first of the table at N << 12. All permit
/// everything; the leaf is write-back.
const PAGE: u64 = 0x9000;
const ENTRIES: [(u64, u64); 4] = [(0x4000, 0x3407), (0x3000, 0x2407), (0x2000, 0x1407), (0x1000, PAGE | 0x437)];

/// An L1 with those tables.
fn l1() -> L1 {
    let l1 = L1::new();
    ENTRIES.iter().for_each(|&(at, entry)| l1.set_word(at, entry));
    l1
}

/// The flags in the entries of levels 4 to 1.
fn flags(l1: &L1) -> [u64; 4] {
    ENTRIES.map(|(at, _)| l1.word(at) & (A | D))
}

fn access(l1: &L1, eptp: u64, rules: Rules, access: Access) -> Result<Translation, Denied> {
    Ept12::new(eptp, rules).translate(l1, None, L2Phys(0x123), access)
}

fn violation(needed: Permissions, permitted: Permissions) -> Result<Translation, Denied> {
    Err(Denied::Violation(Violation { needed, permitted }))
}

/// SDM 3C, 29.3.5 "Accessed and Dirty Flags for EPT": every entry used is accessed, the one of the page dirty if the
/// access writes; an access to a paging structure counts as a write. Without EPTP bit 6 nothing is marked.
#[test]
fn flags_that_an_access_leaves() {
    for (eptp, kind, expected) in [
        (FLAGS, Access::READ, [A, A, A, A]),
        (FLAGS, Access::fetch(false), [A, A, A, A]),
        (FLAGS, Access::WRITE, [A, A, A, A | D]),
        (FLAGS, Access::PAGING_STRUCTURE, [A, A, A, A | D]),
        (PLAIN, Access::READ, [0; 4]),
        (PLAIN, Access::WRITE, [0; 4]),
        (PLAIN, Access::PAGING_STRUCTURE, [0; 4]),
    ] {
        let l1 = l1();
        let found = access(&l1, eptp, RULES, kind).unwrap();
        assert_eq!((found.address, found.size), (GuestPhys(PAGE + 0x123), PageSize::Size4K));
        assert_eq!(found.memory_type, MemoryType::WriteBack);
        assert_eq!(flags(&l1), expected, "{eptp:#x} {kind:?}");
        // With flags in use, a page that is not dirty must be asked for again before a write.
        let writable = eptp == PLAIN || expected[3] & D != 0;
        assert_eq!(found.permissions.contains(WRITE), writable, "{eptp:#x} {kind:?}");
        // The rest of each entry is as L1 wrote it, and a second access finds nothing left to do.
        ENTRIES.iter().for_each(|&(at, entry)| assert_eq!(l1.word(at) & !(A | D), entry));
        access(&l1, eptp, RULES, kind).unwrap();
        assert_eq!(flags(&l1), expected);
    }
}

/// A page that was dirty before may be written though this access only reads.
#[test]
fn dirty_pages_are_writable() {
    let l1 = l1();
    l1.set_word(0x1000, PAGE | 0x37 | D);
    assert!(access(&l1, FLAGS, RULES, Access::READ).unwrap().permissions.contains(WRITE));
    // Nor does the flag give what L1 does not.
    l1.set_word(0x1000, PAGE | 0x35 | D);
    assert_eq!(access(&l1, FLAGS, RULES, Access::READ).unwrap().permissions, READ | EXECUTE | USER);
}

/// SDM 3C, 29.3.3.2 "EPT Violations", and table "Exit Qualification for EPT Violations": for the permission bits of one
/// entry, at each level, what an access needs, whether it is a violation, and bits 6:0 of its qualification.
#[test]
fn violations() {
    let write = Access::WRITE;
    let structure = Access::PAGING_STRUCTURE;
    let (supervisor, user) = (Access::fetch(false), Access::fetch(true));
    for (eptp, rules, bits, kind, expected) in [
        (PLAIN, RULES, 0b000, Access::READ, Some(0b0_000_001)),
        (PLAIN, RULES, 0b101, Access::READ, None),
        (PLAIN, RULES, 0b101, write, Some(0b0_101_010)),
        (PLAIN, RULES, 0b001, supervisor, Some(0b0_001_100)),
        (PLAIN, RULES, 0b011, user, Some(0b0_011_100)),
        (PLAIN, RULES, 0b101, user, None),
        // Execute-only.
        (PLAIN, RULES, 0b100, supervisor, None),
        (PLAIN, RULES, 0b100, Access::READ, Some(0b0_100_001)),
        // Paging structures are written to with accessed and dirty flags, and read without.
        (PLAIN, RULES, 0b101, structure, None),
        (FLAGS, RULES, 0b101, structure, Some(0b0_101_011)),
        (FLAGS, RULES, 0b101, Access::READ, None),
        // Bit 10 counts under mode-based execute control only.
        (PLAIN, RULES, 1 << 10 | 0b001, user, Some(0b0_001_100)),
        (PLAIN, MODES, 1 << 10 | 0b001, user, None),
        (PLAIN, MODES, 1 << 10 | 0b001, supervisor, Some(0b1_001_100)),
        (PLAIN, MODES, 0b101, supervisor, None),
        (PLAIN, MODES, 0b101, user, Some(0b0_101_100)),
        (PLAIN, MODES, 1 << 10, user, None),
        (PLAIN, MODES, 1 << 10, Access::READ, Some(0b1_000_001)),
    ] {
        for (at, entry) in ENTRIES {
            let l1 = l1();
            l1.set_word(at, entry & !0x407 | bits);
            let qualification = match access(&l1, eptp, rules, kind) {
                Ok(_) => None,
                Err(Denied::Violation(violation)) => Some(violation.qualification()),
                Err(other) => panic!("{other:?}"),
            };
            assert_eq!(qualification, expected, "{eptp:#x} {rules:?} {bits:#x} {kind:?} at {at:#x}");
            assert!(qualification.is_none() || flags(&l1) == [0; 4], "flags after a violation");
        }
    }
}

/// An entry below one that permits less: all of them count.
#[test]
fn permissions_of_all_levels_count() {
    let l1 = l1();
    l1.set_word(0x4000, 0x3005);
    l1.set_word(0x1000, PAGE | 0x33);
    assert_eq!(access(&l1, PLAIN, RULES, Access::WRITE), violation(WRITE, READ));
    assert_eq!(access(&l1, PLAIN, RULES, Access::READ).unwrap().permissions, READ);
    // A read-only table of L2's, whose entry the processor would mark.
    let mark = Access { needs: WRITE, to_paging_structure: true };
    assert_eq!(access(&l1, PLAIN, RULES, mark), violation(WRITE, READ));
}

/// A four-level walk has 48 bits; beyond them nothing is mapped.
#[test]
fn beyond_the_width() {
    let l1 = l1();
    for at in [1 << 48, u64::MAX] {
        let found = Ept12::new(PLAIN, RULES).translate(&l1, None, L2Phys(at), Access::READ);
        assert_eq!(found, violation(READ, NONE), "{at:#x}");
    }
}

/// A broken entry is a misconfiguration whatever the access needs, and leaves no flags. The rules have their rows in
/// `misconfigurations.rs`. A table where L1 has no memory reads as all ones, which breaks several.
#[test]
fn misconfigurations() {
    for (at, entry) in [
        (0x1000, PAGE | 0x32),
        (0x1000, PAGE | 0x17),
        (0x2000, 0x1082),
        (0x3000, 0x2007 | 1 << 46),
        (0x4000, 0x3087),
        (0x2000, 0xd_0007),
        (0x4000, 0x8000_0007),
        (0x2000, 0xa_0007),
    ] {
        let l1 = l1();
        l1.set_word(at, entry);
        assert_eq!(access(&l1, FLAGS, RULES, Access::READ), Err(Denied::Misconfiguration), "{entry:#x}");
        assert_eq!(flags(&l1)[..3], [0; 3], "{entry:#x}");
    }
    let root_outside = access(&l1(), 0x8000_001e, RULES, Access::READ);
    assert_eq!(root_outside, Err(Denied::Misconfiguration));
}

/// One table that is its own child at every level and maps itself as L2's page 0: its first entry is all four, so that
/// each flag set makes the next compare-exchange fail, and yet the walk ends.
#[test]
fn a_table_that_refers_to_itself() {
    let l1 = L1::new();
    l1.set_word(0x4000, 0x4007);
    let found = access(&l1, FLAGS, RULES, Access::WRITE).unwrap();
    assert_eq!((found.address, found.memory_type), (GuestPhys(0x4123), MemoryType::Uncacheable));
    assert_eq!(l1.word(0x4000), 0x4007 | A | D);
}

/// Another vCPU takes the write permission away between the walk's reading and its marking: the walk sees it, and what
/// that vCPU wrote is not undone.
#[test]
fn an_entry_that_changes_under_the_walk() {
    let l1 = l1();
    l1.set_word(0x4000, 0x3407 | A);
    l1.set_word(0x3000, 0x2407 | A);
    l1.set_word(0x2000, 0x1407 | A);
    l1.interference.set((1, |entry| entry & !2));
    assert_eq!(access(&l1, FLAGS, RULES, Access::WRITE), violation(WRITE, READ | EXECUTE));
    assert_eq!(l1.word(0x1000), PAGE | 0x435);
}

/// One that changes at every look does not hold L0: L1 gets a violation, as if the entry had been absent.
#[test]
fn an_entry_that_never_stays() {
    let l1 = l1();
    l1.interference.set((u32::MAX, |entry| entry ^ 1 << 52));
    assert_eq!(access(&l1, FLAGS, RULES, Access::READ), violation(READ, NONE));
}

/// A write with the log at `index`: its result, the index after it, and the leaf's flags.
fn logged(l1: &L1, index: u16, kind: Access) -> (bool, u16, u64) {
    let log = ModificationLog::new(GuestPhys(0x6000), index);
    let found = Ept12::new(FLAGS, RULES).translate(l1, Some(&log), L2Phys(0x123), kind);
    assert!(found.is_ok() || found == Err(Denied::LogFull));
    (found.is_ok(), log.index(), flags(l1)[3])
}

/// SDM 3C, 29.3.6 "Page-Modification Logging": a dirty flag that becomes 1 is logged by the page's address, counting
/// down from index 511 to 0 and on to 0xffff; an index beyond 511 is an exit before any flag is set, be it the accessed
/// flag; where no flag is to be set the index does not matter.
#[test]
fn page_modification_log() {
    for (index, after) in [(511, 510), (1, 0), (0, 0xffff)] {
        let l1 = l1();
        l1.set_word(0x6000 + 8 * u64::from(index), !0);
        assert_eq!(logged(&l1, index, Access::WRITE), (true, after, A | D));
        assert_eq!(l1.word(0x6000 + 8 * u64::from(index)), 0);
        assert_eq!(logged(&l1, after, Access::WRITE), (true, after, A | D), "it is dirty already");
    }
    for index in [512, 0xffff] {
        let l1 = l1();
        for kind in [Access::WRITE, Access::READ, Access::PAGING_STRUCTURE] {
            assert_eq!(logged(&l1, index, kind), (false, index, 0));
            assert_eq!(flags(&l1), [0; 4]);
        }
    }
    let l1 = l1();
    assert_eq!(logged(&l1, 7, Access::READ), (true, 7, A), "a read makes nothing dirty");
    assert_eq!(logged(&l1, 7, Access::PAGING_STRUCTURE), (true, 6, A | D));
}

/// The address logged is that of the 4-KiB page within a large page; a log outside of L1's RAM is written to nowhere.
#[test]
fn page_modification_log_of_a_large_page() {
    let l1 = l1();
    l1.set_word(0x2000, 0x4000_00b7 - 0x2000_0000);
    let log = ModificationLog::new(GuestPhys(0x6000), 5);
    let at = L2Phys(0x12_3456);
    let found = Ept12::new(FLAGS, RULES).translate(&l1, Some(&log), at, Access::WRITE).unwrap();
    assert_eq!((found.address, found.size), (GuestPhys(0x2012_3456), PageSize::Size2M));
    assert_eq!((l1.word(0x6028), log.index()), (0x12_3000, 4));

    let nowhere = ModificationLog::new(GuestPhys(0xc_0000), 5);
    l1.set_word(0x2000, 0x2000_00b7);
    Ept12::new(FLAGS, RULES).translate(&l1, Some(&nowhere), at, Access::WRITE).unwrap();
    assert_eq!(nowhere.index(), 4);
}
