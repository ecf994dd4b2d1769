//! Nested VMX of a vCPU as bytes, and back: for moving a VM, or keeping it.
//!
//! What is saved is what L1 and L2 can tell apart: VMX operation, the pointers, L1's current VMCS with what of it stands in
//! vmcs02 or in the shadow VMCS, and, while L2 runs, L2's registers as they are in vmcs02. Neither vmcs02 nor EPT02 is saved:
//! they are made anew. vmcs01, general registers and memory are the vCPU's and the VM's to save.
//!
//! The bytes may come from anywhere. They are judged as a whole before anything is changed, by the same rules as a VM entry.

use arch::GuestPhys;
use arch::control::{Cr0, Cr4, Efer};
use vmcs::checks::{self, Environment, Parts, Rule};
use vmcs::controls::{EntryControls, PinBased, PrimaryBased, SecondaryBased};
use vmcs::fields::*;
use vmcs::{Access, EventInfo};

use crate::current::{Vmcs01, Vmcs02};
use crate::deferred_apicv::Deferred;
use crate::entry::L1Processor;
use crate::field_use::HOT;
use crate::host_state::is_legal_pdpte;
use crate::merge::{CR0_KEPT, Kept};
use crate::recheck::Words;
use crate::seam::{L1Memory, Processor, Which};
use crate::slots::{COUNT, Slot, SlotSet};
use crate::state::{Nested, Operation};
use crate::vmcs12::Vmcs12;

/// How many bytes there are.
pub const SAVED_BYTES: usize = HEADER + 8 * WORDS;

/// Magic number, version, length.
const HEADER: usize = 16;
const MAGIC: [u8; 8] = *b"NESTLVMX";
/// Another one for each change of what follows, the field table included.
const VERSION: u32 = 1;
/// Flags, seven values, vmcs12, L2's registers.
const WORDS: usize = 8 + 2 * COUNT;
const _: () = assert!(SAVED_BYTES <= u32::MAX as usize, "the length has 32 bits");

/// The VM-entry control that follows IA32_EFER.LMA of a guest that runs.
const LONG: u32 = EntryControls::IA32E_MODE_GUEST.bits();

/// Bits 1:0 of the flags are the operation.
mod flag {
    pub(super) const OPERATION: u64 = 3;
    pub(super) const CURRENT: u64 = 1 << 2;
    pub(super) const SHADOW: u64 = 1 << 3;
    pub(super) const LAUNCHED: u64 = 1 << 4;
    pub(super) const ENTRY_PENDING: u64 = 1 << 5;
    pub(super) const MTF_PENDING: u64 = 1 << 6;
    pub(super) const TIMER: u64 = 1 << 7;
    pub(super) const TSC_OFFSET: u64 = 1 << 8;
    pub(super) const ALL: u64 = (1 << 9) - 1;
}

/// Why saved bytes were refused.
#[derive(Clone, Copy, Debug)]
pub enum BadState {
    /// They do not begin with the magic number.
    NotNestedState,
    /// They are of this version.
    Version(u32),
    /// There are this many, or they say so of themselves.
    Length(usize),
    /// Flags that contradict each other, or that have no meaning.
    Flags(u64),
    /// The VMXON pointer.
    VmxonPointer(u64),
    /// The current-VMCS pointer.
    CurrentPointer(u64),
    /// Ticks of the TSC that the VMX-preemption timer cannot have left.
    Timer(u64),
    /// A value that is too large, mostly one that must be 0, with its position among the words.
    TooLarge(usize),
    /// A value that is wider than its field, or of a field that L1's processor lacks.
    Field(vmcs::Encoding),
    /// L2 runs although its VMCS breaks this rule.
    Rule(&'static Rule),
}

impl core::fmt::Display for BadState {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::NotNestedState => f.write_str("this is no saved state of nested VMX"),
            Self::Version(version) => write!(f, "the state has version {version}, not {VERSION}"),
            Self::Length(length) => write!(f, "the state has {length} bytes, not {SAVED_BYTES}"),
            Self::Flags(flags) => write!(f, "the flags {flags:#x} cannot be"),
            Self::VmxonPointer(pointer) => write!(f, "the VMXON pointer cannot be {pointer:#x}"),
            Self::CurrentPointer(pointer) => write!(f, "the current-VMCS pointer cannot be {pointer:#x}"),
            Self::Timer(left) => write!(f, "the VMX-preemption timer cannot have {left} TSC ticks left"),
            Self::TooLarge(position) => write!(f, "word {position} is too large"),
            Self::Field(encoding) => write!(f, "the field {encoding:?} cannot have its value"),
            Self::Rule(rule) => write!(f, "L2 cannot run: {rule}"),
        }
    }
}

