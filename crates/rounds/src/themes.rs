//! Changes of fields that VM entry looks at together.

use arch::control::{Cr0, Cr4, Rflags};
use vmcs::controls::{EntryControls, ExitControls, PinBased, PrimaryBased, SecondaryBased};
use vmcs::field::{Field, W32};
use vmcs::fields::*;
use vmcs::{Access, Encoding};

use crate::baseline::{CS, PDPTES, SEGMENTS, SS};
use crate::change::{address, any_value, fit, last_entry};
use crate::image::Image;
use crate::rng::Rng;
use crate::{Words, pages};

type Theme = fn(&mut Image, &mut Rng, &mut Words);

const THEMES: [Theme; 20] = [
    control_bits,
    control_bits,
    pointers,
    pointers,
    event_controls,
    injection,
    injection,
    activity,
    interruptibility,
    pending_debug,
    virtual_8086,
    segment,
    segment,
    privilege,
    system_segment,
    modes,
    pdptes,
    eptp,
    task_priority,
    links_and_lists,
];

/// Applies one theme.
pub(crate) fn any(image: &mut Image, rng: &mut Rng, words: &mut Words) {
    rng.pick(&THEMES)(image, rng, words);
}

fn put(image: &mut Image, rng: &mut Rng, encoding: Encoding, value: u64) {
    let value = fit(rng, encoding, image.read_raw(encoding), value);
    image.write_raw(encoding, value);
}

fn flip(image: &mut Image, rng: &mut Rng, field: Field<W32>, limit: u64) {
    let value = u64::from(image.read(field)) ^ rng.bit(limit);
    put(image, rng, field.encoding(), value);
}

/// One bit in each of two control words.
fn control_bits(image: &mut Image, rng: &mut Rng, _: &mut Words) {
    const WORDS: [Field<W32>; 5] = [
        PIN_BASED_VM_EXEC_CONTROL,
        CPU_BASED_VM_EXEC_CONTROL,
        SECONDARY_VM_EXEC_CONTROL,
        VM_EXIT_CONTROLS,
        VM_ENTRY_CONTROLS,
    ];
    for _ in 0..2 {
        let word = rng.pick(&WORDS);
        flip(image, rng, word, 32);
    }
}

/// A control that needs an address or a number, which may be wrong, and "enable EPT", which some need too.
fn pointers(image: &mut Image, rng: &mut Rng, _: &mut Words) {
    let control = match rng.below(8) {
        0 | 1 => {
            image.write(APIC_ACCESS_ADDR, address(rng, pages::APIC_ACCESS));
            SecondaryBased::VIRTUALIZE_APIC_ACCESSES
        }
        2 => {
            image.write(PML_ADDRESS, address(rng, pages::PML));
            SecondaryBased::ENABLE_PML
        }
        3 => {
            let bitmap = rng.pick(&[VMREAD_BITMAP, VMWRITE_BITMAP]);
            image.write(bitmap, address(rng, pages::ZEROS));
            SecondaryBased::VMCS_SHADOWING
        }
        4 | 5 => {
            image.write(VM_FUNCTION_CONTROL, rng.pick(&[0, 1, 1, 1, 2, 1 << 63]));
            image.write(EPTP_LIST_ADDRESS, address(rng, pages::ZEROS));
            SecondaryBased::ENABLE_VM_FUNCTIONS
        }
        6 => {
            image.write(TSC_MULTIPLIER, rng.pick(&[0, 1, 1 << 48, u64::MAX]));
            SecondaryBased::USE_TSC_SCALING
        }
        _ => {
            image.write(VIRTUAL_PROCESSOR_ID, rng.pick(&[0, 1, 0xffff]));
            SecondaryBased::ENABLE_VPID
        }
    };
    let mut word = image.read(SECONDARY_VM_EXEC_CONTROL) | control.bits();
    if rng.one_in(6) {
        word &= !(SecondaryBased::ENABLE_EPT | SecondaryBased::UNRESTRICTED_GUEST).bits();
    }
    put(image, rng, SECONDARY_VM_EXEC_CONTROL.encoding(), word.into());
}

