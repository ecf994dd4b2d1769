//! The page walk against the manual: formats, access rights, error codes, reserved bits, accessed and dirty flags.

mod support;

use arch::control::{Cr0, Cr4, Efer};
use arch::{Fault, GuestPhys, Linear};
use emulate::{AccessKind, CodeSize, Paging, Translation, translate};
use proptest::prelude::*;
use support::{Ram, Vcpu};

const P: u64 = 1;
const W: u64 = 2;
const U: u64 = 4;
const A: u64 = 0x20;
const D: u64 = 0x40;
const PS: u64 = 0x80;
const XD: u64 = 1 << 63;

/// Error-code bits (SDM 3A, figure "Page-Fault Error Code").
const E_P: u32 = 1;
const E_W: u32 = 2;
const E_U: u32 = 4;
const E_RSVD: u32 = 8;
const E_I: u32 = 16;

fn long_mode() -> Paging {
    Vcpu::new(CodeSize::Bits64).paging
}

fn bits_32() -> Paging {
    Paging { cr0: Cr0::PE | Cr0::PG | Cr0::WP, cr4: Cr4::PSE, efer: Efer::empty(), ..long_mode() }
}

fn pae() -> Paging {
    Paging { efer: Efer::NXE, cr4: Cr4::PAE, ..long_mode() }
}

fn page(address: u64, page_bytes: u64) -> Result<Translation, Fault> {
    Ok(Translation { address: GuestPhys(address), page_bytes })
}

fn fault(address: u64, error: u32) -> Result<Translation, Fault> {
    Err(Fault::Pf { address, error })
}

/// Without paging the low 32 bits are the address.
#[test]
fn no_paging() {
    let ram = Ram::new(0);
    let paging = Vcpu::new(CodeSize::Bits32).paging;
    assert_eq!(translate(&ram, &paging, Linear(0x7_fee0_0123), AccessKind::WRITE), page(0xfee0_0123, 4096));
}

#[test]
fn bits_32_pages() {
    let ram = Ram::new(0x4000);
    // Directory entry 3 (12 MiB) is a table at 0x2000, whose entry 5 maps 0x8765_4000; entry 4 is a 4-MiB page at
    // 0x9a_0040_0000, by PSE-36 bits 39:32 in bits 20:13.
    ram.set_u32(0x100c, 0x2000 | 3);
    ram.set_u32(0x2014, 0x8765_4000 | 3);
    ram.set_u32(0x1010, 0x0040_0000 | 0x9a << 13 | 0x83);
    let small = Linear(3 << 22 | 5 << 12 | 0x678);
    assert_eq!(translate(&ram, &bits_32(), small, AccessKind::READ), page(0x8765_4678, 4096));
    assert_eq!((ram.get_u64(0x1008), ram.get_u64(0x2010)), ((0x2000 | 3 | A) << 32, (0x8765_4000 | 3 | A) << 32));
    // Bits 63:32 of the linear address are not there.
    let large = Linear(0xf_0000_0000 | 4 << 22 | 0x12_3456);
    assert_eq!(translate(&ram, &bits_32(), large, AccessKind::WRITE), page(0x9a_0052_3456, 1 << 22));
    assert_eq!(ram.get_u64(0x1010), 0x0040_0000 | 0x9a << 13 | 0x83 | A | D);
    // Without PSE it is a table; outside of RAM entries are all ones, which is a present page.
    let no_pse = Paging { cr4: Cr4::empty(), ..bits_32() };
    assert_eq!(translate(&ram, &no_pse, large, AccessKind::READ), page(0xffff_f456, 4096));
    // Bits 21 to (width - 19) are reserved.
    for (bit, physical_width, reserved) in
        [(21, 46, true), (20, 40, false), (17, 36, true), (16, 36, false), (13, 32, true)]
    {
        ram.set_u32(0x1010, 0x83 | 1 << bit);
        let found = translate(&ram, &Paging { physical_width, ..bits_32() }, Linear(4 << 22), AccessKind::WRITE);
        assert_eq!(
            found == fault(4 << 22, E_P | E_W | E_RSVD),
            reserved,
            "bit {bit} at width {physical_width}: {found:?}"
        );
    }
}

