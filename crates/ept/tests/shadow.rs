//! EPT02: what a violation makes of it, what INVEPT takes away, and how it does with few frames.

#[path = "support/l1.rs"]
mod l1;
#[path = "support/processor.rs"]
mod processor;
mod support;

use arch::{GuestPhys, L2Phys};
use ept::cache::{FEWEST_FRAMES, ROOTS};
use ept::{Access, Denied, Ept12, MemoryType, PageSize, Permissions, Pool, Resolved, Rules, Shadows};
use l1::{GIB, L1, MIB};
use processor::{Processor, SharedFrames};

const RULES: Rules =
    Rules { execute_only: true, mode_based_execute: false, largest: PageSize::Size1G, physical_width: 46 };
/// What `L1::new` adds to addresses between 1 MiB and 1 GiB.
const ABOVE_ROM: u64 = 0x8_0020_0000;
const RWX: Permissions = Permissions::ALL;
const MAPPED: Result<Resolved, Denied> = Ok(Resolved::Mapped { flush: false });
const FLUSHED: Result<Resolved, Denied> = Ok(Resolved::Mapped { flush: true });

/// L1's tables at 0x4000 and below, as in `guest_walk.rs`: level N's table is at N << 12. The first entries lead down to
/// the page table.
struct Vm {
    l1: L1,
    shadows: Shadows<SharedFrames>,
    processor: Processor,
    ept12: Ept12,
}

/// An EPTP of tables at `root`: write-back, four levels, accessed and dirty flags if `flags`.
fn ept12(root: u64, flags: bool) -> Ept12 {
    Ept12::new(root | 0x1e | u64::from(flags) << 6, RULES)
}

impl Vm {
    fn new(flags: bool) -> Self {
        let l1 = L1::new();
        [(0x4000, 0x3007), (0x3000, 0x2007), (0x2000, 0x1007)].iter().for_each(|&(at, entry)| l1.set_word(at, entry));
        let frames = SharedFrames::new(64);
        let processor = Processor::new(&frames, false);
        Self { l1, shadows: Shadows::new(frames).expect("enough frames"), processor, ept12: ept12(0x4000, flags) }
    }

    fn resolve(&mut self, at: u64, access: Access) -> Result<Resolved, Denied> {
        self.shadows.resolve(&self.ept12, &self.l1, &self.l1, None, L2Phys(at), access)
    }

    /// What EPT02 has at `at`: target, size, permissions. Asks for no INVEPT: the test has done that.
    fn found(&mut self, at: u64) -> Option<(u64, PageSize, Permissions)> {
        let selected = self.shadows.select(&self.ept12);
        assert!(!selected.flush);
        self.processor.walk(selected.eptp, L2Phys(at)).map(|leaf| (leaf.target, leaf.size, leaf.permissions))
    }

    /// The first entry of EPT02, after the INVEPT that it takes.
    fn select(&mut self) {
        let _ = self.shadows.select(&self.ept12);
    }
}

/// The smaller of L1's page and what the machine has in one piece: L1's entry and its level, an address of L2, and what
/// is behind it by `L1::new`'s table.
#[test]
fn page_sizes() {
    for (entry_at, entry, at, host, size) in [
        // 4-KiB pages, also in RAM that is in one piece for more.
        (0x1000, 0x9037, 0x123, 0x7_0000_1000 + 0x9123, PageSize::Size4K),
        (0x1000, 4 * GIB + 0x37, 0xfff, 16 * GIB + 0xfff, PageSize::Size4K),
        // 2-MiB pages: in one piece, next to the ROM, and on 1-GiB pages.
        (0x2000, 4 * MIB + 0xb7, MIB + 5, ABOVE_ROM + 5 * MIB + 5, PageSize::Size2M),
        (0x2000, 0xb7, 0x5008, 0x7_0000_1000 + 0x5008, PageSize::Size4K),
        (0x2000, 5 * GIB + 0xb7, 0x12_3456, 17 * GIB + 0x12_3456, PageSize::Size2M),
        // 1-GiB pages.
        (0x3000, 5 * GIB + 0xb7, 600 * MIB, 17 * GIB + 600 * MIB, PageSize::Size1G),
        (0x3000, 0xb7, 600 * MIB + 7, ABOVE_ROM + 600 * MIB + 7, PageSize::Size2M),
        (0x3000, 0xb7, 0x1000, 0x7_0000_2000, PageSize::Size4K),
    ] {
        let mut vm = Vm::new(false);
        vm.l1.set_word(entry_at, entry);
        assert_eq!(vm.resolve(at, Access::READ), FLUSHED, "the root is new to the processor");
        let wrong = format!("entry {entry:#x} at {entry_at:#x}, {at:#x}");
        assert_eq!(vm.found(at), Some((host, size, RWX)), "{wrong}");
    }
}

