//! Which checks of VM entry have to be made: all of them at first, and then those that what L1 has changed can break.

use arch::control::{Efer, Rflags};
use arch::{GuestMemory, GuestPhys};
use vmcs::checks::{self, Environment, Parts, PhysicalMemory, Rule};
use vmcs::controls::{EntryControls, ExitControls, PrimaryBased};
use vmcs::fields::*;
use vmcs::{Access, Encoding, EventInfo};

use crate::current::Vmcs02;
use crate::entry::{BLOCKED_BY_MOV_SS, L1Processor};
use crate::merge::Kept;
use crate::slots::Slot;
use crate::state::Nested;

/// RFLAGS bits that no rule of VM entry asks for.
const FREE_FLAGS: Rflags = Rflags::CF
    .union(Rflags::PF)
    .union(Rflags::AF)
    .union(Rflags::ZF)
    .union(Rflags::SF)
    .union(Rflags::DF)
    .union(Rflags::OF)
    .union(Rflags::IOPL)
    .union(Rflags::NT)
    .union(Rflags::RF)
    .union(Rflags::AC)
    .union(Rflags::ID);
/// Interruptibility: blocking by STI.
const BLOCKED_BY_STI: u32 = 1 << 0;

impl Nested {
    /// The parts of the checks that can fail, given what L1 has changed since an entry passed them all.
    #[inline(always)]
    pub(crate) fn parts_to_check(&self, vmcs02: &Vmcs02<'_, impl Access>) -> Parts {
        if !self.is_checked || !self.is_merged {
            return Parts::all();
        }
        let parts = self.parts_in_memory(vmcs02) | self.parts_of_unsaved() | self.parts_of_rip();
        if self.vmcs12.dirty.is_empty() { parts } else { parts | self.parts_of_dirty() }
    }

    #[inline(never)]
    fn parts_of_dirty(&self) -> Parts {
        let mut parts = Parts::empty();
        // Without an event its fields say nothing.
        let has_event = EventInfo(self.vmcs12.read(VM_ENTRY_INTERRUPTION_INFO)).is_valid();
        self.vmcs12.dirty.for_each(|slot| {
            parts |= match self.uses.parts(slot) {
                EVENT_PARTS if !has_event => Parts::empty(),
                _ if self.uses.canonical.contains(slot) && is_canonical(self.vmcs12.value(slot)) => Parts::empty(),
                _ if slot == Slot::known(GUEST_RFLAGS.encoding()) && self.flags_are_free() => Parts::empty(),
                parts => parts,
            };
        });
        parts
    }

    /// Whether L1 has changed no more of RFLAGS than what no rule asks for.
    fn flags_are_free(&self) -> bool {
        (self.vmcs12.read(GUEST_RFLAGS) ^ self.at_exit.rflags) & !FREE_FLAGS.bits() == 0
    }

    /// A new RIP is fine in whatever mode L2 is if it has 32 bits, and in 64-bit mode, where L2 was if RIP had more, if it is
    /// canonical.
    #[inline(always)]
    fn parts_of_rip(&self) -> Parts {
        let rip = self.vmcs12.read(GUEST_RIP);
        let was_64_bit = self.at_exit.rip >> 32 != 0;
        if rip >> 32 == 0 || was_64_bit && is_canonical(rip) { Parts::empty() } else { Parts::GUEST }
    }

