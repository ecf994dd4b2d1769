//! Map, unmap and walk against a map with one entry a 4-KiB page.

mod support;

use std::collections::BTreeMap;

use arch::{GuestPhys, HostPhys};
use ept::{Ept, Invalidation, MapError, MemoryType, Miss, PageSize, Permissions};
use proptest::prelude::*;
use support::FakeFrames;

const RWX: Permissions = Permissions::READ.union(Permissions::WRITE).union(Permissions::EXECUTE);
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

fn new(largest: PageSize) -> (FakeFrames, Ept) {
    let mut frames = FakeFrames::new(usize::MAX);
    let ept = Ept::new(&mut frames, largest, true).expect("a frame for the root");
    (frames, ept)
}

/// Bits 2:0 memory type 6 (write-back), 5:3 one less than the walk's length, 6 accessed and dirty flags: SDM 3C, table
/// "Format of Extended-Page-Table Pointer".
#[test]
fn eptp() {
    let mut frames = FakeFrames::new(2);
    assert_eq!(Ept::new(&mut frames, PageSize::Size4K, false).unwrap().eptp(), 0x10_101e);
    assert_eq!(Ept::new(&mut frames, PageSize::Size4K, true).unwrap().eptp(), 0x10_205e);
    assert!(Ept::new(&mut frames, PageSize::Size4K, true).is_none());
}

/// 5 GiB + 6 MiB + 8 KiB from 1 GiB - 2 MiB - 4 KiB on: each part gets the largest page that fits on both sides, and no
/// larger one than the machine has.
#[test]
fn largest_pages_that_fit() {
    let start = GIB - 2 * MIB - 0x1000;
    for largest in [PageSize::Size4K, PageSize::Size2M, PageSize::Size1G] {
        let (mut frames, mut ept) = new(largest);
        let wb = MemoryType::WriteBack;
        let host = HostPhys(start + 7 * GIB);
        let len = 5 * GIB + 6 * MIB + 0x2000;
        assert_eq!(ept.map(&mut frames, GuestPhys(start), host, len, RWX, wb), Ok(Invalidation::NotNeeded));
        let expect = [
            (start, PageSize::Size4K),
            (start + 0x1000, PageSize::Size2M),
            (GIB, PageSize::Size1G),
            (5 * GIB + 123, PageSize::Size1G),
            (6 * GIB, PageSize::Size2M),
            (start + len - 1, PageSize::Size4K),
        ];
        for (guest, size) in expect {
            let mapping = ept.walk(&frames, GuestPhys(guest)).unwrap();
            assert_eq!((mapping.size, mapping.host), (size.min(largest), HostPhys(guest + 7 * GIB)), "{guest:#x}");
        }
        for outside in [start - 1, start + len, 1 << 48, u64::MAX] {
            assert!(matches!(ept.walk(&frames, GuestPhys(outside)), Err(Miss::NotMapped { .. })), "{outside:#x}");
        }
        ept.release(&mut frames);
        assert_eq!(frames.in_use(), 0);
    }
}

/// A hole of one page in a 1-GiB page: its 2-MiB part becomes 4-KiB pages, the rest 2-MiB pages, and everything but the
/// hole translates as before. Filling the hole with the same again needs no INVEPT; a 1-GiB page over all gives the
/// tables back.
#[test]
fn split_and_join() {
    let (mut frames, mut ept) = new(PageSize::Size1G);
    let (guest, host) = (GuestPhys(3 * GIB), HostPhys(9 * GIB));
    let uc = MemoryType::Uncacheable;
    let hole = guest.add(5 * MIB + 0x3000);
    let _ = ept.map(&mut frames, guest, host, GIB, RWX, uc).unwrap();
    assert_eq!(frames.in_use(), 2);
    assert_eq!(ept.unmap(&mut frames, hole, 0x1000), Ok(Invalidation::Needed));
    assert_eq!(frames.in_use(), 4);
    assert_eq!(ept.walk(&frames, hole), Err(Miss::NotMapped { level: 1 }));
    for (offset, size) in [
        (0, PageSize::Size2M),
        (4 * MIB, PageSize::Size4K),
        (5 * MIB + 0x2fff, PageSize::Size4K),
        (5 * MIB + 0x4000, PageSize::Size4K),
        (GIB - 1, PageSize::Size2M),
    ] {
        let mapping = ept.walk(&frames, guest.add(offset)).unwrap();
        assert_eq!((mapping.host, mapping.size, mapping.memory_type), (host.add(offset), size, uc), "{offset:#x}");
    }
    let refill = ept.map(&mut frames, hole, host.add(5 * MIB + 0x3000), 0x1000, RWX, uc);
    assert_eq!(refill, Ok(Invalidation::NotNeeded));
    assert_eq!(ept.map(&mut frames, guest, host, GIB, RWX, uc), Ok(Invalidation::Needed));
    assert_eq!(frames.in_use(), 2);
    assert_eq!(ept.walk(&frames, hole).unwrap().size, PageSize::Size1G);
    // The same again, in whole and in part: a large page stays as it is.
    assert_eq!(ept.map(&mut frames, guest, host, GIB, RWX, uc), Ok(Invalidation::NotNeeded));
    assert_eq!(ept.map(&mut frames, guest.add(MIB), host.add(MIB), MIB, RWX, uc), Ok(Invalidation::NotNeeded));
    assert_eq!(frames.in_use(), 2);
}

