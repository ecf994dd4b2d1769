//! The valid VMCSs that rounds start from.

use arch::control::{Cr0, Cr4, Rflags};
use vmcs::Access;
use vmcs::controls::{EntryControls, ExitControls, PinBased, PrimaryBased, SecondaryBased};
use vmcs::field::{Field, Natural, W16, W32};
use vmcs::fields::*;

use crate::image::Image;
use crate::pages;
use crate::touched;

/// Controls that must be 1 (SDM 3D A.2 "Reserved Controls and Default Settings", with the "true" capability MSRs).
const PIN_ONES: u32 = 0x16;
const PRIMARY_ONES: u32 = 0x0400_6172;
const EXIT_ONES: u32 = 0x0003_6dfb;
const ENTRY_ONES: u32 = 0x0000_11fb;

/// IA32_PAT after a reset.
const PAT: u64 = 0x0007_0406_0007_0406;
/// EFER.LME and LMA.
const LONG: u64 = 0x500;

/// Fields with values that only L1 knows: the guest puts its own in, unless a round has changed them. What stands here
/// for them passes the same checks.
pub const OWN: [Field<Natural>; 6] = [HOST_CR3, HOST_RIP, HOST_RSP, HOST_GDTR_BASE, HOST_IDTR_BASE, HOST_TR_BASE];

/// What stands in the fields of [`OWN`].
pub const OWN_VALUE: u64 = 0x20_0000;

/// A guest that a round starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 64-bit mode under EPT and unrestricted guest.
    Long,
    /// Compatibility mode.
    Compatibility,
    /// 32-bit protected mode with PAE paging.
    Pae,
    /// 32-bit protected mode without paging.
    Flat,
    /// Real-address mode.
    Real,
    /// Virtual-8086 mode without paging.
    Virtual8086,
    /// 64-bit mode under EPT without unrestricted guest.
    Restricted,
    /// 64-bit mode without EPT.
    LongWithoutEpt,
    /// PAE paging without EPT.
    PaeWithoutEpt,
}

impl Kind {
    /// All kinds, those more often that have more to get wrong.
    pub const CHOICES: [Self; 14] = [
        Self::Long,
        Self::Long,
        Self::Long,
        Self::Long,
        Self::Compatibility,
        Self::Pae,
        Self::Pae,
        Self::Flat,
        Self::Real,
        Self::Virtual8086,
        Self::Restricted,
        Self::Restricted,
        Self::LongWithoutEpt,
        Self::PaeWithoutEpt,
    ];
}

/// The segment registers that a program uses: selector, base, limit, access rights.
pub(crate) type Segment = (Field<W16>, Field<Natural>, Field<W32>, Field<W32>);

pub(crate) const CS: Segment = (GUEST_CS_SELECTOR, GUEST_CS_BASE, GUEST_CS_LIMIT, GUEST_CS_ACCESS_RIGHTS);
pub(crate) const SS: Segment = (GUEST_SS_SELECTOR, GUEST_SS_BASE, GUEST_SS_LIMIT, GUEST_SS_ACCESS_RIGHTS);
pub(crate) const SEGMENTS: [Segment; 6] = [
    CS,
    SS,
    (GUEST_DS_SELECTOR, GUEST_DS_BASE, GUEST_DS_LIMIT, GUEST_DS_ACCESS_RIGHTS),
    (GUEST_ES_SELECTOR, GUEST_ES_BASE, GUEST_ES_LIMIT, GUEST_ES_ACCESS_RIGHTS),
    (GUEST_FS_SELECTOR, GUEST_FS_BASE, GUEST_FS_LIMIT, GUEST_FS_ACCESS_RIGHTS),
    (GUEST_GS_SELECTOR, GUEST_GS_BASE, GUEST_GS_LIMIT, GUEST_GS_ACCESS_RIGHTS),
];

