//! VMCS shadowing: L1 reads and writes the fields that it uses at every exit without an exit of its own.
//!
//! The shadow VMCS has the processor's format and holds copies of some fields of vmcs12. Copies go in when L1 is about to
//! run, and come out when it enters L2 or leaves the VMCS. SDM 3C 25.10 "VMCS Types: Ordinary and Shadow".
//!
//! A pair of bitmaps for all vCPUs says which fields do not exit ([`fill_bitmaps`]).

use vmcs::controls::{ExitControls, SecondaryBased};
use vmcs::fields::*;
use vmcs::{Access, Capabilities, Encoding};

use crate::current::Vmcs01;
use crate::seam::{Processor, Which};
use crate::slots::Slot;
use crate::state::Nested;

/// The fields that have copies, each a constant, so that a copy is one VMREAD or VMWRITE and one load or store.
macro_rules! each {
    ($($group:ident, $each:ident: [$($field:ident),*];)*) => {$(
        pub(crate) const $group: &[Encoding] = &[$($field.encoding()),*];

        macro_rules! $each {
            ($act:ident) => { $($act!($field);)* };
        }
    )*};
}

each! {
    // Exit information: L1 reads it without an exit; its writes, which hardly anybody makes, exit.
    READ, each_read: [
        EXIT_REASON,
        EXIT_QUALIFICATION,
        GUEST_LINEAR_ADDRESS,
        VM_EXIT_INTERRUPTION_INFO,
        VM_EXIT_INTERRUPTION_ERROR_CODE,
        IDT_VECTORING_INFO,
        IDT_VECTORING_ERROR_CODE,
        VM_EXIT_INSTRUCTION_LEN,
        VM_EXIT_INSTRUCTION_INFO
    ];
    // L1 reads and writes it without an exit, and exits of L2 change it. RIP, which is not here, goes to vmcs02 whether L1 has
    // changed it or not.
    SAVED, each_saved: [
        GUEST_RSP,
        GUEST_RFLAGS,
        GUEST_INTERRUPTIBILITY_INFO,
        VM_ENTRY_INTERRUPTION_INFO
    ];
    // L1 alone changes it, without an exit.
    KEPT, each_kept: [
        VM_ENTRY_EXCEPTION_ERROR_CODE,
        VM_ENTRY_INSTRUCTION_LEN,
        CPU_BASED_VM_EXEC_CONTROL,
        HOST_RSP
    ];
    // The same, but for exits by vmcs12's controls, where the processor has the field.
    OPTIONAL, each_optional: [
        TPR_THRESHOLD,
        VMX_PREEMPTION_TIMER_VALUE,
        GUEST_PML_INDEX
    ];
}

/// Whether a field has a copy.
pub(crate) fn is_copied(encoding: Encoding) -> bool {
    READ.contains(&encoding) || encoding == READ_WITH_EPT || read_and_written().any(|field| field == encoding)
}

/// What L1 reads and writes.
fn read_and_written() -> impl Iterator<Item = Encoding> {
    SAVED.iter().chain(KEPT).chain(OPTIONAL).chain(&[RIP]).copied()
}

const RIP: Encoding = GUEST_RIP.encoding();

/// Exit information that exists with EPT only.
const READ_WITH_EPT: Encoding = GUEST_PHYSICAL_ADDRESS.encoding();

/// Fills the VMREAD and the VMWRITE bitmap (SDM 3C 25.6.15 "VMCS Shadowing Bitmap Addresses"): a set bit exits, as does a field
/// that the machine lacks.
pub fn fill_bitmaps(machine: &Capabilities, vmread: &mut [u8; 4096], vmwrite: &mut [u8; 4096]) {
    vmread.fill(0xff);
    vmwrite.fill(0xff);
    let pass = |page: &mut [u8; 4096], encoding: Encoding| {
        if machine.has_field(Slot::known(encoding).info()) {
            page[(encoding.0 / 8) as usize] &= !(1 << (encoding.0 % 8));
        }
    };
    for &encoding in READ.iter().chain(&[READ_WITH_EPT]) {
        pass(vmread, encoding);
    }
    for encoding in read_and_written() {
        pass(vmread, encoding);
        pass(vmwrite, encoding);
    }
}

impl Nested {
    /// L1 entered VMX operation: its VMREAD and VMWRITE of the fields above no longer exit. While there is no current VMCS the
    /// link pointer names none, and they fail as on the machine (VMfailInvalid).
    pub(crate) fn allow_shadow_access<P: Processor>(&mut self, cpu: &mut P) {
        self.set_shadowing(cpu, true);
    }

    /// L1 left VMX operation: VMREAD and VMWRITE exit again, to get #UD.
    pub(crate) fn forbid_shadow_access<P: Processor>(&mut self, cpu: &mut P) {
        self.set_shadowing(cpu, false);
    }