#[test]
fn pae_pages() {
    let ram = Ram::new(0x5000);
    // Entry 2 of the four; directory at 0x3000: entry 1 a 2-MiB page, entry 2 a table at 0x4000.
    let pdptes = [0, 0, 0x3000 | 1, 0];
    ram.set_u64(0x3008, 0x12_3460_0000 | P | W | PS);
    ram.set_u64(0x3010, 0x4000 | P | W);
    ram.set_u64(0x4008, 0x2_0000_1000 | P);
    let paging = Paging { pdptes: Some(pdptes), ..pae() };
    let in_memory = Paging { cr3: 0x1fe0, ..pae() };
    ram.set_u64(0x1fe0 + 16, pdptes[2]);
    for paging in [paging, in_memory] {
        let at = |linear, kind| translate(&ram, &paging, Linear(linear), kind);
        assert_eq!(at(2 << 30 | 0x21_2345, AccessKind::WRITE), page(0x12_3461_2345, 1 << 21));
        assert_eq!(at(2 << 30 | 0x40_1777, AccessKind::READ), page(0x2_0000_1777, 4096));
        assert_eq!(at(0x40_1777, AccessKind::READ), fault(0x40_1777, 0));
        assert_eq!(at(2 << 30 | 0x40_1777, AccessKind::WRITE), fault(2 << 30 | 0x40_1777, E_P | E_W));
    }
    assert_eq!(ram.get_u64(0x1fe0 + 16), pdptes[2], "PDPTEs have no accessed flag");
    for bit in (46..63).chain(13..21) {
        ram.set_u64(0x3008, P | W | PS | 1 << bit);
        let linear = 2 << 30 | 0x20_0000;
        assert_eq!(
            translate(&ram, &paging, Linear(linear), AccessKind::READ),
            fault(linear, E_P | E_RSVD),
            "bit {bit}"
        );
    }
}

/// One page of each size through four and five levels, at indices that differ by level.
#[test]
fn long_mode_pages() {
    let ram = Ram::new(0x8000);
    ram.set_u64(0x1000 + 8 * 0x1ff, 0x2000 | P | W | U); // PML5
    ram.set_u64(0x2000 + 8 * 0x100, 0x3000 | P | W | U); // PML4
    ram.set_u64(0x3000 + 8 * 3, 0x2_4000_0000 | P | W | PS | 1 << 12); // 1 GiB, PAT
    ram.set_u64(0x3000 + 8 * 4, 0x4000 | P | W | U);
    ram.set_u64(0x4000 + 8 * 5, 0x60_0000 | P | W | PS);
    ram.set_u64(0x4000 + 8 * 6, 0x5000 | P | W | U);
    ram.set_u64(0x5000 + 8 * 7, 0x1234_5000 | P | W | PS); // bit 7 is PAT here
    let four = Paging { cr3: 0x2fff & !0xfff | 0x18, ..long_mode() };
    let five = Paging { cr4: Cr4::PAE | Cr4::LA57, ..long_mode() };
    for (paging, top) in [(four, 0xffff_0000_0000_0000), (five, 0xff00_0000_0000_0000 | 0x1ff << 48)] {
        let base = top | 0x100 << 39;
        for (offset, expected, bytes) in [
            (3 << 30 | 0x3edc_ba98, 0x2_7edc_ba98, 1 << 30),
            (4 << 30 | 5 << 21 | 0x1f_fff0, 0x7f_fff0, 1 << 21),
            (4 << 30 | 6 << 21 | 7 << 12 | 0xabc, 0x1234_5abc, 4096),
        ] {
            assert_eq!(translate(&ram, &paging, Linear(base | offset), AccessKind::WRITE), page(expected, bytes));
        }
    }
    assert_eq!(ram.get_u64(0x5000 + 8 * 7), 0x1234_5000 | P | W | PS | A | D);
    assert_eq!(ram.get_u64(0x5000), 0);
    // Where there are no 1-GiB pages bit 7 is reserved.
    let linear = 0xffff_8000_c000_0000;
    let no_gigabytes = Paging { gigabyte_pages: false, ..four };
    assert_eq!(translate(&ram, &no_gigabytes, Linear(linear), AccessKind::READ), fault(linear, E_P | E_RSVD));
}