/// The controls of NMIs, interrupts and their windows, or of the VMX-preemption timer.
fn event_controls(image: &mut Image, rng: &mut Rng, _: &mut Words) {
    if rng.one_in(4) {
        let timer = u32::from(rng.one_in(2)) * PinBased::ACTIVATE_PREEMPTION_TIMER.bits();
        image.write(PIN_BASED_VM_EXEC_CONTROL, image.read(PIN_BASED_VM_EXEC_CONTROL) ^ timer);
        image.write(VM_EXIT_CONTROLS, image.read(VM_EXIT_CONTROLS) | ExitControls::SAVE_PREEMPTION_TIMER_VALUE.bits());
        return;
    }
    const PIN: PinBased =
        PinBased::NMI_EXITING.union(PinBased::VIRTUAL_NMIS).union(PinBased::EXTERNAL_INTERRUPT_EXITING);
    const WINDOWS: PrimaryBased = PrimaryBased::NMI_WINDOW_EXITING.union(PrimaryBased::INTERRUPT_WINDOW_EXITING);
    let random = rng.next();
    let word = u64::from(image.read(PIN_BASED_VM_EXEC_CONTROL)) ^ random & u64::from(PIN.bits());
    put(image, rng, PIN_BASED_VM_EXEC_CONTROL.encoding(), word);
    let random = rng.next();
    let word = u64::from(image.read(CPU_BASED_VM_EXEC_CONTROL)) ^ random & u64::from(WINDOWS.bits());
    put(image, rng, CPU_BASED_VM_EXEC_CONTROL.encoding(), word);
}

/// An event, mostly well formed, with an error code, an instruction length and a mode that may not go with it.
fn injection(image: &mut Image, rng: &mut Rng, _: &mut Words) {
    let event = event(rng);
    image.write(VM_ENTRY_INTERRUPTION_INFO, event);
    let error = if rng.one_in(3) { rng.next() } else { rng.below(0x1_0000) };
    image.write_raw(VM_ENTRY_EXCEPTION_ERROR_CODE.encoding(), error);
    if event >> 8 & 7 == 7 && rng.one_in(3) {
        image.write(
            CPU_BASED_VM_EXEC_CONTROL,
            image.read(CPU_BASED_VM_EXEC_CONTROL) | PrimaryBased::MONITOR_TRAP_FLAG.bits(),
        );
    }
    image.write(VM_ENTRY_INSTRUCTION_LEN, rng.pick(&[0, 1, 2, 15, 16, 0x8000_0001]));
    if rng.one_in(3) {
        image.write(GUEST_RFLAGS, image.read(GUEST_RFLAGS) ^ Rflags::IF.bits());
    }
}

/// A word for event injection.
fn event(rng: &mut Rng) -> u32 {
    let kind = u32::try_from(rng.below(8)).unwrap_or(0);
    let vector = match (kind, rng.below(4)) {
        (_, 0) => u32::try_from(rng.below(256)).unwrap_or(0),
        (2, _) => 2,
        (7, _) => 0,
        (_, _) => u32::try_from(rng.below(34)).unwrap_or(0),
    };
    let has_error = kind == 3 && matches!(vector, 8 | 10..=14 | 17);
    let error = if rng.one_in(6) { !has_error } else { has_error };
    let reserved = if rng.one_in(10) { 1 << (12 + rng.below(19)) } else { 0 };
    1 << 31 | reserved | u32::from(error) << 11 | kind << 8 | vector
}

/// An activity state with what may not go with it: an event, blocking, a privilege level.
fn activity(image: &mut Image, rng: &mut Rng, _: &mut Words) {
    image.write(GUEST_ACTIVITY_STATE, rng.pick(&[1, 1, 1, 2, 2, 3, 4]));
    match rng.below(4) {
        0 => blocking(image, rng),
        1 => step(image, rng),
        2 => {
            image.write(GUEST_SS_ACCESS_RIGHTS, image.read(GUEST_SS_ACCESS_RIGHTS) ^ 3 << 5);
        }
        _ => {
            image.write(VM_ENTRY_INTERRUPTION_INFO, event(rng) & !0x7fff_f000);
            image.write(VM_ENTRY_INSTRUCTION_LEN, 1);
        }
    }
}

fn blocking(image: &mut Image, rng: &mut Rng) {
    let by = if rng.one_in(6) { rng.bit(32) } else { rng.bit(5) | rng.bit(5) };
    image.write_raw(GUEST_INTERRUPTIBILITY_INFO.encoding(), by);
}

