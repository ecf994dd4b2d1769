//! Changing one field, whichever it is.

use vmcs::field::FieldWidth;
use vmcs::fields::*;
use vmcs::{Access, Encoding};

use crate::image::Image;
use crate::rng::Rng;
use crate::{pages, touched};

/// Gives a field that rounds may touch another value: one bit flipped, a boundary, or random.
pub(crate) fn any_field(image: &mut Image, rng: &mut Rng) {
    let count = FIELDS.iter().filter(|field| touched::writes(field)).count() as u64;
    let number = usize::try_from(rng.below(count)).unwrap_or(0);
    let field = FIELDS.iter().filter(|field| touched::writes(field)).nth(number).unwrap_or(&FIELDS[0]);
    let old = image.read_raw(field.encoding);
    let value = if let Some(page) = page_of(field.encoding) {
        address(rng, page)
    } else {
        let bits = match field.encoding.width() {
            FieldWidth::Bits16 => 16,
            FieldWidth::Bits32 => 32,
            FieldWidth::Bits64 | FieldWidth::Natural => 64,
        };
        let value = field.encoding.truncate(any_value(rng, bits, old));
        fit(rng, field.encoding, old, value)
    };
    image.write_raw(field.encoding, value);
}

/// Another value for a field of `bits` bits that holds `old`.
pub(crate) fn any_value(rng: &mut Rng, bits: u64, old: u64) -> u64 {
    match rng.below(14) {
        0 => 0,
        1 => 1,
        2 => u64::MAX,
        3..=7 => old ^ rng.bit(bits),
        8 => old ^ rng.bit(bits) ^ rng.bit(bits),
        9 => 1 << (bits - 1),
        10 => rng.below(256),
        // Where addresses stop and start again to be canonical.
        11 => rng.pick(&[0x7fff_ffff_ffff, 0x8000_0000_0000, 0xffff_7fff_ffff_ffff, 0xffff_8000_0000_0000]),
        _ => rng.next(),
    }
}

/// The page whose address the field holds, for those that only point somewhere.
fn page_of(encoding: Encoding) -> Option<u64> {
    const ZEROS: [Encoding; 6] = [
        IO_BITMAP_A.encoding(),
        IO_BITMAP_B.encoding(),
        MSR_BITMAP.encoding(),
        VMREAD_BITMAP.encoding(),
        VMWRITE_BITMAP.encoding(),
        EPTP_LIST_ADDRESS.encoding(),
    ];
    const OTHERS: [(Encoding, u64); 4] = [
        (APIC_ACCESS_ADDR.encoding(), pages::APIC_ACCESS),
        (VIRTUAL_APIC_PAGE_ADDR.encoding(), pages::VIRTUAL_APIC),
        (PML_ADDRESS.encoding(), pages::PML),
        (VMCS_LINK_POINTER.encoding(), pages::SHADOW_VMCS),
    ];
    if ZEROS.contains(&encoding) {
        return Some(pages::ZEROS);
    }
    OTHERS.iter().find(|(field, _)| *field == encoding).map(|(_, page)| *page)
}

/// An address for a field that wants a page: a good one, a misaligned one, one that is too wide, one without memory.
pub(crate) fn address(rng: &mut Rng, page: u64) -> u64 {
    match rng.below(8) {
        0..=2 => page ^ rng.bit(12),
        3 | 4 => page | 1 << (touched::WIDTH + rng.below(64 - touched::WIDTH)),
        5 => pages::ZEROS,
        6 => pages::NOWHERE,
        _ => page,
    }
}

/// `value` with what must not be changed left as it was, so that both machines can have it and L1 survives it.
pub(crate) fn fit(rng: &mut Rng, encoding: Encoding, old: u64, value: u64) -> u64 {
    let keep = |kept: u64| value & !kept | old & kept;
    const PIN: Encoding = PIN_BASED_VM_EXEC_CONTROL.encoding();
    const PRIMARY: Encoding = CPU_BASED_VM_EXEC_CONTROL.encoding();
    const SECONDARY: Encoding = SECONDARY_VM_EXEC_CONTROL.encoding();
    const EXIT: Encoding = VM_EXIT_CONTROLS.encoding();
    const ENTRY: Encoding = VM_ENTRY_CONTROLS.encoding();
    const CR4: Encoding = GUEST_CR4.encoding();
    const L1_CR3: Encoding = HOST_CR3.encoding();
    const L1_CR4: Encoding = HOST_CR4.encoding();
    const L1_RIP: Encoding = HOST_RIP.encoding();
    const CR3: Encoding = GUEST_CR3.encoding();
    const EPTP: Encoding = EPT_POINTER.encoding();
    const LOAD: Encoding = VM_ENTRY_MSR_LOAD_ADDR.encoding();
    const EXIT_STORE: Encoding = VM_EXIT_MSR_STORE_ADDR.encoding();
    const EXIT_LOAD: Encoding = VM_EXIT_MSR_LOAD_ADDR.encoding();
    match encoding {
        PIN => keep(touched::NO_PIN.bits().into()),
        PRIMARY => keep(touched::NO_PRIMARY.bits().into()),
        SECONDARY => keep(touched::NO_SECONDARY.bits().into()),
        EXIT => keep(touched::NO_EXIT.bits().into()),
        ENTRY => keep(touched::NO_ENTRY.bits().into()),
        CR4 => keep(touched::NO_CR4),
        L1_CR4 => keep(touched::NO_CR4),
        // L1 cannot go on elsewhere: only values that entry refuses.
        L1_RIP => value & !(3 << 62) | 1 << 62,
        L1_CR3 => value | 1 << (touched::WIDTH + rng.below(64 - touched::WIDTH)),
        // PWT and PCD, a page directory pointer table in the page, another page, or too wide.
        CR3 => match rng.below(6) {
            0 => old ^ rng.bit(12),
            1 => pages::ZEROS | rng.pick(&[0, 0x20, 0x18, 0xfe0]),
            2 => rng.pick(&[pages::PML4, pages::PAE_PDPT]),
            _ => old | 1 << (touched::WIDTH + rng.below(64 - touched::WIDTH)),
        },
        EPTP => match rng.below(8) {
            0..=3 => old ^ rng.bit(12),
            4 => old ^ rng.bit(7) ^ rng.bit(7),
            5 => old | 1 << (touched::WIDTH + rng.below(64 - touched::WIDTH)),
            6 => pages::ZEROS | old & 0xfff,
            _ => pages::NOWHERE | old & 0xfff,
        },
        LOAD | EXIT_STORE | EXIT_LOAD => match rng.below(4) {
            0 => old ^ rng.bit(4),
            1 => old | 1 << (touched::WIDTH + rng.below(64 - touched::WIDTH)),
            2 => last_entry(),
            _ => old,
        },
        _ => value,
    }
}

/// The highest address that an MSR list of one entry may have.
pub(crate) fn last_entry() -> u64 {
    (1 << touched::WIDTH) - 16
}