/// The memory type is that of L1's page, with L1's say of the PAT.
#[test]
fn memory_types() {
    for (bits, memory_type, ignores_pat) in [
        (0x00, MemoryType::Uncacheable, false),
        (0x70, MemoryType::WriteBack, true),
        (0x20, MemoryType::WriteThrough, false),
        (0x48, MemoryType::WriteCombining, true),
    ] {
        let mut vm = Vm::new(false);
        vm.l1.set_word(0x1000, 0x9007 | bits);
        assert_eq!(vm.resolve(0, Access::READ), FLUSHED);
        let eptp = vm.shadows.select(&vm.ept12).eptp;
        let leaf = vm.processor.walk(eptp, L2Phys(0)).unwrap();
        assert_eq!((leaf.memory_type, leaf.entry.ignores_pat()), (memory_type, ignores_pat));
    }
}

/// With flags in use a page is read-only until it is dirty; becoming writable takes no INVEPT. Without, it is writable
/// at once.
#[test]
fn writes_wait_for_the_dirty_flag() {
    let mut vm = Vm::new(true);
    vm.select();
    vm.l1.set_word(0x1000, 0x9037);
    assert_eq!(vm.resolve(0, Access::READ), MAPPED);
    assert_eq!(vm.found(0).unwrap().2, RWX - Permissions::WRITE);
    assert_eq!(vm.resolve(0, Access::WRITE), MAPPED);
    assert_eq!(vm.found(0).unwrap().2, RWX);

    let mut vm = Vm::new(false);
    vm.select();
    vm.l1.set_word(0x1000, 0x9037);
    assert_eq!(vm.resolve(0, Access::READ), MAPPED);
    assert_eq!(vm.found(0).unwrap().2, RWX);
}

/// L1 permits more and executes no INVEPT, as it may: the violation that follows finds it. What L1 permits no longer
/// goes with its INVEPT, and if a violation comes before it, then the processor's translations go too.
#[test]
fn permissions_that_change() {
    let mut vm = Vm::new(false);
    vm.select();
    vm.l1.set_word(0x1000, 0x9031);
    assert_eq!(vm.resolve(0, Access::READ), MAPPED);
    assert!(matches!(vm.resolve(0, Access::WRITE), Err(Denied::Violation(v)) if v.qualification() == 0b001_010));
    vm.l1.set_word(0x1000, 0x9033);
    assert_eq!(vm.resolve(0, Access::WRITE), MAPPED);
    assert_eq!(vm.found(0).unwrap().2, Permissions::READ | Permissions::WRITE);
    vm.l1.set_word(0x1000, 0x9035);
    assert_eq!(vm.resolve(0, Access::fetch(true)), FLUSHED, "less to write, more to execute");
    vm.l1.set_word(0x1000, 0xa035);
    assert_eq!(vm.resolve(0, Access::READ), FLUSHED, "another page");
    assert_eq!(vm.resolve(0, Access::READ), MAPPED, "nothing to do");
    vm.l1.set_word(0x1000, 0);
    assert!(vm.found(0).is_some(), "L1 has not executed INVEPT");
    vm.shadows.invalidate_single(0x401e);
    assert!(vm.shadows.select(&vm.ept12).flush);
    assert_eq!(vm.found(0), None);
}