    fn set_shadowing<P: Processor>(&self, cpu: &mut P, on: bool) {
        if self.pages.shadow_vmcs.is_some() {
            let mut vmcs01 = Vmcs01::assume(cpu.vmcs());
            // The APIC's controls are in the same word.
            let mut controls = SecondaryBased::from_bits_retain(vmcs01.read(SECONDARY_VM_EXEC_CONTROL));
            controls.set(SecondaryBased::VMCS_SHADOWING, on);
            vmcs01.write(SECONDARY_VM_EXEC_CONTROL, controls.bits());
            vmcs01.write(VMCS_LINK_POINTER, u64::MAX);
        }
    }

    /// There is a current VMCS: the shadow VMCS gets its values. vmcs01 is current before and after.
    pub(crate) fn show_shadow<P: Processor>(&mut self, cpu: &mut P) {
        let Some(region) = self.pages.shadow_vmcs else { return };
        cpu.with_shadow(Which::Vmcs01, |shadow| {
            self.fill_shadow(shadow);
            macro_rules! give {
                ($field:ident) => {
                    shadow.write($field, self.vmcs12.read($field));
                };
            }
            each_kept!(give);
            macro_rules! give_if_there {
                ($field:ident) => {
                    if self.uses.exists.contains(Slot::known($field.encoding())) {
                        give!($field);
                    }
                };
            }
            each_optional!(give_if_there);
            if self.capabilities.secondary.supports(SecondaryBased::ENABLE_EPT) {
                // Exits of an L2 without EPT leave it alone.
                shadow.write(GUEST_PHYSICAL_ADDRESS, self.vmcs12.read(GUEST_PHYSICAL_ADDRESS));
            }
        });
        Vmcs01::assume(cpu.vmcs()).write(VMCS_LINK_POINTER, region.get());
    }

    /// There is no current VMCS any more.
    pub(crate) fn hide_shadow<P: Processor>(&self, cpu: &mut P) {
        if self.pages.shadow_vmcs.is_some() {
            Vmcs01::assume(cpu.vmcs()).write(VMCS_LINK_POINTER, u64::MAX);
        }
    }

    /// Writes what an exit of L2 changes into the shadow VMCS.
    #[inline(always)]
    pub(crate) fn fill_shadow(&self, shadow: &mut impl Access) {
        macro_rules! give {
            ($field:ident) => {
                shadow.write($field, self.vmcs12.read($field));
            };
        }
        each_read!(give);
        each_saved!(give);
        give!(GUEST_RIP);
        let secondary = self.secondary12();
        if secondary.contains(SecondaryBased::ENABLE_EPT) {
            give!(GUEST_PHYSICAL_ADDRESS);
            // It needs EPT.
            if secondary.contains(SecondaryBased::ENABLE_PML) {
                give!(GUEST_PML_INDEX);
            }
        }
        let exit = ExitControls::from_bits_retain(self.vmcs12.read(VM_EXIT_CONTROLS));
        if exit.contains(ExitControls::SAVE_PREEMPTION_TIMER_VALUE) {
            give!(VMX_PREEMPTION_TIMER_VALUE);
        }
    }

    /// Takes over what L1 has written into the shadow VMCS. vmcs01 is current before and after.
    #[inline]
    pub(crate) fn take_shadow<P: Processor>(&mut self, cpu: &mut P) {
        if self.pages.shadow_vmcs.is_none() || self.current.is_none() {
            return;
        }
        cpu.with_shadow(Which::Vmcs01, |shadow| self.read_shadow(shadow));
    }

    /// The same, given the shadow VMCS.
    #[inline(always)]
    pub(crate) fn read_shadow(&mut self, shadow: &impl Access) {
        macro_rules! take {
            ($field:ident) => {
                let value = shadow.read($field);
                if value != self.vmcs12.read($field) {
                    self.vmcs12.write($field, value);
                    self.vmcs12.dirty.insert(Slot::known($field.encoding()));
                }
            };
        }
        each_saved!(take);
        each_kept!(take);
        macro_rules! take_if_there {
            ($field:ident) => {
                if self.uses.exists.contains(Slot::known($field.encoding())) {
                    take!($field);
                }
            };
        }
        each_optional!(take_if_there);
        self.vmcs12.write(GUEST_RIP, shadow.read(GUEST_RIP));
    }

    /// A field that has a copy was changed by VMWRITE with an exit, or by L0, while L1 runs.
    #[cold]
    pub(crate) fn update_shadow<P: Processor>(&mut self, cpu: &mut P, slot: Slot) {
        if self.pages.shadow_vmcs.is_some() {
            let encoding = slot.info().encoding;
            let value = self.vmcs12.value(slot);
            cpu.with_shadow(Which::Vmcs01, |shadow| shadow.write_raw(encoding, value));
        }
    }
}
