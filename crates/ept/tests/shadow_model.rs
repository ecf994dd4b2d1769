//! EPT02 against a naive reading of EPT12: whatever L1 does to its tables, L2 reaches nothing that the tables did not
//! allow at some time since the last INVEPT that names them, and nothing that is not L1's RAM.

#[path = "support/l1.rs"]
mod l1;
#[path = "support/processor.rs"]
mod processor;
mod support;

use std::collections::{BTreeMap, BTreeSet};

use arch::L2Phys;
use ept::cache::FEWEST_FRAMES;
use ept::{
    Access, Backing, Denied, Ept12, MemoryType, ModificationLog, PageSize, Permissions, Pool, Resolved, Rules, Shadows,
};
use l1::{GIB, L1, MIB};
use processor::{Page, Processor, SharedFrames};
use proptest::prelude::*;

/// L1's tables: pages 1 to 8 of its memory. The first two are roots.
const TABLES: u64 = 8;
const LOG: u64 = 0x2_0000;

/// The contexts: EPTPs with the first root, without and with flags, and with the second, with flags.
const EPTPS: [u64; 3] = [0x101e, 0x105e, 0x205e];

/// The addresses: each of the four indexes is 0 or 1.
fn page(n: u64) -> u64 {
    (0..4).map(|level| (n >> level & 1) << (12 + 9 * level)).sum()
}

/// What EPT12 says, read as the manual puts it and with no eye on how the crate does it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Says {
    NotPresent,
    Broken,
    /// L1's address, permissions, whether dirty (or flags are off), bits 6:3 of the leaf, whether a flag is missing that a
    /// read would set.
    Page {
        at: u64,
        permissions: Permissions,
        dirty: bool,
        memory_type: u64,
        unmarked: bool,
    },
}

fn naive(l1: &L1, eptp: u64, rules: &Rules, at: u64) -> Says {
    let mut table = eptp & !0xfff;
    let mut bits = 0x407;
    let mut unmarked = false;
    for level in [4u32, 3, 2, 1] {
        let shift = 12 + 9 * (level - 1);
        let entry = if l1.piece(table).is_some() { l1.word(table + (at >> shift) % 512 * 8) } else { u64::MAX };
        let (read, write, fetch, user) = (entry & 1, entry >> 1 & 1, entry >> 2 & 1, entry >> 10 & 1);
        let fetch = if rules.mode_based_execute { fetch | user } else { fetch };
        if read + write + fetch == 0 {
            return Says::NotPresent;
        }
        let page = level == 1 || level < 4 && entry & 0x80 != 0;
        let address = entry & 0xf_ffff_ffff_f000;
        let broken = read == 0 && (write == 1 || fetch == 1 && !rules.execute_only)
            || address >> rules.physical_width != 0
            || page && [2, 3, 7].contains(&(entry >> 3 & 7))
            || page && address % (1 << shift) != 0
            || page && level == 3 && rules.largest < PageSize::Size1G
            || !page && entry >> 3 & 0xf != 0
            || level == 4 && entry & 0x80 != 0;
        if broken {
            return Says::Broken;
        }
        bits &= entry;
        unmarked |= entry & 0x100 == 0;
        if page {
            let flags = eptp & 0x40 != 0;
            let all = Permissions::from_bits_truncate(bits);
            return Says::Page {
                at: address + at % (1 << shift),
                permissions: if rules.mode_based_execute { all } else { all.without_modes() },
                dirty: !flags || entry & 0x200 != 0,
                memory_type: entry >> 3 & 0xf,
                unmarked: flags && unmarked,
            };
        }
        table = address;
    }
    unreachable!("level 1 is a page")
}

/// What L2 may have of a page, if this is what the tables say.
fn may_have(l1: &L1, says: Says) -> Option<Page> {
    let Says::Page { at, permissions, dirty, memory_type, .. } = says else { return None };
    let piece = l1.piece(at)?;
    let mut permissions = permissions & piece.permissions.without_modes();
    permissions.set(Permissions::WRITE, permissions.contains(Permissions::WRITE) && dirty);
    Some(Page {
        host: (piece.host + (at - piece.at)) & !0xfff,
        permissions,
        memory_type: MemoryType::from_bits(memory_type & 7).expect("not a broken entry's"),
        ignores_pat: memory_type & 8 != 0,
    })
}

#[derive(Clone, Debug)]
enum Step {
    Set { table: u64, index: u64, entry: u64 },
    Access { context: usize, page: u64, access: Access },
    InvalidateSingle { context: usize },
    InvalidateAll,
}

