//! The physical pages that the rounds use: where they are, and what is in them.
//!
//! They lie above 32 MiB, where neither a boot loader nor the guest's own program is, at addresses that the host knows
//! too: VM entry reads some of them, and the host has to know what it finds there.

/// The first of the pages.
pub const FIRST: u64 = 0x200_0000;
/// How many bytes they are.
pub const SIZE: u64 = 0x20_0000;

/// L2's code: every byte is INT3, so that L2 exits at once wherever it starts and in whatever mode.
pub const CODE: u64 = FIRST;
/// L2's stack, and its empty descriptor tables.
pub const STACK: u64 = FIRST + 0x1000;
/// L2's page tables for IA-32e paging. They map [`CODE`] and [`STACK`] to themselves.
pub const PML4: u64 = FIRST + 0x2000;
const PDPT: u64 = FIRST + 0x3000;
/// The page directory of both kinds of paging.
pub const DIRECTORY: u64 = FIRST + 0x4000;
const TABLE: u64 = FIRST + 0x5000;
/// Page-directory-pointer table for PAE paging.
pub const PAE_PDPT: u64 = FIRST + 0x6000;
/// EPT tables. They map L2's code, stack and page tables to themselves, and code and stack again at [`LOW`].
pub const EPT: u64 = FIRST + 0x7000;
const EPT_PDPT: u64 = FIRST + 0x8000;
const EPT_DIRECTORY: u64 = FIRST + 0x9000;
const EPT_TABLE: u64 = FIRST + 0xa000;
const EPT_LOW_TABLE: u64 = FIRST + 0xb000;
/// A page of zeros for the bitmaps and all else that is only pointed to.
pub const ZEROS: u64 = FIRST + 0xc000;
/// Virtual-APIC page.
pub const VIRTUAL_APIC: u64 = FIRST + 0xd000;
/// APIC-access page.
pub const APIC_ACCESS: u64 = FIRST + 0xe000;
/// The page-modification log.
pub const PML: u64 = FIRST + 0xf000;
/// A shadow VMCS.
pub const SHADOW_VMCS: u64 = FIRST + 0x1_0000;
/// A VMCS that is no shadow VMCS.
pub const OTHER_VMCS: u64 = FIRST + 0x1_1000;
/// The current VMCS.
pub const VMCS: u64 = FIRST + 0x1_2000;
/// The VMXON region.
pub const VMXON: u64 = FIRST + 0x1_3000;
/// The MSRs that an entry loads.
pub const ENTRY_LOAD: u64 = FIRST + 0x1_4000;
/// The MSRs that an exit stores.
pub const EXIT_STORE: u64 = FIRST + 0x1_5000;
/// The MSRs that an exit loads.
pub const EXIT_LOAD: u64 = FIRST + 0x1_6000;

/// Where L2 has [`CODE`] below 1 MiB, for real-address and virtual-8086 mode; [`STACK`] follows.
pub const LOW: u64 = 0x1_0000;

/// A page without memory: reads as all ones.
pub const NOWHERE: u64 = 0x8_0000_0000;

/// VTPR of the virtual-APIC page.
pub const VTPR: u64 = VIRTUAL_APIC + 0x80;
/// VTPR of a round that does not change it.
pub const VTPR_VALUE: u64 = 0x50;

/// Entries of the exit lists that are good: no more may be used.
pub const EXIT_ENTRIES: u64 = 2;
/// IA32_STAR, IA32_LSTAR and IA32_KERNEL_GS_BASE: nobody here uses them.
pub const PLAIN_MSRS: [u64; 3] = [0xc000_0081, 0xc000_0082, 0xc000_0102];
/// An entry with a reserved bit in its MSR number: no list goes on beyond it.
pub const END_OF_LIST: u64 = 1 << 32;

/// Present, writable, for all, accessed, dirty.
const PAGE: u64 = 0x67;
/// Readable, writable, accessed, dirty.
const EPT_DATA: u64 = 0x303;
/// The same and executable, for both privilege levels.
const EPT_CODE: u64 = EPT_DATA | 1 << 2 | 1 << 10;

/// The 64-bit word at `address`, a multiple of 8 within the pages, before any round. `revision` is the processor's VMCS
/// revision identifier.
pub fn word(address: u64, revision: u32) -> u64 {
    let index = address >> 3 & 0x1ff;
    let table_index = FIRST >> 21 & 0x1ff;
    match (address & !0xfff, index) {
        (CODE, _) => 0xcccc_cccc_cccc_cccc,
        (PML4, 0) => PDPT | PAGE,
        (PDPT, 0) => DIRECTORY | PAGE,
        (DIRECTORY, _) if index == table_index => TABLE | PAGE,
        (TABLE, 0) => CODE | PAGE,
        (TABLE, 1) => STACK | PAGE,
        (PAE_PDPT, 0) => DIRECTORY | 1,
        (EPT, 0) => EPT_PDPT | EPT_CODE,
        (EPT_PDPT, 0) => EPT_DIRECTORY | EPT_CODE,
        (EPT_DIRECTORY, 0) => EPT_LOW_TABLE | EPT_CODE,
        (EPT_DIRECTORY, _) if index == table_index => EPT_TABLE | EPT_CODE,
        // A leaf also says its memory type: write-back.
        (EPT_TABLE, 0) => CODE | EPT_CODE | 6 << 3,
        (EPT_TABLE, 1..=6) => (FIRST + (index << 12)) | EPT_DATA | 6 << 3,
        (EPT_LOW_TABLE, 0x10) => CODE | EPT_CODE | 6 << 3,
        (EPT_LOW_TABLE, 0x11) => STACK | EPT_DATA | 6 << 3,
        (VIRTUAL_APIC, 0x10) => VTPR_VALUE,
        (SHADOW_VMCS, 0) => u64::from(revision) | 1 << 31,
        (OTHER_VMCS | VMCS | VMXON, 0) => u64::from(revision),
        (ENTRY_LOAD | EXIT_STORE | EXIT_LOAD, _) if index & 1 == 0 => {
            PLAIN_MSRS.get(usize::try_from(index >> 1).unwrap_or(usize::MAX)).copied().unwrap_or(END_OF_LIST)
        }
        _ => 0,
    }
}
