//! The VMCS as the rules see it: control words read once, and the questions that many rules ask.

use arch::control::{Cr0, Cr4, Rflags};
use arch::segment::AccessRights;

use super::Environment;
use crate::choose::Allowed;
use crate::controls::{
    ControlWord, EntryControls, ExitControls, PinBased, PrimaryBased, SecondaryBased, SecondaryExitControls,
    TertiaryBased,
};
use crate::event::{EventInfo, EventKind};
use crate::field::{Encoding, Field, Natural, W32, W64, Width};
use crate::fields;

/// One control word: as it stands in the VMCS, and what of it counts.
pub(super) struct Word<C> {
    raw: C,
    effective: u64,
    allowed: Allowed<C>,
}

impl<C: ControlWord> Word<C> {
    /// `raw` as the processor takes it: controls that it does not have count as 0, so that no rule asks for a field that
    /// does not exist.
    fn new(raw: C, allowed: Allowed<C>) -> Self {
        Self { raw, effective: raw.to_bits() & allowed.allowed1.to_bits(), allowed }
    }

    pub(super) fn has(&self, controls: C) -> bool {
        controls.to_bits() & !self.effective == 0
    }

    pub(super) fn is_permitted(&self) -> bool {
        self.allowed.permits(self.raw)
    }
}

pub(super) struct State<'a> {
    vmcs: Raw<'a>,
    pub(super) environment: &'a Environment<'a>,
    pub(super) pin: Word<PinBased>,
    pub(super) primary: Word<PrimaryBased>,
    pub(super) secondary: Word<SecondaryBased>,
    pub(super) tertiary: Word<TertiaryBased>,
    pub(super) exit: Word<ExitControls>,
    pub(super) secondary_exit: Word<SecondaryExitControls>,
    pub(super) entry: Word<EntryControls>,
    /// What the entry injects.
    pub(super) event: EventInfo,
}

/// How the rules read a field. Not [`Access`](crate::Access) itself: the rules would be compiled for each VMCS there is,
/// with an instruction sequence for each read, which is four times the code for what runs when an entry has failed.
pub(super) type Raw<'a> = &'a dyn Fn(Encoding) -> u64;

impl<'a> State<'a> {
    pub(super) fn new(vmcs: Raw<'a>, environment: &'a Environment<'a>) -> Self {
        let offered = environment.capabilities;
        let word = |field: Field<W32>| W32::from_raw(vmcs(field.encoding()));
        let primary =
            Word::new(PrimaryBased::from_bits_retain(word(fields::CPU_BASED_VM_EXEC_CONTROL)), offered.primary);
        let exit = Word::new(ExitControls::from_bits_retain(word(fields::VM_EXIT_CONTROLS)), offered.exit);
        let secondary = if primary.has(PrimaryBased::ACTIVATE_SECONDARY_CONTROLS) {
            word(fields::SECONDARY_VM_EXEC_CONTROL)
        } else {
            0
        };
        let tertiary = if primary.has(PrimaryBased::ACTIVATE_TERTIARY_CONTROLS) {
            vmcs(fields::TERTIARY_VM_EXEC_CONTROL.encoding())
        } else {
            0
        };
        let secondary_exit = if exit.has(ExitControls::ACTIVATE_SECONDARY_CONTROLS) {
            vmcs(fields::SECONDARY_VM_EXIT_CONTROLS.encoding())
        } else {
            0
        };
        Self {
            vmcs,
            environment,
            pin: Word::new(PinBased::from_bits_retain(word(fields::PIN_BASED_VM_EXEC_CONTROL)), offered.pin),
            primary,
            secondary: Word::new(SecondaryBased::from_bits_retain(secondary), offered.secondary),
            tertiary: Word::new(TertiaryBased::from_bits_retain(tertiary), offered.tertiary),
            exit,
            secondary_exit: Word::new(SecondaryExitControls::from_bits_retain(secondary_exit), offered.secondary_exit),
            entry: Word::new(EntryControls::from_bits_retain(word(fields::VM_ENTRY_CONTROLS)), offered.entry),
            event: EventInfo(word(fields::VM_ENTRY_INTERRUPTION_INFO)),
        }
    }

    #[inline(always)]
    pub(super) fn read<W: Width>(&self, field: Field<W>) -> W::Value {
        W::from_raw((self.vmcs)(field.encoding()))
    }

    /// Whether no bit of `address` lies beyond the physical-address width, or beyond 32 bits on a processor that limits
    /// VMX structures to them (SDM 3D A.1 "Basic VMX Information", bit 48).
    pub(super) fn is_structure_address(&self, address: u64) -> bool {
        self.is_physical(address) && (!self.environment.capabilities.basic.has_32_bit_addresses() || address >> 32 == 0)
    }

