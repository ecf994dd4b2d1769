//! The checks that VM entry makes on the VMCS, as rules: one for each bullet of the manual.
//!
//! They serve twice: they judge what a guest hypervisor wrote, and they explain our own failed entries, for which the
//! hardware says only "error 7". SDM 3C chapter 27 "VM Entries", 27.2 "Checks on VMX Controls and Host-State Area" and
//! 27.3.1 "Checks on the Guest-State Area". Where a bullet holds for several segment registers, there is a rule for each.
//!
//! All checks are for a processor outside SMM. The bullets for entries to and from SMM are therefore one rule each: the
//! two VM-entry controls must be 0, and SMIs must not be blocked.

use core::ops::ControlFlow;

use crate::access::Access;
use crate::capabilities::Capabilities;
use crate::exit_reason::ExitReason;
use crate::field::Encoding;
use crate::instruction_error::InstructionError;

#[macro_use]
mod rule_macro;

mod controls;
mod event_injection;
mod exit_entry_controls;
mod guest_activity;
mod guest_descriptor_tables;
mod guest_registers;
mod guest_segments;
mod guest_state;
mod host_state;
mod parts;
mod state;

pub use parts::Parts;
use state::{Raw, State};

/// What the processor does when a rule is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The instruction fails with this error (VMfailValid).
    VmFail(InstructionError),
    /// A VM exit with bit 31 of the exit reason set, this basic reason and this exit qualification.
    Exit {
        /// The basic exit reason: [`ExitReason::ENTRY_FAILURE_GUEST_STATE`].
        reason: ExitReason,
        /// 0, 2 (PDPTEs), 3 (NMI and blocking by STI) or 4 (VMCS link pointer).
        qualification: u64,
    },
}

impl Outcome {
    const CONTROLS: Self = Self::VmFail(InstructionError::INVALID_CONTROL_FIELDS);
    const HOST: Self = Self::VmFail(InstructionError::INVALID_HOST_STATE);
    const GUEST: Self = Self::guest(0);
    const PDPTE: Self = Self::guest(2);
    const NMI: Self = Self::guest(3);
    const LINK_POINTER: Self = Self::guest(4);

    const fn guest(qualification: u64) -> Self {
        Self::Exit { reason: ExitReason::ENTRY_FAILURE_GUEST_STATE, qualification }
    }
}

/// One bullet of the manual.
#[derive(Debug)]
pub struct Rule {
    /// Where the manual has it.
    pub section: &'static Section,
    /// What must hold.
    pub statement: &'static str,
    /// The fields that it is about. Control words that only say whether it applies are not among them.
    pub fields: &'static [Encoding],
    /// What happens if it does not hold.
    pub outcome: &'static Outcome,
}

/// A section of SDM 3C.
#[derive(Debug)]
pub struct Section {
    /// Its number.
    pub number: &'static str,
    /// Its title.
    pub title: &'static str,
}

/// Rules with their names.
type Group = &'static [(&'static Rule, &'static str)];

impl Rule {
    /// A short name, unique among the rules. It is not part of the rule, so that a program that does not ask for it does
    /// not carry it.
    pub fn name(&self) -> &'static str {
        named_rules().find(|(rule, _)| core::ptr::eq(*rule, self)).map_or("", |(_, name)| name)
    }
}

impl PartialEq for Rule {
    /// Each rule is there once.
    fn eq(&self, other: &Self) -> bool {
        core::ptr::eq(self, other)
    }
}

impl Eq for Rule {}

impl core::fmt::Display for Rule {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{} (SDM 3C {} \"{}\")", self.statement, self.section.number, self.section.title)
    }
}

#[cfg(feature = "defmt")]
impl defmt::Format for Rule {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "{=str} (SDM 3C {=str} \"{=str}\")", self.statement, self.section.number, self.section.title);
    }
}

/// The seam: the memory that VM entry looks at, by the physical addresses that the VMCS holds.
pub trait PhysicalMemory {
    /// The aligned 64-bit word at `address`; all ones where there is no memory, as on the machine.
    fn read_u64(&self, address: u64) -> u64;
}