/// Bad arguments are refused before anything changes.
#[test]
fn refusals() {
    let (mut frames, mut ept) = new(PageSize::Size1G);
    for (guest, host, len, permissions, error) in [
        (0x800, 0, 0x1000, RWX, MapError::Misaligned),
        (0, 0x800, 0x1000, RWX, MapError::Misaligned),
        (0, 0, 0x1800, RWX, MapError::Misaligned),
        ((1 << 48) - 0x1000, 0, 0x2000, RWX, MapError::BeyondWidth),
        (u64::MAX - 0xfff, 0, 0x1000, RWX, MapError::BeyondWidth),
        (0, (1 << 52) - 0x1000, 0x2000, RWX, MapError::BeyondWidth),
        (0, u64::MAX - 0xfff, 0x1000, RWX, MapError::BeyondWidth),
        (0, 0, 0x1000, Permissions::WRITE, MapError::WriteWithoutRead),
        (0, 0, 0x1000, Permissions::WRITE | Permissions::EXECUTE, MapError::WriteWithoutRead),
    ] {
        let wb = MemoryType::WriteBack;
        let result = ept.map(&mut frames, GuestPhys(guest), HostPhys(host), len, permissions, wb);
        assert_eq!(result, Err(error), "{guest:#x} {host:#x} {len:#x} {permissions:?}");
    }
    assert_eq!(frames.in_use(), 1);
}

/// Out of frames in the midst of a range: an error, and all frames still come back.
#[test]
fn out_of_frames() {
    for limit in 1..8 {
        let mut frames = FakeFrames::new(limit);
        let mut ept = Ept::new(&mut frames, PageSize::Size1G, false).unwrap();
        let wb = MemoryType::WriteBack;
        // Needs 1 root, 1 directory-pointer table, 2 directories, 2 page tables.
        let result = ept.map(&mut frames, GuestPhys(GIB - 0x1000), HostPhys(0), 0x2000, RWX, wb);
        assert_eq!(result.is_ok(), limit >= 6, "{limit}");
        ept.release(&mut frames);
        assert_eq!(frames.in_use(), 0);
    }
}

#[derive(Clone, Debug)]
enum Step {
    Map { guest: u64, host: u64, pages: u64, permissions: Permissions, memory_type: MemoryType },
    Unmap { guest: u64, pages: u64 },
}

/// Page numbers within 5 MiB on either side of a 1-GiB boundary, with 2-MiB boundaries more likely than not.
fn page() -> impl Strategy<Value = u64> {
    let middle = GIB >> 12;
    prop_oneof![middle - 1280..middle + 1280, (0u64..5).prop_map(move |n| middle - 1024 + 512 * n)]
}

fn step() -> impl Strategy<Value = Step> {
    let permissions = prop::sample::select(vec![
        RWX,
        Permissions::READ,
        Permissions::EXECUTE,
        Permissions::READ | Permissions::WRITE,
        Permissions::empty(),
    ]);
    let memory_type = prop::sample::select(vec![MemoryType::WriteBack, MemoryType::Uncacheable]);
    let pages = prop_oneof![0u64..1300, Just(512), Just(1024)];
    let map = (page(), page(), pages.clone(), permissions, memory_type).prop_map(
        |(guest, host, pages, permissions, memory_type)| Step::Map { guest, host, pages, permissions, memory_type },
    );
    prop_oneof![3 => map, 1 => (page(), pages).prop_map(|(guest, pages)| Step::Unmap { guest, pages })]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// After any sequence of maps and unmaps every page translates as in the model; INVEPT is asked for whenever a page
    /// that was mapped translates differently; all frames come back.
    #[test]
    fn like_the_model(steps in prop::collection::vec(step(), 1..8)) {
        let (mut frames, mut ept) = new(PageSize::Size2M);
        let mut model: BTreeMap<u64, (u64, Permissions, MemoryType)> = BTreeMap::new();
        for step in steps {
            let before = model.clone();
            let result = match step {
                Step::Map { guest, host, pages, permissions, memory_type } => {
                    for n in 0..pages {
                        model.remove(&(guest + n));
                        if !permissions.is_empty() {
                            model.insert(guest + n, (host + n, permissions, memory_type));
                        }
                    }
                    let (guest, host) = (GuestPhys(guest << 12), HostPhys(host << 12));
                    ept.map(&mut frames, guest, host, pages << 12, permissions, memory_type)
                }
                Step::Unmap { guest, pages } => {
                    for n in 0..pages {
                        model.remove(&(guest + n));
                    }
                    ept.unmap(&mut frames, GuestPhys(guest << 12), pages << 12)
                }
            };
            let present_changed = before.iter().any(|(page, was)| model.get(page) != Some(was));
            let invalidation = result.unwrap();
            prop_assert!(!present_changed || invalidation == Invalidation::Needed);
            let middle = GIB >> 12;
            for page in middle - 1300..middle + 2600 {
                let walked = ept.walk(&frames, GuestPhys(page << 12 | 0x123));
                let walked = walked.ok().map(|m| (m.host.get(), m.permissions, m.memory_type));
                let expected = model.get(&page).map(|&(host, p, m)| (host << 12 | 0x123, p, m));
                prop_assert_eq!(walked, expected, "page {:#x}", page);
            }
        }
        ept.release(&mut frames);
        prop_assert_eq!(frames.in_use(), 0);
    }
}