/// The valid VMCS of a kind.
pub(crate) fn of(kind: Kind) -> Image {
    let mut image = Image::EMPTY;
    for field in FIELDS.iter().filter(|field| touched::writes(field)) {
        image.write_raw(field.encoding, 0);
    }
    controls(&mut image);
    host(&mut image);
    guest(&mut image);
    match kind {
        Kind::Long => {}
        Kind::Compatibility => image.write(GUEST_CS_ACCESS_RIGHTS, 0xc09b),
        Kind::Pae => pae(&mut image),
        Kind::Flat => flat(&mut image),
        Kind::Real => real(&mut image),
        Kind::Virtual8086 => virtual_8086(&mut image),
        Kind::Restricted => without(&mut image, SecondaryBased::UNRESTRICTED_GUEST),
        Kind::LongWithoutEpt => {
            without(&mut image, SecondaryBased::UNRESTRICTED_GUEST | SecondaryBased::ENABLE_EPT);
        }
        Kind::PaeWithoutEpt => {
            pae(&mut image);
            without(&mut image, SecondaryBased::UNRESTRICTED_GUEST | SecondaryBased::ENABLE_EPT);
        }
    }
    image
}

fn controls(image: &mut Image) {
    let pin = PinBased::EXTERNAL_INTERRUPT_EXITING
        | PinBased::NMI_EXITING
        | PinBased::VIRTUAL_NMIS
        | PinBased::ACTIVATE_PREEMPTION_TIMER;
    image.write(PIN_BASED_VM_EXEC_CONTROL, PIN_ONES | pin.bits());
    let primary = PrimaryBased::HLT_EXITING
        | PrimaryBased::USE_TPR_SHADOW
        | PrimaryBased::USE_IO_BITMAPS
        | PrimaryBased::USE_MSR_BITMAPS
        | PrimaryBased::ACTIVATE_SECONDARY_CONTROLS;
    image.write(CPU_BASED_VM_EXEC_CONTROL, PRIMARY_ONES | primary.bits());
    let secondary = SecondaryBased::ENABLE_EPT | SecondaryBased::ENABLE_VPID | SecondaryBased::UNRESTRICTED_GUEST;
    image.write(SECONDARY_VM_EXEC_CONTROL, secondary.bits());
    let exit = ExitControls::HOST_ADDRESS_SPACE_SIZE
        | ExitControls::SAVE_IA32_EFER
        | ExitControls::LOAD_IA32_EFER
        | ExitControls::LOAD_IA32_PAT;
    image.write(VM_EXIT_CONTROLS, EXIT_ONES | exit.bits());
    let entry = EntryControls::IA32E_MODE_GUEST
        | EntryControls::LOAD_DEBUG_CONTROLS
        | EntryControls::LOAD_IA32_EFER
        | EntryControls::LOAD_IA32_PAT;
    image.write(VM_ENTRY_CONTROLS, ENTRY_ONES | entry.bits());

    image.write(EXCEPTION_BITMAP, u32::MAX);
    image.write(VIRTUAL_PROCESSOR_ID, 1);
    image.write(TSC_MULTIPLIER, 1 << 48);
    image.write(CR0_GUEST_HOST_MASK, u64::MAX);
    image.write(CR4_GUEST_HOST_MASK, u64::MAX);
    for bitmap in [IO_BITMAP_A, IO_BITMAP_B, MSR_BITMAP, VMREAD_BITMAP, VMWRITE_BITMAP, EPTP_LIST_ADDRESS] {
        image.write(bitmap, pages::ZEROS);
    }
    image.write(APIC_ACCESS_ADDR, pages::APIC_ACCESS);
    image.write(VIRTUAL_APIC_PAGE_ADDR, pages::VIRTUAL_APIC);
    image.write(PML_ADDRESS, pages::PML);
    image.write(GUEST_PML_INDEX, 511);
    // Write-back, four levels.
    image.write(EPT_POINTER, pages::EPT | 3 << 3 | 6);
    image.write(VM_ENTRY_MSR_LOAD_ADDR, pages::ENTRY_LOAD);
    image.write(VM_EXIT_MSR_STORE_ADDR, pages::EXIT_STORE);
    image.write(VM_EXIT_MSR_LOAD_ADDR, pages::EXIT_LOAD);
}