/// Bits of MSRs that are reserved on this processor: a 1 marks a bit that must be 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReservedMsrBits {
    /// IA32_EFER.
    pub efer: u64,
    /// IA32_DEBUGCTL.
    pub debugctl: u64,
    /// IA32_PERF_GLOBAL_CTRL.
    pub perf_global_ctrl: u64,
    /// IA32_RTIT_CTL.
    pub rtit_ctl: u64,
    /// IA32_LBR_CTL.
    pub lbr_ctl: u64,
}

impl ReservedMsrBits {
    /// The bits that no edition of the manual defines; a processor may reserve more. IA32_EFER: SDM 3A 2.2.1; the others:
    /// SDM 4, 2.1 "Architectural MSRs".
    pub const ARCHITECTURAL: Self = Self {
        efer: !0xd01,
        debugctl: !0xffc7,
        perf_global_ctrl: !0x0001_ffff_ffff_ffff,
        rtit_ctl: 0xfe7f_0000_7084_0000,
        lbr_ctl: !0x007f_000f,
    };
}

/// What the checks need to know beside the VMCS.
#[derive(Clone, Copy)]
pub struct Environment<'a> {
    /// What the processor's VMX can do; for a guest hypervisor, what it was shown.
    pub capabilities: &'a Capabilities,
    /// Width of physical addresses in bits: CPUID leaf 0x80000008, EAX bits 7:0.
    pub physical_address_bits: u8,
    /// Width of linear addresses in bits, 48 or 57: CPUID leaf 0x80000008, EAX bits 15:8.
    pub linear_address_bits: u8,
    /// Whether IA32_EFER.LMA is 1 at the time of the entry.
    pub in_ia32e_mode: bool,
    /// The current-VMCS pointer.
    pub current_vmcs: u64,
    /// Memory.
    pub memory: &'a dyn PhysicalMemory,
    /// Reserved bits of MSRs.
    pub reserved: ReservedMsrBits,
    /// CPUID leaf 7, EBX bit 2.
    pub has_sgx: bool,
    /// CPUID leaf 7, EBX bit 11.
    pub has_rtm: bool,
    /// CPUID leaf 7, ECX bit 24: pending debug exceptions may have bit 11.
    pub has_bus_lock_debug: bool,
    /// Whether IA32_RTIT_CTL.TraceEn is 1 at the time of the entry.
    pub is_tracing: bool,
    /// Whether the processor refuses to inject an NMI into a guest with blocking by STI. The manual lets processors
    /// differ.
    pub refuses_nmi_after_sti: bool,
}

impl<'a> Environment<'a> {
    /// A processor in 64-bit mode with 48-bit linear addresses, no optional features and only the architectural reserved
    /// bits; the current VMCS is at `current_vmcs`. Set the fields where the processor differs.
    pub const fn new(
        capabilities: &'a Capabilities,
        physical_address_bits: u8,
        current_vmcs: u64,
        memory: &'a dyn PhysicalMemory,
    ) -> Self {
        Self {
            capabilities,
            physical_address_bits,
            linear_address_bits: 48,
            in_ia32e_mode: true,
            current_vmcs,
            memory,
            reserved: ReservedMsrBits::ARCHITECTURAL,
            has_sgx: false,
            has_rtm: false,
            has_bus_lock_debug: false,
            is_tracing: false,
            refuses_nmi_after_sti: true,
        }
    }
}

/// The first rule that the VMCS breaks: what VM entry will fail with, or why it failed.
///
/// Controls come first, then host state, then guest state, as the processor takes them. `None`: the entry passes all
/// checks. Loading the MSRs of the VM-entry MSR-load list can still fail.
pub fn first_broken(vmcs: &impl Access, environment: &Environment<'_>) -> Option<&'static Rule> {
    first_broken_in(Parts::all(), vmcs, environment)
}

/// The first rule of `parts` that the VMCS breaks.
pub fn first_broken_in(parts: Parts, vmcs: &impl Access, environment: &Environment<'_>) -> Option<&'static Rule> {
    let mut first = None;
    let _ = run(parts, &|encoding| vmcs.read_raw(encoding), environment, &mut |rule| {
        first = Some(rule);
        ControlFlow::Break(())
    });
    first
}

/// Hands every rule that the VMCS breaks to `broken`, in the order of [`rules`].
pub fn for_each_broken(vmcs: &impl Access, environment: &Environment<'_>, mut broken: impl FnMut(&'static Rule)) {
    let _ = run(Parts::all(), &|encoding| vmcs.read_raw(encoding), environment, &mut |rule| {
        broken(rule);
        ControlFlow::Continue(())
    });
}

/// All rules: controls, host state, guest state.
pub fn rules() -> impl Iterator<Item = &'static Rule> {
    named_rules().map(|(rule, _)| rule)
}

