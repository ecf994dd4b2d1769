//! Translation of one address, with every rule about misconfigured entries.
//!
//! Works on plain numbers and reads entries through a closure: [`Ept::walk`](crate::Ept::walk) passes our own tables;
//! tables that a guest hypervisor wrote lie in that guest's memory, are as hostile as it, and go through the same code.

use crate::entry::{Entry, MemoryType, PageSize, Permissions};

/// Levels of a walk: PML4, page-directory-pointer table, page directory, page table.
pub const LEVELS: u8 = 4;

/// Addresses at or above 2^48 are beyond a four-level walk.
pub const ADDRESS_BITS: u32 = 48;

/// What the processor that owns the tables supports; it decides which entries are misconfigured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Execute-only translations are supported (IA32_VMX_EPT_VPID_CAP bit 0).
    pub execute_only: bool,
    /// The VM-execution control "mode-based execute control for EPT" is 1.
    pub mode_based_execute: bool,
    /// The largest page supported (IA32_VMX_EPT_VPID_CAP bits 16 and 17).
    pub largest: PageSize,
    /// Physical-address width in bits (CPUID.80000008H:EAX[7:0]), 32 to 52.
    pub physical_width: u32,
}

/// Where a walk ended: the page and what the walk as a whole permits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// Physical address that the walked address translates to, offset in the page included.
    pub target: u64,
    /// Size of the page.
    pub size: PageSize,
    /// What all entries of the walk permit together.
    pub permissions: Permissions,
    /// Memory type of the page.
    pub memory_type: MemoryType,
    /// The entry that maps the page.
    pub entry: Entry,
    /// Physical address of that entry's table, for updating the entry's flags.
    pub table: u64,
    /// Index of the entry in that table.
    pub index: usize,
}

/// Why a walk found no page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Miss<E> {
    /// An entry is not present: an access is an EPT violation, and its qualification shows no permission.
    NotMapped {
        /// Level of the absent entry, 4 (PML4) to 1; 4 too if the address is beyond the walk's width.
        level: u8,
    },
    /// An entry breaks a rule: an access is an EPT misconfiguration, whatever kind of access it is.
    Misconfigured {
        /// Level of the entry, 4 (PML4) to 1.
        level: u8,
        /// The entry.
        entry: Entry,
    },
    /// An entry could not be read.
    Unreadable(E),
}

/// Translates `address` by the tables at physical address `root`; `read` returns an entry by the physical address of its
/// table and its index (below 512).
///
/// Accesses are not judged: compare [`Leaf::permissions`] with what the access needs.
pub fn walk<E>(
    root: u64,
    rules: &Rules,
    address: u64,
    mut read: impl FnMut(u64, usize) -> Result<u64, E>,
) -> Result<Leaf, Miss<E>> {
    if address >> ADDRESS_BITS != 0 {
        return Err(Miss::NotMapped { level: LEVELS });
    }
    let mut table = root;
    let mut permissions = Permissions::ALL;
    let mut level = LEVELS;
    loop {
        let index = index(address, level);
        let entry = Entry(read(table, index).map_err(Miss::Unreadable)?);
        if !entry.is_present(rules.mode_based_execute) {
            return Err(Miss::NotMapped { level });
        }
        let misconfigured = Err(Miss::Misconfigured { level, entry });
        if breaks_a_rule(entry, level, rules) {
            return misconfigured;
        }
        permissions &= entry.permissions();
        if !entry.is_leaf(level) {
            table = entry.address();
            level -= 1;
            continue;
        }
        let (Some(size), Some(memory_type)) = (PageSize::of_level(level), entry.memory_type()) else {
            return misconfigured;
        };
        let target = entry.address() | address & (size.bytes() - 1);
        return Ok(Leaf { target, size, permissions, memory_type, entry, table, index });
    }
}

/// Index of the entry that translates `address` in a table of `level`.
pub(crate) const fn index(address: u64, level: u8) -> usize {
    (address >> (12 + 9 * (level as u32 - 1)) & 0x1ff) as usize
}

/// Whether the present `entry` of `level` is misconfigured, reserved memory types aside: SDM 3C, 29.3.3.1 "EPT
/// Misconfigurations", in its order.
fn breaks_a_rule(entry: Entry, level: u8, rules: &Rules) -> bool {
    let permissions = entry.permissions();
    if !permissions.contains(Permissions::READ) {
        if permissions.contains(Permissions::WRITE) {
            return true;
        }
        // What is left is execute-only: bit 2, or bit 10 where it counts; is_present has seen one of them.
        if !rules.execute_only {
            return true;
        }
    }
    entry.0 & reserved_bits(entry, level, rules) != 0
}

/// The bits that must be zero in the present `entry` of `level`.
fn reserved_bits(entry: Entry, level: u8, rules: &Rules) -> u64 {
    let beyond_width = 0x000f_ffff_ffff_f000 & u64::MAX.checked_shl(rules.physical_width).unwrap_or(0);
    let by_level = match (level, entry.is_leaf(level)) {
        // A 4-KiB page has all its address bits, and its bit 7 is ignored.
        (1, _) => 0,
        // Where a page of this size is not supported, bit 7 itself is reserved.
        (2, true) if rules.largest < PageSize::Size2M => 1 << 7,
        (3, true) if rules.largest < PageSize::Size1G => 1 << 7,
        (2, true) => PageSize::Size2M.bytes() - PageSize::Size4K.bytes(),
        (3, true) => PageSize::Size1G.bytes() - PageSize::Size4K.bytes(),
        // A reference to a table has no memory type: bits 6:3.
        (2 | 3, false) => 0x78,
        // In a PML4 entry bit 7 is reserved too.
        _ => 0xf8,
    };
    beyond_width | by_level
}
