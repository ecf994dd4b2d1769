//! The rules of SDM 3C, 29.3.3.1 "EPT Misconfigurations", one row each: an entry, its level, what the walk must find.

use std::convert::Infallible;

use ept::walk::walk;
use ept::{Entry, Leaf, Miss, PageSize, Permissions, Rules};
use proptest::prelude::*;

/// A processor that has everything, with 46 physical-address bits.
const FULL: Rules =
    Rules { execute_only: true, mode_based_execute: false, largest: PageSize::Size1G, physical_width: 46 };

/// Walks address 0 with `entry` at `level`, references that permit all above it and a proper 4-KiB page (write-back,
/// read-write-execute, address 0x7000) at level 1 below. The table of level N is at N << 12.
fn walk_with(rules: &Rules, level: u8, entry: u64) -> Result<Leaf, Miss<Infallible>> {
    walk(4 << 12, rules, 0, |table, index| {
        assert_eq!(index, 0);
        Ok(match table >> 12 {
            at if at == u64::from(level) => entry,
            1 => 0x7037,
            at => (at - 1) << 12 | 7,
        })
    })
}

#[derive(Debug, PartialEq)]
enum Found {
    Page,
    NotMapped,
    Misconfigured,
}

fn check(rules: &Rules, level: u8, entry: u64, expected: Found) {
    let found = match walk_with(rules, level, entry) {
        Ok(_) => Found::Page,
        Err(Miss::NotMapped { level: at }) => {
            assert_eq!(at, level);
            Found::NotMapped
        }
        Err(Miss::Misconfigured { level: at, entry: found }) => {
            assert_eq!((at, found), (level, Entry(entry)));
            Found::Misconfigured
        }
    };
    assert_eq!(found, expected, "level {level} entry {entry:#x} with {rules:?}");
}

/// A proper entry of `level`: a 4-KiB page (write-back) at level 1, otherwise a reference to the next table.
fn proper(level: u8) -> u64 {
    if level == 1 { 0x7037 } else { u64::from(level - 1) << 12 | 7 }
}

#[test]
fn permissions() {
    let no_execute_only = Rules { execute_only: false, ..FULL };
    let mode_based = Rules { mode_based_execute: true, ..FULL };
    let mode_based_only = Rules { mode_based_execute: true, execute_only: false, ..FULL };
    const USER: u64 = 1 << 10;
    for level in 1..=4 {
        let with = |bits: u64| proper(level) & !7 | bits;
        for rules in [&FULL, &no_execute_only, &mode_based, &mode_based_only] {
            check(rules, level, with(0), Found::NotMapped);
            check(rules, level, with(0b001), Found::Page);
            check(rules, level, with(0b011), Found::Page);
            check(rules, level, with(0b101), Found::Page);
            check(rules, level, with(0b010), Found::Misconfigured);
            check(rules, level, with(0b110), Found::Misconfigured);
        }
        for rules in [&no_execute_only, &mode_based_only] {
            check(rules, level, with(0b100), Found::Misconfigured);
        }
        for rules in [&FULL, &mode_based] {
            check(rules, level, with(0b100), Found::Page);
        }
        // Bit 10 counts under mode-based execute control, and is ignored otherwise.
        check(&FULL, level, with(USER), Found::NotMapped);
        check(&mode_based, level, with(USER), Found::Page);
        check(&mode_based_only, level, with(USER), Found::Misconfigured);
        check(&no_execute_only, level, with(USER | 0b001), Found::Page);
    }
}

#[test]
fn reserved_bits_of_references() {
    for bit in 3..=6 {
        for level in 2..=4 {
            check(&FULL, level, proper(level) | 1 << bit, Found::Misconfigured);
        }
    }
    check(&FULL, 4, proper(4) | 1 << 7, Found::Misconfigured);
}

#[test]
fn physical_width() {
    let width_52 = Rules { physical_width: 52, ..FULL };
    for bit in 46..52 {
        for level in 1..=4 {
            check(&FULL, level, proper(level) | 1 << bit, Found::Misconfigured);
        }
        check(&FULL, 3, 0x80 | 0x37 | 1 << bit, Found::Misconfigured);
        check(&width_52, 1, proper(1) | 1 << bit, Found::Page);
    }
    check(&FULL, 1, proper(1) | 1 << 45, Found::Page);
}

