//! What one entry of an extended page table says.
//!
//! SDM 3C, 29.3.2 "EPT Translation Mechanism", tables "Format of an EPT PML4 Entry" to "Format of an EPT Page-Table
//! Entry that Maps a 4-KByte Page".

use bit_field::BitField;
use bitflags::bitflags;

/// Bits 51:12: the address of a table or of a 4-KiB page.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// Bit 6 of a leaf: the guest's PAT has no say in the memory type.
const IGNORE_PAT: u64 = 1 << 6;
/// Bit 7 of a level-2 or level-3 entry: a page, not a table.
const LARGE: u64 = 1 << 7;
/// Bit 8: accessed, if the EPTP enables the flags.
const ACCESSED: u64 = 1 << 8;
/// Bit 9 of a leaf: dirty, if the EPTP enables the flags.
const DIRTY: u64 = 1 << 9;

bitflags! {
    /// What a guest may do with a page, at the positions that the bits have in an entry.
    ///
    /// An access needs its permission in every entry of the walk.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct Permissions: u64 {
        /// Data reads (bit 0).
        const READ = 1 << 0;
        /// Writes (bit 1); without `READ` the entry is misconfigured.
        const WRITE = 1 << 1;
        /// Instruction fetches (bit 2); under mode-based execute control those from supervisor-mode linear addresses.
        const EXECUTE = 1 << 2;
        /// Instruction fetches from user-mode linear addresses (bit 10); the processor ignores the bit unless the
        /// VM-execution control "mode-based execute control for EPT" is 1.
        const EXECUTE_USER = 1 << 10;
        /// Everything, whether or not mode-based execute control is in use.
        const ALL = Self::READ.bits() | Self::WRITE.bits() | Self::EXECUTE.bits() | Self::EXECUTE_USER.bits();
    }
}

impl Permissions {
    /// What they mean where mode-based execute control is not in use: bit 2 alone decides about all fetches.
    pub const fn without_modes(self) -> Self {
        let others = self.difference(Self::EXECUTE_USER);
        if self.contains(Self::EXECUTE) { others.union(Self::EXECUTE_USER) } else { others }
    }
}

#[cfg(feature = "defmt")]
impl defmt::Format for Permissions {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "{=u64:#x}", self.bits());
    }
}

/// Memory type of a page, as encoded in bits 5:3 of a leaf (SDM 3C, 29.3.7.2 "Memory Type Used for Translated
/// Guest-Physical Addresses").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(u8)]
pub enum MemoryType {
    /// UC.
    Uncacheable = 0,
    /// WC.
    WriteCombining = 1,
    /// WT.
    WriteThrough = 4,
    /// WP.
    WriteProtected = 5,
    /// WB.
    WriteBack = 6,
}

impl MemoryType {
    /// The type with encoding `bits`; `None` for the reserved encodings 2, 3 and 7 and above.
    pub const fn from_bits(bits: u64) -> Option<Self> {
        match bits {
            0 => Some(Self::Uncacheable),
            1 => Some(Self::WriteCombining),
            4 => Some(Self::WriteThrough),
            5 => Some(Self::WriteProtected),
            6 => Some(Self::WriteBack),
            _ => None,
        }
    }
}

/// Size of a page. A larger page compares as greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum PageSize {
    /// 4 KiB: a leaf of level 1.
    Size4K,
    /// 2 MiB: a leaf of level 2.
    Size2M,
    /// 1 GiB: a leaf of level 3.
    Size1G,
}

impl PageSize {
    /// Number of bytes.
    pub const fn bytes(self) -> u64 {
        match self {
            Self::Size4K => 1 << 12,
            Self::Size2M => 1 << 21,
            Self::Size1G => 1 << 30,
        }
    }

    /// The level of the entries that map pages of this size: 1 to 3.
    pub const fn level(self) -> u8 {
        match self {
            Self::Size4K => 1,
            Self::Size2M => 2,
            Self::Size1G => 3,
        }
    }

    /// The size of a leaf of `level` (1 is the level of 4-KiB pages); `None` above 3, where no entry maps a page.
    pub const fn of_level(level: u8) -> Option<Self> {
        match level {
            1 => Some(Self::Size4K),
            2 => Some(Self::Size2M),
            3 => Some(Self::Size1G),
            _ => None,
        }
    }
}