/// Reserved bits of each level in long mode: beyond the physical width, bit 7 of a PML4 entry, bit 63 without NXE.
#[test]
fn long_mode_reserved_bits() {
    let good = [(0x1000, 0x2000 | P), (0x2000, 0x3000 | P), (0x3000, 0x4000 | P), (0x4000, 0x5000 | P)];
    let no_nxe = Paging { efer: Efer::LMA, ..long_mode() };
    for (level, &(at, entry)) in good.iter().enumerate() {
        let with = |bit: u32, paging: &Paging| {
            let ram = Ram::new(0x5000);
            good.iter().for_each(|&(at, entry)| ram.set_u64(at, entry));
            ram.set_u64(at, entry | 1 << bit);
            translate(&ram, paging, Linear(0), AccessKind::READ)
        };
        for bit in 46..52 {
            assert_eq!(with(bit, &long_mode()), fault(0, E_P | E_RSVD), "level {level} bit {bit}");
        }
        for bit in 52..64 {
            assert_eq!(with(bit, &long_mode()), page(0x5000, 4096), "level {level} bit {bit}");
        }
        assert_eq!(with(63, &no_nxe), fault(0, E_P | E_RSVD));
        // At the levels between, bit 7 makes a large page.
        if level == 0 || level == 3 {
            assert_eq!(with(7, &long_mode()) == fault(0, E_P | E_RSVD), level == 0);
        }
    }
}

/// What SDM 3A, 4.6.1 "Determination of Access Rights" says, sentence by sentence.
fn manual_allows(user_page: bool, writable: bool, execute_disable: bool, paging: &Paging, kind: AccessKind) -> bool {
    let wp = paging.cr0.contains(Cr0::WP);
    let smap = paging.cr4.contains(Cr4::SMAP);
    let smep = paging.cr4.contains(Cr4::SMEP);
    let nxe = paging.efer.contains(Efer::NXE);
    let supervisor_access = paging.cpl < 3 || kind.implicit;
    match (supervisor_access, user_page) {
        // "For supervisor-mode accesses: data may be read from any supervisor-mode address"; "data reads from user-mode
        // pages: if CR4.SMAP = 0 …; if CR4.SMAP = 1: EFLAGS.AC = 1 and explicit: may be read".
        (true, false) if kind.fetch => !nxe || !execute_disable,
        (true, false) if kind.write => !wp || writable,
        (true, false) => true,
        (true, true) if kind.fetch => !smep && (!nxe || !execute_disable),
        (true, true) => (!smap || paging.ac && !kind.implicit) && (!kind.write || !wp || writable),
        // "For user-mode accesses": never to supervisor-mode addresses.
        (false, false) => false,
        (false, true) if kind.fetch => !nxe || !execute_disable,
        (false, true) => !kind.write || writable,
    }
}

/// All pages, modes and kinds of access. A refused access leaves the flags alone.
#[test]
fn access_rights() {
    for bits in 0..1u32 << 13 {
        let bit = |n: u32| bits >> n & 1 != 0;
        // The restriction stands in the entry of one of the two levels.
        let (user, writable, disabled, in_table) = (bit(0), bit(1), bit(2), bit(3));
        let mut paging = long_mode();
        paging.cpl = if bit(4) { 3 } else { 0 };
        paging.cr0.set(Cr0::WP, bit(5));
        paging.cr4.set(Cr4::SMEP, bit(6));
        paging.cr4.set(Cr4::SMAP, bit(7));
        paging.efer.set(Efer::NXE, bit(8));
        paging.ac = bit(9);
        let kind = AccessKind { write: bit(10), fetch: bit(11), implicit: bit(12) };
        if kind.fetch && (kind.write || kind.implicit) || disabled && !bit(8) {
            continue;
        }
        let entry = P | if writable { W } else { 0 } | if user { U } else { 0 } | if disabled { XD } else { 0 };
        let (upper, lower) = if in_table { (entry, P | W | U) } else { (P | W | U, entry) };
        let ram = Ram::new(0x4000);
        ram.set_u64(0x1000, 0x2000 | upper);
        ram.set_u64(0x2000, 0x3000 | P | W | U);
        ram.set_u64(0x3000, lower | PS);
        let result = translate(&ram, &paging, Linear(0x1234), kind);
        if manual_allows(user, writable, disabled, &paging, kind) {
            assert_eq!(result, page(0x1234, 1 << 21), "{paging:?} {kind:?} {entry:#x}");
            let dirty = if kind.write { D } else { 0 };
            assert_eq!((ram.get_u64(0x1000), ram.get_u64(0x3000)), (0x2000 | upper | A, lower | PS | A | dirty));
        } else {
            let mut error = E_P;
            error |= if kind.write { E_W } else { 0 };
            error |= if paging.cpl == 3 && !kind.implicit { E_U } else { 0 };
            error |= if kind.fetch && (bit(6) || bit(8)) { E_I } else { 0 };
            assert_eq!(result, fault(0x1234, error), "{paging:?} {kind:?} {entry:#x}");
            assert_eq!((ram.get_u64(0x1000), ram.get_u64(0x3000)), (0x2000 | upper, lower | PS));
        }
    }
}