/// L1 itself: the selectors of its descriptor table; the fields of [`OWN`] stand for something near.
fn host(image: &mut Image) {
    image.write(HOST_CR0, 0x8001_0033);
    image.write(HOST_CR4, 0x2020);
    for field in OWN {
        image.write(field, OWN_VALUE);
    }
    image.write(HOST_CS_SELECTOR, 0x08);
    for selector in [HOST_SS_SELECTOR, HOST_DS_SELECTOR, HOST_ES_SELECTOR] {
        image.write(selector, 0x10);
    }
    image.write(HOST_TR_SELECTOR, 0x40);
    image.write(HOST_IA32_EFER, LONG);
    image.write(HOST_IA32_PAT, PAT);
}

fn guest(image: &mut Image) {
    image.write(GUEST_CR0, 0x8000_0031);
    image.write(GUEST_CR3, pages::PML4);
    image.write(GUEST_CR4, 0x2020);
    image.write(GUEST_DR7, 0x400);
    image.write(GUEST_IA32_EFER, LONG);
    image.write(GUEST_IA32_PAT, PAT);
    image.write(GUEST_RIP, pages::CODE);
    image.write(GUEST_RSP, pages::STACK + 0x800);
    image.write(GUEST_RFLAGS, 0x202);
    image.write(VMCS_LINK_POINTER, u64::MAX);
    image.write(VMX_PREEMPTION_TIMER_VALUE, 0x4000);
    for (selector, _, limit, rights) in SEGMENTS {
        image.write(selector, 0x10);
        image.write(limit, u32::MAX);
        image.write(rights, 0xc093);
    }
    image.write(GUEST_CS_SELECTOR, 0x08);
    image.write(GUEST_CS_ACCESS_RIGHTS, 0xa09b);
    image.write(GUEST_LDTR_ACCESS_RIGHTS, 1 << 16);
    image.write(GUEST_TR_SELECTOR, 0x18);
    image.write(GUEST_TR_LIMIT, 0x67);
    image.write(GUEST_TR_ACCESS_RIGHTS, 0x8b);
    image.write(GUEST_GDTR_BASE, pages::STACK);
    image.write(GUEST_GDTR_LIMIT, 0x27);
    image.write(GUEST_IDTR_BASE, pages::STACK);
    for (index, entry) in PDPTES.into_iter().enumerate() {
        image.write(entry, if index == 0 { pages::DIRECTORY | 1 } else { 0 });
    }
}

pub(crate) const PDPTES: [Field<vmcs::field::W64>; 4] = [GUEST_PDPTE0, GUEST_PDPTE1, GUEST_PDPTE2, GUEST_PDPTE3];

fn without(image: &mut Image, controls: SecondaryBased) {
    image.write(SECONDARY_VM_EXEC_CONTROL, image.read(SECONDARY_VM_EXEC_CONTROL) & !controls.bits());
}

/// Leaves IA-32e mode.
fn legacy(image: &mut Image) {
    image.write(VM_ENTRY_CONTROLS, image.read(VM_ENTRY_CONTROLS) & !EntryControls::IA32E_MODE_GUEST.bits());
    image.write(GUEST_IA32_EFER, 0);
    image.write(GUEST_CS_ACCESS_RIGHTS, 0xc09b);
}

fn pae(image: &mut Image) {
    legacy(image);
    image.write(GUEST_CR3, pages::PAE_PDPT);
}

fn flat(image: &mut Image) {
    legacy(image);
    image.write(GUEST_CR0, (Cr0::PE | Cr0::ET | Cr0::NE).bits());
    image.write(GUEST_CR4, Cr4::VMXE.bits());
}

/// All segments of 64 KiB at [`pages::LOW`].
fn low(image: &mut Image, rights: u32) {
    flat(image);
    for (selector, base, limit, field) in SEGMENTS {
        image.write(selector, 0x1000);
        image.write(base, pages::LOW);
        image.write(limit, 0xffff);
        image.write(field, rights);
    }
    image.write(GUEST_RIP, 0);
    image.write(GUEST_RSP, 0x1800);
}

fn real(image: &mut Image) {
    low(image, 0x93);
    image.write(GUEST_CR0, (Cr0::ET | Cr0::NE).bits());
}

fn virtual_8086(image: &mut Image) {
    low(image, 0xf3);
    image.write(GUEST_RFLAGS, image.read(GUEST_RFLAGS) | Rflags::VM.bits());
}