fn named_rules() -> impl Iterator<Item = (&'static Rule, &'static str)> {
    [
        controls::RULES,
        exit_entry_controls::exit::RULES,
        exit_entry_controls::entry::RULES,
        event_injection::RULES,
        host_state::registers::RULES,
        host_state::segments::RULES,
        host_state::address_space::RULES,
        guest_registers::RULES,
        guest_segments::selectors::RULES,
        guest_segments::cs::RULES,
        guest_segments::ss::RULES,
        guest_segments::ds::RULES,
        guest_segments::es::RULES,
        guest_segments::fs::RULES,
        guest_segments::gs::RULES,
        guest_descriptor_tables::tr::RULES,
        guest_descriptor_tables::ldtr::RULES,
        guest_descriptor_tables::tables::RULES,
        guest_state::RULES,
        guest_activity::activity::RULES,
        guest_activity::interruptibility::RULES,
        guest_activity::pending_debug::RULES,
        guest_activity::link_pointer::RULES,
        guest_activity::pdptes::RULES,
    ]
    .into_iter()
    .flatten()
    .copied()
}

/// What is done with a broken rule, and whether to go on.
type Broken<'a> = &'a mut dyn FnMut(&'static Rule) -> ControlFlow<()>;

fn run(parts: Parts, vmcs: Raw<'_>, environment: &Environment<'_>, broken: Broken<'_>) -> ControlFlow<()> {
    let state = &State::new(vmcs, environment);
    if parts.contains(Parts::CONTROLS) {
        controls::check(state, broken)?;
        exit_entry_controls::exit::check(state, broken)?;
        exit_entry_controls::entry::check(state, broken)?;
    }
    if parts.contains(Parts::EVENT) {
        event_injection::check(state, broken)?;
    }
    if parts.contains(Parts::HOST) {
        host_state::registers::check(state, broken)?;
        host_state::segments::check(state, broken)?;
        host_state::address_space::check(state, broken)?;
    }
    if parts.contains(Parts::REGISTERS) {
        guest_registers::check(state, broken)?;
    }
    if parts.contains(Parts::SEGMENTS) {
        guest_segments::selectors::check(state, broken)?;
        guest_segments::cs::check(state, broken)?;
        guest_segments::ss::check(state, broken)?;
        guest_segments::ds::check(state, broken)?;
        guest_segments::es::check(state, broken)?;
        guest_segments::fs::check(state, broken)?;
        guest_segments::gs::check(state, broken)?;
    }
    if parts.contains(Parts::TR) {
        guest_descriptor_tables::tr::check(state, broken)?;
    }
    if parts.contains(Parts::LDTR) {
        guest_descriptor_tables::ldtr::check(state, broken)?;
    }
    if parts.contains(Parts::TABLES) {
        guest_descriptor_tables::tables::check(state, broken)?;
    }
    if parts.contains(Parts::RIP_RFLAGS) {
        guest_state::check(state, broken)?;
    }
    if parts.contains(Parts::NON_REGISTER) {
        guest_activity::activity::check(state, broken)?;
        guest_activity::interruptibility::check(state, broken)?;
        guest_activity::pending_debug::check(state, broken)?;
    }
    if parts.contains(Parts::LINK_POINTER) {
        guest_activity::link_pointer::check(state, broken)?;
    }
    if parts.contains(Parts::PDPTES) {
        guest_activity::pdptes::check(state, broken)?;
    }
    ControlFlow::Continue(())
}