/// Another vCPU unmaps the page between the walk and the update of its flags: the new entry counts, and stays as written.
#[test]
fn entry_changes_under_the_walk() {
    let ram = Ram::new(0x4000);
    ram.set_u64(0x1000, 0x2000 | P | W | A);
    ram.set_u64(0x2000, 0x3000 | P | W | A);
    ram.set_u64(0x3000, P | W | PS);
    ram.intruder.set(Some((0x3000, 0xdead_0000)));
    assert_eq!(translate(&ram, &long_mode(), Linear(0x10), AccessKind::READ), fault(0x10, 0));
    assert_eq!(ram.get_u64(0x3000), 0xdead_0000);
    // It is made another page instead: that one is found.
    ram.set_u64(0x3000, P | W | PS);
    ram.intruder.set(Some((0x3000, 0x40_0000 | P | W | PS)));
    assert_eq!(translate(&ram, &long_mode(), Linear(0x10), AccessKind::WRITE), page(0x40_0010, 1 << 21));
    assert_eq!(ram.get_u64(0x3000), 0x40_0000 | P | W | PS | A | D);
    // The neighbour of a 32-bit entry is left as the other one wrote it.
    ram.set_u64(0x1000, 0x83);
    ram.intruder.set(Some((0x1000, 0x1122_3344_0000_0083)));
    assert_eq!(translate(&ram, &bits_32(), Linear(0x10), AccessKind::READ), page(0x10, 1 << 22));
    assert_eq!(ram.get_u64(0x1000), 0x1122_3344_0000_0083 | A);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Hostile tables, registers and addresses: no panic, no change to RAM but accessed and dirty flags, and a page fault
    /// that names the address.
    #[test]
    fn any_tables(
        words in prop::collection::vec(prop_oneof![any::<u64>(), (0u64..0x5000, 0u64..0x1000).prop_map(|(a, b)| a & !0xfff | b | 1)], 64),
        cr0: u64, cr4: u64, efer: u64, cr3 in 0u64..0x5000, linear: u64, write: bool, fetch: bool, physical_width in 32u8..=52, cpl in 0u8..4,
    ) {
        let ram = Ram::new(0x4000);
        for (at, &word) in (0..0x4000).step_by(8).zip(words.iter().cycle()) {
            ram.set_u64(at, word);
        }
        let before = ram.bytes.borrow().clone();
        let paging = Paging {
            cr0: Cr0::from_bits_truncate(cr0 | 1 << 31),
            cr3,
            cr4: Cr4::from_bits_truncate(cr4),
            efer: Efer::from_bits_truncate(efer),
            cpl,
            physical_width,
            ..long_mode()
        };
        let kind = AccessKind { write: write && !fetch, fetch, implicit: false };
        match translate(&ram, &paging, Linear(linear), kind) {
            Ok(found) => prop_assert_eq!(found.address.get() >> physical_width.max(40), 0),
            Err(Fault::Pf { address, .. }) => prop_assert!(address == linear || address == linear & 0xffff_ffff),
            Err(other) => prop_assert!(false, "{:?}", other),
        }
        for (n, (old, new)) in before.iter().zip(ram.bytes.borrow().iter()).enumerate() {
            let flags = if n % 4 == 0 { 0x60 } else { 0 };
            prop_assert_eq!(old & !flags, new & !flags);
        }
    }
}
