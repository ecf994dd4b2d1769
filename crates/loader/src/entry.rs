//! How the first vCPU starts: the 32-bit entry that the Linux boot protocol and multiboot1 share.

use arch::GuestPhys;
use arch::segment::{AccessRights, Segment};

/// Selector of the flat code segment: Linux calls it `__BOOT_CS` and requires it
/// (Linux Documentation/arch/x86/boot.rst "32-bit Boot Protocol").
pub const CODE_SELECTOR: u16 = 0x10;
/// Selector of the flat data segment, `__BOOT_DS`.
pub const DATA_SELECTOR: u16 = 0x18;

/// The GDT that the selectors refer to: two empty entries, flat code, flat data
/// (SDM 3A, 3.4.5 "Segment Descriptors"): base 0, limit 4 GiB, present, ring 0, 32-bit; accessed already.
const GDT: [u64; 4] = [0, 0, 0x00cf_9b00_0000_ffff, 0x00cf_9300_0000_ffff];

/// The GDT's limit: its bytes less one.
const GDT_LIMIT: u16 = 31;
const _: () = assert!(GDT_LIMIT as usize + 1 == GDT_BYTES);

/// Bytes of the GDT.
pub(crate) const GDT_BYTES: usize = size_of::<[u64; 4]>();

/// Bytes of the stack that the kernel finds; they are below the GDT.
pub const STACK_BYTES: u64 = 1024;

/// The GDT as it lies in memory.
pub(crate) fn gdt_image() -> [u8; GDT_BYTES] {
    let mut image = [0; GDT_BYTES];
    for (slot, descriptor) in image.chunks_exact_mut(8).zip(GDT) {
        slot.copy_from_slice(&descriptor.to_le_bytes());
    }
    image
}

/// The state in which the first vCPU starts: protected mode (CR0.PE), paging off, EFER 0, interrupts off
/// (RFLAGS = 2), flat segments, every register that is not named here zero.
///
/// ES, SS, DS, FS and GS hold [`EntryState::data`], CS holds [`EntryState::code`]; LDTR is unusable, and the IDT is
/// empty (limit 0).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct EntryState {
    /// Address of the first instruction, below 4 GiB.
    pub rip: u32,
    /// multiboot1: the loader's magic number; Linux: 0.
    pub eax: u32,
    /// multiboot1: address of the information structure; Linux: 0.
    pub ebx: u32,
    /// Linux: address of `boot_params`, the "zero page"; multiboot1: 0.
    pub esi: u32,
    /// End of a small stack ([`STACK_BYTES`]). Both protocols leave the stack to the kernel, but other boot loaders
    /// happen to leave a usable one, so a kernel that pushes too early starts there and should start here.
    pub esp: u32,
    /// Code segment: flat, 4 GiB, 32-bit, ring 0.
    pub code: Segment,
    /// Data segment: flat, 4 GiB, ring 0.
    pub data: Segment,
    /// Address of the GDT that has both segments.
    pub gdt_base: GuestPhys,
    /// Its limit: bytes less one.
    pub gdt_limit: u16,
}

impl EntryState {
    /// An entry at `rip` with the GDT at `gdt_base`, the stack right below it, and the other registers zero.
    pub(crate) fn new(rip: u32, gdt_base: u32) -> Self {
        // Types 11 and 3 (accessed), S, P, D/B, G: SDM 3C 26.4.1 "Guest Register State".
        let flat = |selector, rights| Segment { selector, base: 0, limit: u32::MAX, rights: AccessRights(rights) };
        Self {
            rip,
            eax: 0,
            ebx: 0,
            esi: 0,
            esp: gdt_base,
            code: flat(CODE_SELECTOR, 0xc09b),
            data: flat(DATA_SELECTOR, 0xc093),
            gdt_base: GuestPhys(gdt_base.into()),
            gdt_limit: GDT_LIMIT,
        }
    }
}