/// A large page's low address bits, and a large page where its size is not supported.
#[test]
fn large_pages() {
    let up_to_2m = Rules { largest: PageSize::Size2M, ..FULL };
    let only_4k = Rules { largest: PageSize::Size4K, ..FULL };
    check(&FULL, 2, 0xb7 | 1 << 21, Found::Page);
    check(&FULL, 3, 0xb7 | 1 << 30, Found::Page);
    for bit in 12..21 {
        check(&FULL, 2, 0xb7 | 1 << bit, Found::Misconfigured);
    }
    for bit in 12..30 {
        check(&FULL, 3, 0xb7 | 1 << bit, Found::Misconfigured);
    }
    check(&up_to_2m, 2, 0xb7, Found::Page);
    check(&up_to_2m, 3, 0xb7, Found::Misconfigured);
    check(&only_4k, 2, 0xb7, Found::Misconfigured);
    check(&only_4k, 3, 0xb7, Found::Misconfigured);
}

#[test]
fn memory_types() {
    for (encoding, expected) in [0, 1, 4, 5, 6].map(|n| (n, true)).into_iter().chain([2, 3, 7].map(|n| (n, false))) {
        for (level, entry) in [(1, 0x7007), (2, 0x87), (3, 0x87)] {
            let expected = if expected { Found::Page } else { Found::Misconfigured };
            check(&FULL, level, entry | encoding << 3, expected);
        }
    }
}

/// Bits that software may use, and those of features that are off: 11 and 63:52 everywhere, 8 and 9 (accessed, dirty),
/// bit 6 (ignore PAT) of a page, bit 7 of a 4-KiB page.
#[test]
fn ignored_bits() {
    for bit in [8, 9, 10, 11].into_iter().chain(52..64) {
        for level in 1..=4 {
            check(&FULL, level, proper(level) | 1 << bit, Found::Page);
        }
    }
    check(&FULL, 1, proper(1) | 1 << 6, Found::Page);
    check(&FULL, 1, proper(1) | 1 << 7, Found::Page);
}

/// What a walk permits is what each of its entries permits, and an absent entry is never misconfigured.
#[test]
fn permissions_of_all_levels_count() {
    for level in 2..=4 {
        let leaf = walk_with(&FULL, level, proper(level) & !0b110).unwrap();
        assert_eq!(leaf.permissions & !Permissions::EXECUTE_USER, Permissions::READ);
        assert_eq!((leaf.target, leaf.table, leaf.index), (0x7000, 1 << 12, 0));
    }
    check(&FULL, 4, 0xff00_0000_0000_07f8 & !(1 << 10), Found::NotMapped);
}

proptest! {
    /// Hostile tables: any entries, any address, any rules of a real processor. The walk ends after at most four reads,
    /// each within a table below the physical width, and with nothing beyond that width.
    #[test]
    fn any_tables(
        entries: [u64; 4],
        address: u64,
        execute_only: bool,
        mode_based_execute: bool,
        physical_width in 32u32..=52,
    ) {
        let rules = Rules { execute_only, mode_based_execute, largest: PageSize::Size1G, physical_width };
        let mut reads = 0;
        let result = walk(0, &rules, address, |table, index| {
            assert!(table >> physical_width == 0 && table & 0xfff == 0 && index < 512);
            reads += 1;
            // Half of the entries are made likely to be followed: no memory type, small address.
            let entry = entries[reads - 1];
            Ok::<_, Infallible>(if entry & 1 << 63 != 0 { entry & 0xffff_f707 | 1 } else { entry })
        });
        if let Ok(leaf) = result {
            prop_assert_eq!(leaf.target >> physical_width, 0);
            prop_assert_eq!(leaf.target & (leaf.size.bytes() - 1), address & (leaf.size.bytes() - 1));
            prop_assert!(!leaf.permissions.contains(Permissions::WRITE) || leaf.permissions.contains(Permissions::READ));
        }
    }
}