    /// Registers that an entry loads and no exit saves stand beside what the exit did save, and need not fit it: IA32_EFER
    /// beside CR0.PG, IA32_DEBUGCTL.BTF beside a pending single step.
    #[inline(always)]
    fn parts_of_unsaved(&self) -> Parts {
        let entry = EntryControls::from_bits_retain(self.vmcs12.read(VM_ENTRY_CONTROLS));
        let exit = ExitControls::from_bits_retain(self.vmcs12.read(VM_EXIT_CONTROLS));
        let mut parts = Parts::empty();
        if entry.contains(EntryControls::LOAD_IA32_EFER) && !exit.contains(ExitControls::SAVE_IA32_EFER) {
            let modes = self.vmcs12.read(GUEST_IA32_EFER) & (Efer::LMA | Efer::LME).bits();
            parts.set(Parts::GUEST, modes.count_ones() == 1);
        }
        if entry.contains(EntryControls::LOAD_DEBUG_CONTROLS) && !exit.contains(ExitControls::SAVE_DEBUG_CONTROLS) {
            let blocked = self.vmcs12.read(GUEST_INTERRUPTIBILITY_INFO) & (BLOCKED_BY_STI | BLOCKED_BY_MOV_SS) != 0;
            parts.set(
                Parts::NON_REGISTER,
                parts.contains(Parts::NON_REGISTER) || blocked || self.vmcs12.read(GUEST_ACTIVITY_STATE) != 0,
            );
        }
        parts
    }

    /// Checks whose answer lies in L1's memory: they are made at each entry.
    #[inline(always)]
    fn parts_in_memory(&self, vmcs02: &Vmcs02<'_, impl Access>) -> Parts {
        let primary = PrimaryBased::from_bits_retain(self.vmcs12.read(CPU_BASED_VM_EXEC_CONTROL));
        let mut parts = Parts::empty();
        // VTPR against the threshold.
        if primary.contains(PrimaryBased::USE_TPR_SHADOW) && self.vmcs12.read(TPR_THRESHOLD) != 0 {
            parts |= Parts::CONTROLS;
        }
        // The first word of the region that the link pointer names.
        if self.vmcs12.read(VMCS_LINK_POINTER) != u64::MAX {
            parts |= Parts::LINK_POINTER;
        }
        if self.loads_pdptes_from_memory(vmcs02) {
            parts |= Parts::PDPTES;
        }
        parts
    }

    #[inline(never)]
    pub(crate) fn broken_rule(
        &mut self,
        vmcs02: &Vmcs02<'_, impl Access>,
        memory: &impl GuestMemory,
        parts: Parts,
        kept: &Kept,
        l1: &L1Processor,
    ) -> Option<&'static Rule> {
        let words = Words(memory);
        let environment = Environment {
            in_ia32e_mode: kept.efer & Efer::LMA.bits() != 0,
            has_sgx: l1.has_sgx,
            has_rtm: l1.has_rtm,
            ..Environment::new(
                &self.capabilities,
                self.base.physical_address_bits,
                self.current.map_or(0, GuestPhys::get),
                &words,
            )
        };
        let broken = checks::first_broken_in(parts, &Newest { nested: self, vmcs02 }, &environment);
        if broken.is_some() {
            self.is_checked = false;
            // Who explains it shows the values.
            self.read_from(vmcs02);
        }
        broken
    }
}

/// What the fields of an injected event can break.
const EVENT_PARTS: Parts = Parts::EVENT.union(Parts::RIP_RFLAGS).union(Parts::NON_REGISTER);

/// vmcs12 with the fields that are newer in vmcs02, which is current.
pub(crate) struct Newest<'a, V> {
    pub(crate) nested: &'a Nested,
    pub(crate) vmcs02: &'a V,
}

impl<V: Access> Access for Newest<'_, V> {
    fn read_raw(&self, encoding: Encoding) -> u64 {
        let slot = Slot::known(encoding);
        if self.nested.stale.contains(slot) {
            self.nested.stale_value(self.vmcs02, encoding)
        } else {
            self.nested.vmcs12.value(slot)
        }
    }

    fn write_raw(&mut self, _: Encoding, _: u64) {
        debug_assert!(false, "checks write nothing");
    }
}

/// Whether bits 63:47 are equal; L1's linear addresses have 48 bits.
#[inline(always)]
const fn is_canonical(address: u64) -> bool {
    let high = address.cast_signed() >> 47;
    high == 0 || high == -1
}

/// L1's memory as the checks read it.
pub(crate) struct Words<'a, M>(pub(crate) &'a M);

impl<M: GuestMemory> PhysicalMemory for Words<'_, M> {
    fn read_u64(&self, address: u64) -> u64 {
        self.0.read_u64(GuestPhys(address)).unwrap_or(u64::MAX)
    }
}