/// Blocking with what it keeps out.
fn interruptibility(image: &mut Image, rng: &mut Rng, _: &mut Words) {
    blocking(image, rng);
    match rng.below(4) {
        0 => {
            image.write(GUEST_RFLAGS, image.read(GUEST_RFLAGS) ^ Rflags::IF.bits());
        }
        1 => {
            image.write(VM_ENTRY_INTERRUPTION_INFO, 1 << 31 | 2 << 8 | 2);
            let by = image.read(GUEST_INTERRUPTIBILITY_INFO) & 0xf;
            image.write(GUEST_INTERRUPTIBILITY_INFO, rng.pick(&[by, 1 << 3]));
        }
        2 => image.write(VM_ENTRY_INTERRUPTION_INFO, 1 << 31 | 0x21),
        _ => {}
    }
    if rng.one_in(4) {
        image.write(PIN_BASED_VM_EXEC_CONTROL, image.read(PIN_BASED_VM_EXEC_CONTROL) & !PinBased::VIRTUAL_NMIS.bits());
    }
}

/// RFLAGS.TF, IA32_DEBUGCTL.BTF and BS of the pending debug exceptions.
fn step(image: &mut Image, rng: &mut Rng) {
    if rng.one_in(2) {
        image.write(GUEST_RFLAGS, image.read(GUEST_RFLAGS) | Rflags::TF.bits());
    }
    if rng.one_in(3) {
        image.write(GUEST_IA32_DEBUGCTL, 1 << 1);
    }
    image.write(GUEST_PENDING_DBG_EXCEPTIONS, if rng.one_in(3) { rng.bit(18) | 1 << 12 } else { rng.below(2) << 14 });
}

fn pending_debug(image: &mut Image, rng: &mut Rng, _: &mut Words) {
    step(image, rng);
    match rng.below(3) {
        0 => image.write(GUEST_INTERRUPTIBILITY_INFO, 1),
        1 => image.write(GUEST_INTERRUPTIBILITY_INFO, 2),
        _ => {}
    }
}

/// RFLAGS.VM, and one thing of one segment register.
fn virtual_8086(image: &mut Image, rng: &mut Rng, _: &mut Words) {
    if image.read(GUEST_RFLAGS) & Rflags::VM.bits() != 0 && rng.one_in(3) {
        image.write(GUEST_CR0, image.read(GUEST_CR0) & !Cr0::PE.bits());
        return;
    }
    if rng.one_in(2) {
        image.write(GUEST_RFLAGS, image.read(GUEST_RFLAGS) ^ Rflags::VM.bits());
    }
    let (selector, base, limit, rights) = rng.pick(&SEGMENTS);
    match rng.below(4) {
        0 => image.write_raw(selector.encoding(), rng.below(0x1_0000)),
        1 => image.write(base, u64::from(image.read(selector)) << 4 ^ rng.below(2) << 4),
        2 => image.write(limit, rng.pick(&[0xffff, 0xfffe, 0x1_ffff])),
        _ => image.write(rights, rng.pick(&[0xf3, 0x93, 0xfb, 0x1_00f3])),
    }
}

/// Access rights, limit and base of one segment register, near what is allowed.
fn segment(image: &mut Image, rng: &mut Rng, _: &mut Words) {
    let (selector, base, limit, rights) = rng.pick(&SEGMENTS);
    match rng.below(6) {
        0 => flip(image, rng, rights, 18),
        5 => {
            // A null selector.
            image.write_raw(selector.encoding(), rng.below(4));
            flip(image, rng, rights, 18);
        }
        1 => {
            // Another type.
            image.write(rights, image.read(rights) & !0xf | u32::try_from(rng.below(16)).unwrap_or(0));
        }
        2 => limits(image, rng, limit, rights),
        3 => image.write_raw(base.encoding(), any_value(rng, 64, image.read(base))),
        _ => {
            image.write(selector, image.read(selector) ^ u16::try_from(rng.below(8)).unwrap_or(0));
            flip(image, rng, rights, 8);
        }
    }
}

fn limits(image: &mut Image, rng: &mut Rng, limit: Field<W32>, rights: Field<W32>) {
    image.write(limit, rng.pick(&[0, 0xffe, 0xfff, 0xffff, 0xf_ffff, 0x10_0000, 0x10_0fff, 0xffff_f000, u32::MAX]));
    if rng.one_in(2) {
        image.write(rights, image.read(rights) ^ 1 << 15);
    }
}

/// Privilege levels of CS and SS, and CS's type.
fn privilege(image: &mut Image, rng: &mut Rng, _: &mut Words) {
    let level = rng.pick(&[0_u16, 1, 2, 3, 3]);
    for (selector, _, _, rights) in [CS, SS] {
        image.write(rights, image.read(rights) & !(3 << 5) | u32::from(level) << 5);
        image.write(selector, image.read(selector) & !3 | level);
    }
    match rng.below(4) {
        0 => {
            image.write(
                GUEST_CS_ACCESS_RIGHTS,
                image.read(GUEST_CS_ACCESS_RIGHTS) & !0xf | rng.pick(&[3, 9, 11, 13, 15]),
            );
        }
        1 => flip(image, rng, GUEST_SS_ACCESS_RIGHTS, 7),
        2 => flip(image, rng, GUEST_CS_ACCESS_RIGHTS, 7),
        _ => {}
    }
}