impl core::error::Error for BadState {}

/// The state, read and judged.
struct Parsed {
    operation: Operation,
    vmxon_region: GuestPhys,
    current: Option<GuestPhys>,
    is_shadow: bool,
    vmcs12: Vmcs12,
    /// vmcs12 with L2's registers in place of what the last entry loaded, while L2 runs.
    live: Option<Vmcs12>,
    entry_pending: bool,
    mtf_pending: bool,
    timer_left: Option<u64>,
    last_vpid: u16,
    tsc_offset: Option<u64>,
}

impl Nested {
    /// Writes the state. vmcs01 is current, or vmcs02 while L2 runs; the same is current afterwards.
    pub fn save<P: Processor>(&mut self, cpu: &mut P, into: &mut [u8; SAVED_BYTES]) {
        let live = if self.in_l2() {
            let vmcs02 = Vmcs02::assume(cpu.vmcs());
            self.read_from(&vmcs02);
            self.registers_of_l2(&vmcs02)
        } else {
            self.take_shadow(cpu);
            self.read_back(cpu);
            Vmcs12::default()
        };
        let mut flags = match self.operation {
            Operation::Outside => 0,
            Operation::Root => 1,
            Operation::NonRoot => 2,
        };
        for (flag, is_set) in [
            (flag::CURRENT, self.current.is_some()),
            (flag::SHADOW, self.current.is_some() && self.is_shadow),
            (flag::LAUNCHED, self.current.is_some() && self.vmcs12.launched),
            (flag::ENTRY_PENDING, self.entry_pending),
            (flag::MTF_PENDING, self.mtf_pending),
            (flag::TIMER, self.timer_deadline.is_some()),
            (flag::TSC_OFFSET, self.deferred.tsc_offset().is_some()),
        ] {
            flags |= if is_set { flag } else { 0 };
        }
        let (header, body) = into.split_at_mut(HEADER);
        header[..8].copy_from_slice(&MAGIC);
        header[8..12].copy_from_slice(&VERSION.to_le_bytes());
        #[expect(clippy::cast_possible_truncation, reason = "asserted above")]
        header[12..].copy_from_slice(&(SAVED_BYTES as u32).to_le_bytes());
        let in_operation = |value: u64| if flags & flag::OPERATION == 0 { 0 } else { value };
        let fixed = [
            flags,
            in_operation(self.vmxon_region.get()),
            self.current.map_or(0, GuestPhys::get),
            self.timer_deadline.map_or(0, |deadline| deadline.saturating_sub(cpu.tsc())),
            in_operation(self.last_vpid.into()),
            self.deferred.tsc_offset().unwrap_or(0),
            0,
            0,
        ];
        let is_held = |slot| self.current.is_some() && self.uses.exists.contains(slot);
        let vmcs12 = Slot::all().map(|slot| if is_held(slot) { self.vmcs12.value(slot) } else { 0 });
        let words = fixed.into_iter().chain(vmcs12).chain(Slot::all().map(|slot| live.value(slot)));
        for (bytes, word) in body.chunks_exact_mut(8).zip(words) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
    }