/// L1 gets a violation for a write, copies the page, and makes the copy writable. It needs no INVEPT: the violation has
/// dropped what was cached. So L2 reads the copy, be that the first thing that it does.
#[test]
fn copy_on_write() {
    for (entry_at, old, new, size) in [
        (0x1000, 0x9035, 0xa037, PageSize::Size4K),
        (0x2000, 4 * MIB + 0xb5, 6 * MIB + 0xb7, PageSize::Size2M),
        (0x3000, 4 * GIB + 0xb5, 5 * GIB + 0xb7, PageSize::Size1G),
    ] {
        let mut vm = Vm::new(false);
        vm.select();
        vm.l1.set_word(entry_at, old);
        assert_eq!(vm.resolve(0x123, Access::READ), MAPPED);
        assert_eq!(vm.found(0x123).unwrap().1, size);
        assert!(matches!(vm.resolve(0x456, Access::WRITE), Err(Denied::Violation(_))));
        vm.l1.set_word(entry_at, new);
        // Other parts of a large page may be cached.
        assert_eq!(vm.shadows.select(&vm.ept12).flush, size != PageSize::Size4K);
        assert_eq!(vm.found(0x123), None);
    }
    // The same where L0 found the violation.
    let mut vm = Vm::new(false);
    vm.select();
    vm.l1.set_word(0x1000, 0x9035);
    assert_eq!(vm.resolve(0, Access::READ), MAPPED);
    vm.shadows.violated(&vm.ept12, L2Phys(0x5000));
    assert!(vm.found(0).is_some(), "another page");
    vm.shadows.violated(&vm.ept12, L2Phys(0x123));
    assert!(vm.shadows.select(&vm.ept12).flush, "the processor has met no violation");
    assert!(vm.found(0).is_none());
}

/// L1 breaks a large page up, and makes it one again: each time the processor's translations go, and the page table's
/// frame comes back.
#[test]
fn page_sizes_that_change() {
    let mut vm = Vm::new(false);
    vm.select();
    vm.l1.set_word(0x2000, 4 * MIB + 0xb7);
    assert_eq!(vm.resolve(0x5000, Access::READ), MAPPED);
    vm.l1.set_word(0x1000 + 8 * 5, 0x9037);
    vm.l1.set_word(0x2000, 0x1007);
    assert_eq!(vm.resolve(0x5000, Access::READ), FLUSHED);
    assert_eq!(vm.found(0x5000), Some((0x7_0000_a000, PageSize::Size4K, RWX)));
    assert_eq!(vm.found(0x6000), None, "the other parts come by violations");
    vm.l1.set_word(0x2000, 4 * MIB + 0xb7);
    assert_eq!(vm.resolve(0x6000, Access::READ), FLUSHED);
    assert_eq!(vm.found(0x5000), Some((ABOVE_ROM + 4 * MIB + 0x5000, PageSize::Size2M, RWX)));
}

/// Where L1 has no RAM, or ROM that L2 writes to, the access is L1's device's; it sets flags all the same.
#[test]
fn devices() {
    let mut vm = Vm::new(true);
    for (entry, access, expected) in [
        (0xfee0_0037, Access::READ, Some(0xfee0_0123)),
        (0xfee0_0037, Access::WRITE, Some(0xfee0_0123)),
        (0xf_0037, Access::WRITE, Some(0xf_0123)),
        (0xf_0037, Access::READ, None),
        (0xf_0037, Access::fetch(true), None),
    ] {
        vm.shadows.invalidate_all();
        vm.select();
        vm.l1.set_word(0x1000, entry);
        let resolved = vm.resolve(0x123, access);
        assert_eq!(resolved, expected.map_or(MAPPED, |at| Ok(Resolved::Device(GuestPhys(at)))), "{entry:#x}");
        assert_eq!(vm.found(0x123).is_some(), expected.is_none());
        let dirty = if access == Access::WRITE { 1 << 9 } else { 0 };
        assert_eq!(vm.l1.word(0x1000), entry | 1 << 8 | dirty);
        // Of a ROM's page that is mapped nothing but writes is L2's.
        assert!(vm.found(0x123).is_none_or(|found| found.2 == RWX - Permissions::WRITE));
    }
}