/// TR, LDTR, GDTR and IDTR.
fn system_segment(image: &mut Image, rng: &mut Rng, _: &mut Words) {
    match rng.below(6) {
        0 => flip(image, rng, GUEST_TR_ACCESS_RIGHTS, 18),
        1 => image.write(GUEST_TR_ACCESS_RIGHTS, rng.pick(&[0x83, 0x89, 0x8b, 0x9b, 0x0b, 0x1_008b])),
        2 => limits(image, rng, GUEST_TR_LIMIT, GUEST_TR_ACCESS_RIGHTS),
        3 | 4 => {
            image.write(GUEST_LDTR_ACCESS_RIGHTS, 0x82);
            match rng.below(5) {
                0 => flip(image, rng, GUEST_LDTR_ACCESS_RIGHTS, 18),
                1 => limits(image, rng, GUEST_LDTR_LIMIT, GUEST_LDTR_ACCESS_RIGHTS),
                2 => image.write(GUEST_LDTR_SELECTOR, 4),
                3 => image.write(GUEST_LDTR_BASE, any_value(rng, 64, 0)),
                _ => {}
            }
        }
        _ => {
            let table = rng.pick(&[GUEST_GDTR_LIMIT, GUEST_IDTR_LIMIT]);
            image.write(table, rng.pick(&[0, 0xffff, 0x1_0000, u32::MAX]));
        }
    }
}

/// Bits of CR0, CR4, IA32_EFER and the VM-entry controls that say in which mode L2 starts.
fn modes(image: &mut Image, rng: &mut Rng, _: &mut Words) {
    for _ in 0..2 {
        match rng.below(5) {
            0 => {
                image.write(
                    GUEST_CR0,
                    image.read(GUEST_CR0) ^ rng.pick(&[Cr0::PE, Cr0::PG, Cr0::NE, Cr0::CD, Cr0::NW, Cr0::WP]).bits(),
                );
            }
            1 => {
                let value =
                    image.read(GUEST_CR4) ^ rng.pick(&[Cr4::PAE, Cr4::PCIDE, Cr4::VMXE, Cr4::PSE, Cr4::LA57]).bits();
                put(image, rng, GUEST_CR4.encoding(), value);
            }
            2 => {
                image.write(
                    GUEST_IA32_EFER,
                    image.read(GUEST_IA32_EFER) ^ rng.pick(&[1, 1 << 8, 1 << 10, 5 << 8, 1 << 11, 1 << 12]),
                );
            }
            3 => {
                let bit = rng.pick(&[EntryControls::IA32E_MODE_GUEST, EntryControls::LOAD_IA32_EFER]);
                image.write(VM_ENTRY_CONTROLS, image.read(VM_ENTRY_CONTROLS) ^ bit.bits());
            }
            _ => {
                image.write(
                    GUEST_CS_ACCESS_RIGHTS,
                    image.read(GUEST_CS_ACCESS_RIGHTS) ^ rng.pick(&[1 << 13, 1 << 14, 3 << 13]),
                );
            }
        }
    }
}

/// One page-directory-pointer entry.
fn pdptes(image: &mut Image, rng: &mut Rng, _: &mut Words) {
    let entry = rng.pick(&PDPTES);
    image.write(entry, pages::DIRECTORY | rng.below(2) | rng.bit(64));
    if rng.one_in(3) {
        put(image, rng, GUEST_CR3.encoding(), 0);
    }
}

fn eptp(image: &mut Image, rng: &mut Rng, _: &mut Words) {
    put(image, rng, EPT_POINTER.encoding(), 0);
    if rng.one_in(4) {
        let bit = rng.pick(&[
            SecondaryBased::ENABLE_EPT,
            SecondaryBased::UNRESTRICTED_GUEST,
            SecondaryBased::MODE_BASED_EXECUTE_CONTROL_FOR_EPT,
            SecondaryBased::ENABLE_PML,
        ]);
        image.write(SECONDARY_VM_EXEC_CONTROL, image.read(SECONDARY_VM_EXEC_CONTROL) ^ bit.bits());
    }
}