    /// Takes over the state that [`Nested::save`] wrote, on any processor that offers L1 the same. This one is new, vmcs01
    /// is current and holds what it held then, and vmcs02 is clear. While L2 runs, vmcs02 is current afterwards.
    ///
    /// # Errors
    /// What is wrong with the bytes. Nothing was changed then.
    pub fn restore<P: Processor, M: L1Memory>(
        &mut self,
        cpu: &mut P,
        memory: &M,
        from: &[u8],
        l1: &L1Processor,
    ) -> Result<(), BadState> {
        let state = self.parse(cpu, memory, from, l1)?;
        self.operation = state.operation;
        self.vmxon_region = state.vmxon_region;
        self.current = state.current;
        self.is_shadow = state.is_shadow;
        self.vmcs12 = state.vmcs12;
        self.stale = SlotSet::EMPTY;
        self.is_merged = false;
        self.is_checked = false;
        self.is_prepared = false;
        self.entry_pending = state.entry_pending;
        self.mtf_pending = state.mtf_pending;
        self.timer_deadline = state.timer_left.map(|left| cpu.tsc().saturating_add(left));
        self.last_vpid = state.last_vpid;
        // What waits for the APIC's sake follows from its registers, and is submitted again when they are lent.
        self.deferred = Deferred::restored(state.tsc_offset);
        if self.in_vmx_operation() {
            self.allow_shadow_access(cpu);
        }
        if self.current.is_some() {
            self.show_shadow(cpu);
        }
        if let Some(live) = state.live {
            let vmcs12 = core::mem::replace(&mut self.vmcs12, live);
            self.resume_l2(cpu, memory, l1);
            self.vmcs12 = vmcs12;
        }
        Ok(())
    }

    /// L2's registers as vmcs02 has them, in the places that they have in vmcs12; 0 elsewhere.
    fn registers_of_l2(&self, vmcs02: &Vmcs02<'_, impl Access>) -> Vmcs12 {
        let mut registers = Vmcs12::default();
        self.live_slots().for_each(|slot| {
            registers.set_value(slot, self.stale_value(vmcs02, slot.info().encoding));
        });
        let controls = self.vmcs12.read(VM_ENTRY_CONTROLS) & !LONG | vmcs02.read(VM_ENTRY_CONTROLS) & LONG;
        registers.write(VM_ENTRY_CONTROLS, controls);
        registers
    }

    /// What an exit may find changed in vmcs02.
    fn live_slots(&self) -> SlotSet {
        let mut slots = self.uses.cold;
        HOT.into_iter().chain([VM_ENTRY_CONTROLS.encoding()]).for_each(|field| slots.insert(Slot::known(field)));
        slots
    }

    /// Makes vmcs02 for an L2 in the middle of its run. `vmcs12` has its registers for the moment.
    fn resume_l2<P: Processor, M: L1Memory>(&mut self, cpu: &mut P, memory: &M, l1: &L1Processor) {
        // No register is L1's any more: what L1's controls do not load has been in L2's hands.
        let kept = Kept {
            cr0: self.vmcs12.read(GUEST_CR0),
            efer: self.vmcs12.read(GUEST_IA32_EFER),
            pat: self.vmcs12.read(GUEST_IA32_PAT),
            dr7: self.vmcs12.read(GUEST_DR7),
            debugctl: self.vmcs12.read(GUEST_IA32_DEBUGCTL),
        };
        cpu.make_current(Which::Vmcs02);
        let mut vmcs02 = Vmcs02::assume(cpu.vmcs());
        self.merge(&mut vmcs02, memory, &kept, l1.tsc_offset);
        self.prepare_run(&mut vmcs02, memory);
        for pdpte in [GUEST_PDPTE0, GUEST_PDPTE1, GUEST_PDPTE2, GUEST_PDPTE3] {
            // Where L0 loads them for L2, they are not what L1's memory holds by now.
            vmcs02.write(pdpte, self.vmcs12.read(pdpte));
        }
        self.select_ept(cpu);
        cpu.flush_l2();
    }