    /// Whether no bit of `address` lies beyond the physical-address width.
    pub(super) fn is_physical(&self, address: u64) -> bool {
        address.checked_shr(self.environment.physical_address_bits.into()).unwrap_or(0) == 0
    }

    /// Whether the field holds the physical address of a 4-KiB page.
    pub(super) fn is_page(&self, field: Field<W64>) -> bool {
        let address = self.read(field);
        address & 0xfff == 0 && self.is_structure_address(address)
    }

    /// Whether an MSR list starts where one may: at a multiple of 16. True of an empty list.
    pub(super) fn is_msr_list(&self, count: Field<W32>, address: Field<W64>) -> bool {
        self.read(count) == 0 || {
            let address = self.read(address);
            address & 0xf == 0 && self.is_structure_address(address)
        }
    }

    /// Whether an MSR list ends where one may. True of an empty list.
    pub(super) fn is_msr_list_end(&self, count: Field<W32>, address: Field<W64>) -> bool {
        let count = u64::from(self.read(count));
        count == 0 || self.read(address).checked_add(count * 16 - 1).is_some_and(|last| self.is_structure_address(last))
    }

    /// Whether the address is canonical: bits 63 down to the highest that counts are equal.
    pub(super) fn is_canonical(&self, address: u64) -> bool {
        let high = address.cast_signed() >> self.environment.linear_address_bits.saturating_sub(1).min(63);
        high == 0 || high == -1
    }

    pub(super) fn is_canonical_field(&self, field: Field<Natural>) -> bool {
        self.is_canonical(self.read(field))
    }

    pub(super) fn guest_cr0(&self) -> Cr0 {
        Cr0::from_bits_retain(self.read(fields::GUEST_CR0))
    }

    pub(super) fn guest_cr4(&self) -> Cr4 {
        Cr4::from_bits_retain(self.read(fields::GUEST_CR4))
    }

    pub(super) fn host_cr4(&self) -> Cr4 {
        Cr4::from_bits_retain(self.read(fields::HOST_CR4))
    }

    pub(super) fn guest_rflags(&self) -> Rflags {
        Rflags::from_bits_retain(self.read(fields::GUEST_RFLAGS))
    }

    pub(super) fn rights(&self, field: Field<W32>) -> AccessRights {
        AccessRights(self.read(field))
    }

    pub(super) fn is_virtual_8086(&self) -> bool {
        self.guest_rflags().contains(Rflags::VM)
    }

    pub(super) fn is_unrestricted(&self) -> bool {
        self.secondary.has(SecondaryBased::UNRESTRICTED_GUEST)
    }

    pub(super) fn is_ia32e_guest(&self) -> bool {
        self.entry.has(EntryControls::IA32E_MODE_GUEST)
    }

    pub(super) fn is_64_bit_host(&self) -> bool {
        self.exit.has(ExitControls::HOST_ADDRESS_SPACE_SIZE)
    }

    /// Whether the guest starts in 64-bit mode.
    pub(super) fn is_64_bit_code(&self) -> bool {
        self.is_ia32e_guest() && self.rights(fields::GUEST_CS_ACCESS_RIGHTS).is_long()
    }

    /// Whether the entry injects an event of this kind.
    pub(super) fn injects(&self, kind: EventKind) -> bool {
        self.event.is(kind)
    }
}

/// Whether each of the 8 bytes is a memory type that IA32_PAT may hold: UC, WC, WT, WP, WB or UC-.
pub(super) fn is_pat(value: u64) -> bool {
    value.to_le_bytes().iter().all(|memory_type| matches!(memory_type, 0 | 1 | 4..=7))
}

/// Whether IA32_S_CET may hold this: bits 9:6 reserved, SUPPRESS (10) and TRACKER (11) not both
/// (SDM 1, chapter 17 "Control-flow Enforcement Technology (CET)").
pub(super) fn is_s_cet(value: u64) -> bool {
    value & 0x3c0 == 0 && value & 0xc00 != 0xc00
}

/// Whether G is 0 if any of bits 11:0 of a segment's limit is 0.
pub(super) fn is_limit_low_consistent(s: &State<'_>, limit: Field<W32>, rights: Field<W32>) -> bool {
    s.read(limit) & 0xfff == 0xfff || !s.rights(rights).is_granular()
}

/// Whether G is 1 if any of bits 31:20 of a segment's limit is 1.
pub(super) fn is_limit_high_consistent(s: &State<'_>, limit: Field<W32>, rights: Field<W32>) -> bool {
    s.read(limit) & 0xfff0_0000 == 0 || s.rights(rights).is_granular()
}