/// The TPR threshold, VTPR, and the controls that say whether they are compared.
fn task_priority(image: &mut Image, rng: &mut Rng, words: &mut Words) {
    words.vtpr = rng.pick(&[0, 0x0f, 0x10, 0x50, 0xf0, 0xff, 0x150]);
    image.write(TPR_THRESHOLD, rng.pick(&[0, 1, 5, 6, 0xf, 0x10, 0x8000_0000]));
    match rng.below(6) {
        0 => image.write(VIRTUAL_APIC_PAGE_ADDR, address(rng, pages::VIRTUAL_APIC)),
        1 => {
            image.write(
                CPU_BASED_VM_EXEC_CONTROL,
                image.read(CPU_BASED_VM_EXEC_CONTROL) ^ PrimaryBased::USE_TPR_SHADOW.bits(),
            );
        }
        2 | 3 => {
            let bit = rng.pick(&[
                SecondaryBased::VIRTUALIZE_APIC_ACCESSES,
                SecondaryBased::VIRTUALIZE_X2APIC_MODE,
                SecondaryBased::APIC_REGISTER_VIRTUALIZATION,
                SecondaryBased::VIRTUAL_INTERRUPT_DELIVERY,
            ]);
            image.write(SECONDARY_VM_EXEC_CONTROL, image.read(SECONDARY_VM_EXEC_CONTROL) ^ bit.bits());
        }
        _ => {}
    }
}

/// The VMCS link pointer, and the MSR lists.
fn links_and_lists(image: &mut Image, rng: &mut Rng, words: &mut Words) {
    match rng.below(4) {
        0 => {
            image.write(
                VMCS_LINK_POINTER,
                rng.pick(&[pages::SHADOW_VMCS, pages::OTHER_VMCS, pages::VMCS, pages::ZEROS, pages::NOWHERE]),
            );
            if rng.one_in(2) {
                image.write(
                    SECONDARY_VM_EXEC_CONTROL,
                    image.read(SECONDARY_VM_EXEC_CONTROL) ^ SecondaryBased::VMCS_SHADOWING.bits(),
                );
            }
        }
        1 | 2 => entry_list(image, rng, words),
        _ => {
            let (address, count) = rng.pick(&[
                (VM_EXIT_MSR_STORE_ADDR, VM_EXIT_MSR_STORE_COUNT),
                (VM_EXIT_MSR_LOAD_ADDR, VM_EXIT_MSR_LOAD_COUNT),
            ]);
            image.write(count, rng.pick(&[1, 2, 2, 0x1000_0001]));
            put(image, rng, address.encoding(), 0);
        }
    }
}

/// MSRs for the entry to load: the last one may be one that it refuses, by its number or by its value.
fn entry_list(image: &mut Image, rng: &mut Rng, words: &mut Words) {
    /// Each an MSR and a value that WRMSR or the entry refuses.
    const REFUSED: [(u64, u64); 12] = [
        (0xc000_0100, 0),               // IA32_FS_BASE
        (0xc000_0101, 0),               // IA32_GS_BASE
        (0x800, 0),                     // x2APIC
        (0x8ff, 0),                     // x2APIC
        (0x9b, 0),                      // IA32_SMM_MONITOR_CTL
        (0x480, 0),                     // IA32_VMX_BASIC, read-only
        (0x4321_4321, 0),               // none
        (0x277, 2),                     // IA32_PAT, no memory type
        (0xc000_0082, 1 << 63),         // IA32_LSTAR, not canonical
        (0xc000_0080, 1 << 63 | 0x500), // IA32_EFER, reserved bit
        (0x1_0000_0174, 0),             // IA32_SYSENTER_CS with a reserved bit in its number
        (0x175, 1 << 62),               // IA32_SYSENTER_ESP, not canonical
    ];
    image.write(VM_ENTRY_MSR_LOAD_COUNT, rng.pick(&[1, 2, 3, 3, 4, 512, 0x1000_0001, u32::MAX]));
    if rng.one_in(2) {
        let at = usize::try_from(rng.below(3)).unwrap_or(0);
        words.entry_list[at] = rng.pick(&REFUSED);
    }
    match rng.below(5) {
        0 => put(image, rng, VM_ENTRY_MSR_LOAD_ADDR.encoding(), 0),
        1 => image.write(VM_ENTRY_MSR_LOAD_ADDR, last_entry()),
        2 => image.write(VM_ENTRY_MSR_LOAD_ADDR, pages::NOWHERE),
        _ => {}
    }
}