fn entry() -> impl Strategy<Value = u64> {
    let bits = prop_oneof![
        8 => Just(7u64),
        2 => Just(0x407),
        6 => prop::sample::select(vec![0x403, 3, 5, 0x405, 1, 0x401, 4, 0x400, 0x404, 0x300 | 7, 0x507]),
        1 => prop::sample::select(vec![2u64, 6, 0x402]),
    ];
    let memory_type = prop_oneof![4 => Just(0x30u64), 1 => (0u64..16).prop_map(|n| n << 3)];
    let table = (1..=TABLES).prop_map(|n| n << 12);
    let small = prop::sample::select(vec![0, 0x9000, 0xa000, 0x9_f000, 0xa_0000, 0xf_0000, 5 * MIB, 4 * GIB, 1 << 46]);
    let large = prop::sample::select(vec![0, 2 * MIB, 4 * MIB, 4 * GIB, 5 * GIB, 5 * GIB + 2 * MIB, 7 * GIB, 8 * GIB]);
    prop_oneof![
        1 => Just(0),
        8 => (table, bits.clone()).prop_map(|(table, bits)| table | bits),
        5 => (small, bits.clone(), memory_type.clone()).prop_map(|(at, bits, memory_type)| at | bits | memory_type),
        4 => (large, bits, memory_type).prop_map(|(at, bits, memory_type)| at | bits | memory_type | 0x80),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let access = prop::sample::select(vec![
        Access::READ,
        Access::WRITE,
        Access::fetch(false),
        Access::fetch(true),
        Access::PAGING_STRUCTURE,
        Access { needs: Permissions::WRITE, to_paging_structure: true },
    ]);
    prop_oneof![
        6 => (1..=TABLES, 0..2u64, entry()).prop_map(|(table, index, entry)| Step::Set { table, index, entry }),
        12 => (0..3usize, 0..16u64, access).prop_map(|(context, page, access)| Step::Access { context, page, access }),
        1 => (0..3usize).prop_map(|context| Step::InvalidateSingle { context }),
        1 => Just(Step::InvalidateAll),
    ]
}

/// Where L1 starts: each table refers to the next ones by both its entries, the last are page tables, so that most
/// addresses are mapped.
fn starting_tables(l1: &L1) {
    for (table, entries) in [
        (1, [0x3007, 0x4007]),
        (2, [0x3407, 0x4007]),
        (3, [0x5007, 0x4000_00b7 * 4]),
        (4, [0x5007, 0x6007]),
        (5, [0x7007, 0x40_00b7]),
        (6, [0x7007, 0x8007]),
        (7, [0x9037, 0xa037]),
        (8, [0xf_0035, 0xfee0_0007]),
    ] {
        (0..).zip(entries).for_each(|(index, entry): (u64, u64)| l1.set_word((table << 12) + 8 * index, entry));
    }
}

/// The whole: L1, its processor, the tables, and what each context may have had since its last INVEPT.
struct Machine {
    l1: L1,
    rules: Rules,
    frames: SharedFrames,
    limit: usize,
    shadows: Shadows<Pool<SharedFrames>>,
    processor: Processor,
    log: ModificationLog,
    allowed: [BTreeMap<u64, Vec<Page>>; 3],
}

impl Machine {
    fn new(rules: Rules, limit: usize) -> Self {
        let frames = SharedFrames::new(limit);
        let processor = Processor::new(&frames, rules.mode_based_execute);
        let shadows = Shadows::new(Pool::new(frames.clone(), limit)).expect("enough frames");
        let log = ModificationLog::new(arch::GuestPhys(LOG), 40);
        let l1 = L1::new();
        starting_tables(&l1);
        let mut machine = Self { l1, rules, frames, limit, shadows, processor, log, allowed: Default::default() };
        machine.remember();
        machine
    }

    /// Adds what the tables say now to what each context may have.
    fn remember(&mut self) {
        for (eptp, allowed) in EPTPS.into_iter().zip(&mut self.allowed) {
            for n in 0..16 {
                let may = may_have(&self.l1, naive(&self.l1, eptp, &self.rules, page(n)));
                let pages = allowed.entry(n).or_default();
                pages.extend(may.filter(|may| !pages.contains(may)));
            }
        }
    }

    fn forget(&mut self, named: impl Fn(u64) -> bool) {
        EPTPS.into_iter().zip(&mut self.allowed).filter(|(eptp, _)| named(*eptp)).for_each(|(_, a)| a.clear());
        self.remember();
    }

    /// Whether the context may have had `page` so.
    fn was_allowed(&self, context: usize, n: u64, page: &Page) -> bool {
        self.allowed[context][&n].iter().any(|may| {
            Page { permissions: page.permissions, ..*may } == *page && may.permissions.contains(page.permissions)
        })
    }

    /// L2's access, as often as the processor repeats it.
    fn access(&mut self, context: usize, n: u64, access: Access) {
        let eptp12 = EPTPS[context];
        let ept12 = Ept12::new(eptp12, self.rules);
        let at = L2Phys(page(n) + 0x128);
        let flags = eptp12 & 0x40 != 0;
        let needs = match access.needs {
            _ if access.to_paging_structure && flags => Permissions::READ | Permissions::WRITE,
            needs => needs,
        };
        let selected = self.shadows.select(&ept12);
        if selected.flush {
            self.processor.invept(selected.eptp);
        }
        assert_eq!(selected.eptp & 0x40, eptp12 & 0x40);
        if let Some(page) = self.processor.access(selected.eptp, at, needs) {
            assert!(self.was_allowed(context, n, &page), "{page:x?} was never allowed");
            return;
        }
        let says = naive(&self.l1, eptp12, &self.rules, at.get());
        let index = self.log.index();
        let resolved = self.shadows.resolve(&ept12, &self.l1, &self.l1, Some(&self.log), at, access);
        self.remember();
        match (says, resolved) {
            (Says::NotPresent, Err(Denied::Violation(v))) => assert!(v.needed == needs && v.permitted.is_empty()),
            (Says::Broken, Err(Denied::Misconfiguration)) => {}
            (Says::Page { permissions, .. }, Err(Denied::Violation(v))) => {
                assert!(!permissions.contains(needs) && v.needed == needs);
                let counted = if self.rules.mode_based_execute { Permissions::ALL } else { !Permissions::EXECUTE_USER };
                assert_eq!(v.permitted, permissions & counted);
            }
            (Says::Page { permissions, dirty, unmarked, .. }, Err(Denied::LogFull)) => {
                assert!(index > 511 && permissions.contains(needs));
                assert!(unmarked || !dirty && needs.contains(Permissions::WRITE));
                assert_eq!(naive(&self.l1, eptp12, &self.rules, at.get()), says);
            }
            (Says::Page { at: l1_at, permissions, dirty, unmarked, .. }, Ok(resolved)) => {
                assert!(permissions.contains(needs));
                let makes_dirty = !dirty && needs.contains(Permissions::WRITE);
                assert!(index <= 511 || !makes_dirty && !unmarked);
                assert_eq!(self.log.index(), index.wrapping_sub(u16::from(makes_dirty)));
                let now = naive(&self.l1, eptp12, &self.rules, at.get());
                // A page of RAM that L2 may have; otherwise it is a device's.
                match (may_have(&self.l1, now).filter(|may| may.permissions.contains(needs)), resolved) {
                    (None, Resolved::Device(device)) => assert_eq!(device.get(), l1_at),
                    (Some(may), Resolved::Mapped { flush }) => {
                        if flush {
                            self.processor.invept(selected.eptp);
                        }
                        // EPT02 says exactly what EPT12 says now.
                        assert_eq!(self.processor.access(selected.eptp, at, needs), Some(may));
                    }
                    other => unreachable!("{other:x?}"),
                }
            }
            other => unreachable!("{other:x?}"),
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Set { table, index, entry } => {
                self.l1.set_word((table << 12) + 8 * index, entry);
                self.remember();
            }
            Step::Access { context, page, access } => self.access(context, page, access),
            Step::InvalidateSingle { context } => {
                self.shadows.invalidate_single(EPTPS[context]);
                self.forget(|eptp| eptp & !0xfff == EPTPS[context] & !0xfff);
            }
            Step::InvalidateAll => {
                self.shadows.invalidate_all();
                self.forget(|_| true);
            }
        }
    }

    /// EPT02 itself, of every context: nothing that was not allowed, in no frame that was given back.
    fn check(&mut self) {
        assert!(self.frames.0.borrow().in_use() <= self.limit);
        for (context, eptp12) in EPTPS.into_iter().enumerate() {
            let selected = self.shadows.select(&Ept12::new(eptp12, self.rules));
            if selected.flush {
                self.processor.invept(selected.eptp);
            }
            for n in 0..16 {
                let found = self.processor.walk(selected.eptp, L2Phys(page(n)));
                let found = found.map(|leaf| self.processor.page(&leaf, L2Phys(page(n))));
                assert!(found.is_none_or(|page| self.was_allowed(context, n, &page)), "{context} {n}: {found:x?}");
            }
        }
    }
}

/// The sizes of RAM pieces are what the tables of this test take for granted.
#[test]
fn the_model_reaches_every_size() {
    let l1 = L1::new();
    let sizes: BTreeSet<_> = [0, 4 * MIB, 5 * GIB].map(|at| l1.backing(arch::GuestPhys(at)).unwrap().size).into();
    assert_eq!(sizes, BTreeSet::from([PageSize::Size4K, PageSize::Size2M, PageSize::Size1G]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Random changes, accesses and INVEPTs, with plenty of frames and with hardly any.
    #[test]
    fn nothing_that_l1_did_not_allow(
        execute_only: bool,
        mode_based_execute: bool,
        largest in prop::sample::select(vec![PageSize::Size2M, PageSize::Size1G]),
        limit in prop_oneof![Just(FEWEST_FRAMES), Just(FEWEST_FRAMES + 4), Just(1000)],
        steps in prop::collection::vec(step(), 1..150),
    ) {
        let mut machine = Machine::new(Rules { execute_only, mode_based_execute, largest, physical_width: 46 }, limit);
        for step in steps {
            machine.step(step);
            machine.check();
        }
    }
}