    fn parse<P: Processor, M: L1Memory>(
        &self,
        cpu: &mut P,
        memory: &M,
        from: &[u8],
        l1: &L1Processor,
    ) -> Result<Parsed, BadState> {
        let mut words = words(from)?;
        let mut next = || words.next().unwrap_or(0);
        let [flags, vmxon, current, timer, vpid, tsc_offset, reserved_a, reserved_b] = [(); 8].map(|()| next());
        let has = |flag: u64| flags & flag != 0;
        let operation = match flags & flag::OPERATION {
            0 => Operation::Outside,
            1 => Operation::Root,
            2 => Operation::NonRoot,
            _ => return Err(BadState::Flags(flags)),
        };
        let in_l2 = operation == Operation::NonRoot;
        let offers_shadowing = self.capabilities.secondary.supports(SecondaryBased::VMCS_SHADOWING);
        let contradicts = flags & !flag::ALL != 0
            || operation == Operation::Outside && flags != 0
            || !has(flag::CURRENT) && (has(flag::SHADOW | flag::LAUNCHED) || in_l2)
            || has(flag::SHADOW) && (!offers_shadowing || in_l2)
            || in_l2 && !has(flag::LAUNCHED)
            || !in_l2 && has(flag::ENTRY_PENDING | flag::MTF_PENDING | flag::TIMER | flag::TSC_OFFSET);
        if contradicts {
            return Err(BadState::Flags(flags));
        }
        let zero = |position: usize, wanted: bool, value: u64| {
            if wanted || value == 0 { Ok(()) } else { Err(BadState::TooLarge(position)) }
        };
        let in_operation = operation != Operation::Outside;
        zero(1, in_operation, vmxon)?;
        zero(2, has(flag::CURRENT), current)?;
        zero(3, has(flag::TIMER), timer)?;
        zero(4, in_operation, vpid)?;
        zero(5, has(flag::TSC_OFFSET), tsc_offset)?;
        zero(6, false, reserved_a)?;
        zero(7, false, reserved_b)?;
        if in_operation && !self.is_region_pointer(vmxon) {
            return Err(BadState::VmxonPointer(vmxon));
        }
        // The region was in RAM when it became current, and RAM does not go away.
        let is_region = self.is_region_pointer(current) && memory.read_u32(GuestPhys(current)).is_ok();
        if has(flag::CURRENT) && (!is_region || current == vmxon) {
            return Err(BadState::CurrentPointer(current));
        }
        if timer >> self.capabilities.misc.preemption_timer_shift() > u32::MAX.into() {
            return Err(BadState::Timer(timer));
        }
        let last_vpid = u16::try_from(vpid).map_err(|_| BadState::TooLarge(4))?;
        let every = if has(flag::CURRENT) { self.uses.exists } else { SlotSet::EMPTY };
        let mut vmcs12 = fields(&mut next, &every)?;
        vmcs12.launched = has(flag::LAUNCHED);
        let live = fields(&mut next, &if in_l2 { self.live_slots() } else { SlotSet::EMPTY })?;
        let live = if in_l2 { Some(self.merge_live(&vmcs12, &live, flags)?) } else { None };
        if let Some(live) = &live {
            self.judge(cpu, memory, live, l1)?;
        }
        Ok(Parsed {
            operation,
            vmxon_region: GuestPhys(vmxon),
            current: has(flag::CURRENT).then_some(GuestPhys(current)),
            is_shadow: has(flag::SHADOW),
            vmcs12,
            live,
            entry_pending: has(flag::ENTRY_PENDING),
            mtf_pending: has(flag::MTF_PENDING),
            timer_left: has(flag::TIMER).then_some(timer),
            last_vpid,
            tsc_offset: has(flag::TSC_OFFSET).then_some(tsc_offset),
        })
    }

    /// vmcs12 with L2's registers instead of those with which it was entered.
    fn merge_live(&self, vmcs12: &Vmcs12, registers: &Vmcs12, flags: u64) -> Result<Vmcs12, BadState> {
        let changed = vmcs12.read(VM_ENTRY_CONTROLS) ^ registers.read(VM_ENTRY_CONTROLS);
        if changed & !LONG != 0 {
            return Err(BadState::Field(VM_ENTRY_CONTROLS.encoding()));
        }
        let pin = PinBased::from_bits_retain(vmcs12.read(PIN_BASED_VM_EXEC_CONTROL));
        if pin.contains(PinBased::ACTIVATE_PREEMPTION_TIMER) != (flags & flag::TIMER != 0) {
            return Err(BadState::Flags(flags));
        }
        // Bits of CR0 and CR4 that L0 and L1 own both are what L1 entered with.
        for (field, shared) in [
            (GUEST_CR0, self.base.cr0_owned & vmcs12.read(CR0_GUEST_HOST_MASK) & !CR0_KEPT),
            (GUEST_CR4, self.base.cr4_owned & vmcs12.read(CR4_GUEST_HOST_MASK)),
        ] {
            if (vmcs12.read(field) ^ registers.read(field)) & shared != 0 {
                return Err(BadState::Field(field.encoding()));
            }
        }
        let mut live = vmcs12.clone();
        self.live_slots().for_each(|slot| live.set_value(slot, registers.value(slot)));
        if flags & flag::ENTRY_PENDING == 0 {
            // It is active, or its vCPU knows better; and the event has been delivered.
            live.write(GUEST_ACTIVITY_STATE, 0);
            live.write(VM_ENTRY_INTERRUPTION_INFO, EventInfo::NONE.0);
        }
        Ok(live)
    }

