//! EPT02 and a naive reading of EPT12, side by side: L1 changes its tables, L2 accesses memory, and every step is judged.

use std::collections::BTreeMap;

use arch::{GuestPhys, L2Phys};
use ept::{Access, Denied, Ept12, MemoryType, ModificationLog, PageSize, Permissions, Pool, Resolved, Rules, Shadows};

use crate::l1::L1;
use crate::processor::{Page, Processor, SharedFrames};

/// L1's tables: pages 1 to 8 of its memory. The first two are roots.
pub(crate) const TABLES: u64 = 8;
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

/// What happens.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// L1 writes entry `index` (0 or 1) of `table` (1 to [`TABLES`]).
    Set { table: u64, index: u64, entry: u64 },
    /// L2 accesses `page` (0 to 15), running with the EPTP `context` (0 to 2).
    Access { context: usize, page: u64, access: Access },
    /// L1 executes INVEPT for the EPTP `context` (0 to 2).
    InvalidateSingle { context: usize },
    /// L1 executes INVEPT for all.
    InvalidateAll,
}

/// Where L1 starts: each table refers to the next ones by both its entries, the last are page tables, so that most
/// addresses are mapped.
fn starting_tables(l1: &L1) {
    for (table, entries) in [
        (1, [0x3007, 0x4007]),
        (2, [0x3407, 0x4007]),
        (3, [0x5007, 0x1_0000_00b7]),
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
pub(crate) struct Machine {
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
    /// At the start, with `limit` frames for EPT02.
    pub(crate) fn new(rules: Rules, limit: usize) -> Self {
        let frames = SharedFrames::new(limit);
        let processor = Processor::new(&frames, rules.mode_based_execute);
        let shadows = Shadows::new(Pool::new(frames.clone(), limit)).expect("enough frames");
        let log = ModificationLog::new(GuestPhys(LOG), 40);
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

    /// L1 has got a violation for this page, after which the machine holds nothing of it that the tables do not say now.
    fn violated(&mut self, context: usize, n: u64) {
        self.allowed[context].remove(&n);
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
            needs if access.to_paging_structure && flags => needs | Permissions::READ | Permissions::WRITE,
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
            (Says::NotPresent, Err(Denied::Violation(v))) => {
                assert!(v.needed == needs && v.permitted.is_empty());
                self.violated(context, n);
            }
            (Says::Broken, Err(Denied::Misconfiguration)) => {}
            (Says::Page { permissions, .. }, Err(Denied::Violation(v))) => {
                assert!(!permissions.contains(needs) && v.needed == needs);
                let counted = if self.rules.mode_based_execute { Permissions::ALL } else { !Permissions::EXECUTE_USER };
                assert_eq!(v.permitted, permissions & counted);
                self.violated(context, n);
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

    /// Performs one step, and panics if something is wrong.
    pub(crate) fn step(&mut self, step: Step) {
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
    pub(crate) fn check(&mut self) {
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