/// EPTP02 has accessed and dirty flags exactly if EPTP12 has; EPTPs that differ only there have tables of their own, but
/// INVEPT for either names both (SDM 3C, INVEPT: bits 51:12 count).
#[test]
fn invalidation_by_eptp() {
    let mut vm = Vm::new(false);
    vm.l1.set_word(0x1000, 0x9337);
    vm.l1.set_word(0x5000, 0x3007);
    let (plain, flags, other) = (ept12(0x4000, false), ept12(0x4000, true), ept12(0x5000, false));
    let fill = |vm: &mut Vm| {
        for ept12 in [plain, flags, other] {
            vm.ept12 = ept12;
            assert!(matches!(vm.resolve(0, Access::READ), Ok(Resolved::Mapped { .. })));
        }
    };
    let filled = |vm: &mut Vm| {
        [plain, flags, other].map(|ept12| {
            let eptp = vm.shadows.select(&ept12).eptp;
            assert_eq!(eptp & 0xfff, if ept12 == flags { 0x5e } else { 0x1e });
            vm.processor.walk(eptp, L2Phys(0)).is_some()
        })
    };
    fill(&mut vm);
    assert_eq!(filled(&mut vm), [true, true, true]);
    vm.shadows.invalidate_single(0x5000);
    assert_eq!(filled(&mut vm), [true, true, false]);
    vm.shadows.invalidate_single(0x401e);
    assert_eq!(filled(&mut vm), [false, false, false]);
    fill(&mut vm);
    vm.shadows.invalidate_all();
    assert_eq!(filled(&mut vm), [false, false, false]);
}

/// One EPTP more than there are roots: the one that was not used for longest loses its tables, and whoever gets its root
/// is told to execute INVEPT.
#[test]
fn more_eptps_than_roots() {
    let mut vm = Vm::new(false);
    vm.l1.set_word(0x1000, 0x9037);
    let all: Vec<_> = (0..=ROOTS as u64).map(|n| ept12(0x1_0000 + (n << 12), false)).collect();
    for n in 0..=ROOTS as u64 {
        vm.l1.set_word(0x1_0000 + (n << 12), 0x3007);
    }
    let eptps: Vec<_> = all[..ROOTS]
        .iter()
        .map(|ept12| {
            vm.ept12 = *ept12;
            assert_eq!(vm.resolve(0, Access::READ), FLUSHED);
            vm.shadows.select(ept12).eptp
        })
        .collect();
    // The first is used again, so that the second is the oldest.
    assert_eq!(vm.shadows.select(&all[0]).eptp, eptps[0]);
    let ninth = vm.shadows.select(&all[ROOTS]);
    assert!(ninth.flush && ninth.eptp == eptps[1]);
    assert!(vm.processor.walk(ninth.eptp, L2Phys(0)).is_none());
    for n in [0, 2, 3, 4, 5, 6, 7] {
        let selected = vm.shadows.select(&all[n]);
        assert!(!selected.flush && selected.eptp == eptps[n]);
        assert!(vm.processor.walk(selected.eptp, L2Phys(0)).is_some());
    }
}

/// With the fewest frames that there may be, every access is mapped when it is resolved, whatever else that costs, and
/// the processor is told when translations of the running EPT02 went.
#[test]
fn few_frames() {
    let frames = SharedFrames::new(FEWEST_FRAMES);
    assert!(Shadows::new(SharedFrames::new(FEWEST_FRAMES - 1)).is_none());
    let mut shadows = Shadows::new(Pool::new(frames.clone(), FEWEST_FRAMES)).unwrap();
    let mut processor = Processor::new(&frames, false);
    let l1 = L1::new();
    [(0x3000, 0x2007), (0x2000, 0x1007), (0x1000, 0x9037)].iter().for_each(|&(at, entry)| l1.set_word(at, entry));
    for n in 0..4 {
        // PML4 entries lead to the same lower tables of L1: in EPT02 each needs its own.
        (0..4).for_each(|index| l1.set_word(0x1_0000 + (n << 12) + 8 * index, 0x3007));
    }
    let mut flushes = 0;
    for round in 0..64u64 {
        let ept12 = ept12(0x1_0000 + (round % 4) * 0x1000, false);
        let eptp = shadows.select(&ept12).eptp;
        for index in [round % 3, (round + 1) % 3] {
            let at = L2Phys(index << 39);
            let resolved = shadows.resolve(&ept12, &l1, &l1, None, at, Access::READ);
            let Ok(Resolved::Mapped { flush }) = resolved else { panic!("{resolved:?}") };
            if flush {
                flushes += 1;
                processor.invept(eptp);
            }
            let page = processor.access(eptp, at, Permissions::READ);
            assert_eq!(page.map(|page| page.host), Some(0x7_0000_a000));
            assert_eq!(shadows.select(&ept12), ept::Selected { eptp, flush: false });
        }
    }
    assert_eq!(flushes, 64, "the second address of each round takes the tables of the first");
    assert_eq!(frames.0.borrow().in_use(), FEWEST_FRAMES);
}