    /// An L2 that runs keeps the rules of VM entry, but for those about memory that only L1's entry looks at.
    fn judge<P: Processor, M: L1Memory>(
        &self,
        cpu: &mut P,
        memory: &M,
        live: &Vmcs12,
        l1: &L1Processor,
    ) -> Result<(), BadState> {
        let words = Words(memory);
        let efer = Efer::from_bits_retain(Vmcs01::assume(cpu.vmcs()).read(GUEST_IA32_EFER));
        let environment = Environment {
            in_ia32e_mode: efer.contains(Efer::LMA),
            has_sgx: l1.has_sgx,
            has_rtm: l1.has_rtm,
            ..Environment::new(&self.capabilities, self.base.physical_address_bits, 0, &words)
        };
        let mut parts = Parts::all().difference(Parts::LINK_POINTER);
        let primary = PrimaryBased::from_bits_retain(live.read(CPU_BASED_VM_EXEC_CONTROL));
        let secondary = SecondaryBased::from_bits_retain(live.read(SECONDARY_VM_EXEC_CONTROL));
        if !primary.contains(PrimaryBased::ACTIVATE_SECONDARY_CONTROLS)
            || !secondary.contains(SecondaryBased::ENABLE_EPT)
        {
            // The rule would look for them in memory; vmcs02 has EPT, and with it the fields count.
            parts.remove(Parts::PDPTES);
            self.judge_pdptes(live)?;
        }
        match checks::first_broken_in(parts, live, &environment) {
            Some(rule) => Err(BadState::Rule(rule)),
            None => Ok(()),
        }
    }

    fn judge_pdptes(&self, live: &Vmcs12) -> Result<(), BadState> {
        let has_pae = live.read(GUEST_CR0) & Cr0::PG.bits() != 0
            && live.read(GUEST_CR4) & Cr4::PAE.bits() != 0
            && live.read(VM_ENTRY_CONTROLS) & LONG == 0;
        for pdpte in [GUEST_PDPTE0, GUEST_PDPTE1, GUEST_PDPTE2, GUEST_PDPTE3] {
            if has_pae && !is_legal_pdpte(live.read(pdpte), self.base.physical_address_bits) {
                return Err(BadState::Field(pdpte.encoding()));
            }
        }
        Ok(())
    }
}

/// The words behind a header that is right.
fn words(from: &[u8]) -> Result<impl Iterator<Item = u64> + '_, BadState> {
    let (header, body) = from.split_at_checked(HEADER).ok_or(BadState::Length(from.len()))?;
    let number = |at: usize| header[at..at + 4].iter().rev().fold(0, |all, &byte| all << 8 | u32::from(byte));
    if header[..8] != MAGIC {
        return Err(BadState::NotNestedState);
    }
    if number(8) != VERSION {
        return Err(BadState::Version(number(8)));
    }
    for length in [number(12) as usize, from.len()] {
        if length != SAVED_BYTES {
            return Err(BadState::Length(length));
        }
    }
    Ok(body.chunks_exact(8).map(|bytes| bytes.iter().rev().fold(0, |all, &byte| all << 8 | u64::from(byte))))
}

/// A value for each field of `which`, 0 for all others.
fn fields(next: &mut impl FnMut() -> u64, which: &SlotSet) -> Result<Vmcs12, BadState> {
    let mut fields = Vmcs12::default();
    for slot in Slot::all() {
        let encoding = slot.info().encoding;
        let value = next();
        let fits = if which.contains(slot) { encoding.truncate(value) == value } else { value == 0 };
        if !fits {
            return Err(BadState::Field(encoding));
        }
        fields.set_value(slot, value);
    }
    Ok(fields)
}