/// One entry, of whichever level. Bits 63:52 and 11 are left as they are; nothing here uses them.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
#[repr(transparent)]
pub struct Entry(pub u64);

impl Entry {
    /// An entry that maps nothing.
    pub const ABSENT: Self = Self(0);

    /// An entry that refers to the table at physical address `table` (a multiple of 4096 below 2^52) and restricts
    /// nothing.
    pub const fn table(table: u64) -> Self {
        Self(table & ADDRESS | Permissions::ALL.bits())
    }

    /// An entry that maps the page of `size` at physical address `target` (a multiple of the size below 2^52). The
    /// guest's PAT takes part in its memory type, as it does on the bare machine.
    pub const fn leaf(target: u64, size: PageSize, permissions: Permissions, memory_type: MemoryType) -> Self {
        let large = match size {
            PageSize::Size4K => 0,
            PageSize::Size2M | PageSize::Size1G => LARGE,
        };
        Self(target & ADDRESS | permissions.bits() | (memory_type as u64) << 3 | large)
    }

    /// What the entry permits by itself.
    pub const fn permissions(self) -> Permissions {
        Permissions::from_bits_truncate(self.0)
    }

    /// Whether the entry maps anything; `mode_based_execute` says whether bit 10 counts as a permission.
    pub const fn is_present(self, mode_based_execute: bool) -> bool {
        let counted = if mode_based_execute { 0b111 | Permissions::EXECUTE_USER.bits() } else { 0b111 };
        self.0 & counted != 0
    }

    /// Whether a present entry of `level` maps a page; otherwise it refers to a table.
    pub const fn is_leaf(self, level: u8) -> bool {
        level == 1 || level <= 3 && self.0 & LARGE != 0
    }

    /// Bits 51:12 as an address. A large page's address has its low bits zero unless the entry is misconfigured.
    pub const fn address(self) -> u64 {
        self.0 & ADDRESS
    }

    /// The memory type of a leaf, bits 5:3; `None` if reserved.
    pub fn memory_type(self) -> Option<MemoryType> {
        MemoryType::from_bits(self.0.get_bits(3..6))
    }

    /// Whether a leaf keeps the guest's PAT out of the memory type.
    pub const fn ignores_pat(self) -> bool {
        self.0 & IGNORE_PAT != 0
    }

    /// The accessed flag; meaningful if the EPTP enables accessed and dirty flags.
    pub const fn is_accessed(self) -> bool {
        self.0 & ACCESSED != 0
    }

    /// The dirty flag of a leaf; meaningful if the EPTP enables accessed and dirty flags.
    pub const fn is_dirty(self) -> bool {
        self.0 & DIRTY != 0
    }

    /// The entry after the processor has used it: with the accessed flag, and with the dirty flag if `dirty`.
    pub const fn used(self, dirty: bool) -> Self {
        Self(self.0 | ACCESSED | if dirty { DIRTY } else { 0 })
    }

    /// The entry with a say of the guest's PAT or without, as `like` has it.
    pub const fn with_pat_of(self, like: Self) -> Self {
        Self(self.0 & !IGNORE_PAT | like.0 & IGNORE_PAT)
    }

    /// Whether both entries say the same, whatever the processor has noted in the accessed and dirty flags.
    pub const fn same_but_flags(self, other: Self) -> bool {
        (self.0 ^ other.0) & !(ACCESSED | DIRTY) == 0
    }

    /// Whether this entry differs from `old` at most in permitting more, accessed and dirty flags aside: then nothing that
    /// a processor has cached of `old` is wrong.
    pub const fn only_adds_to(self, old: Self) -> bool {
        let old_permissions = old.permissions();
        self.permissions().contains(old_permissions)
            && self.same_but_flags(Self(old.0 & !old_permissions.bits() | self.permissions().bits()))
    }

    /// The leaf of the next smaller size that maps the part of this large page `offset` bytes into it (a multiple of
    /// that size). Permissions, memory type and flags stay.
    pub const fn part(self, smaller: PageSize, offset: u64) -> Self {
        let large = match smaller {
            PageSize::Size4K => 0,
            PageSize::Size2M | PageSize::Size1G => LARGE,
        };
        Self((self.0 & !LARGE | large).wrapping_add(offset))
    }
}

impl core::fmt::Debug for Entry {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

#[cfg(feature = "defmt")]
impl defmt::Format for Entry {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "{=u64:#x}", self.0);
    }
}
