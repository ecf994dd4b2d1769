//! Why an entry of L1 failed, in words for its author: what hardware says, the rule, and what the fields hold.
//!
//! Made when an entry has failed, and written into the log once for each cause, so that it may be slow.

use core::fmt::{self, Display, Formatter};

use arch::Msr;
use arch::control::{Cr0, Cr4, Efer, Rflags};
use arch::segment::AccessRights;
use vmcs::checks::{Outcome, Rule};
use vmcs::controls::{ControlWord, EntryControls, ExitControls, PinBased, PrimaryBased, SecondaryBased};
use vmcs::fields::*;
use vmcs::{Access, Capabilities, Encoding, EventInfo};

use crate::entry::Refusal;

/// How many fields of a rule are shown.
const FIELDS_SHOWN: usize = 4;

/// Why an entry failed. Its lines are [`Explanation::lines`]; `Display` is all of them.
#[derive(Clone, Copy, Debug)]
pub struct Explanation {
    rule: Option<&'static Rule>,
    outcome: Outcome,
    values: [Value; FIELDS_SHOWN],
    listed: Option<(Msr, u64)>,
}

/// A field's value, and which of its bits have but one setting on L1's processor.
#[derive(Clone, Copy, Debug, Default)]
struct Value {
    value: u64,
    must_be_1: u64,
    must_be_0: u64,
}

impl Explanation {
    /// Of the entry that was refused.
    pub(crate) fn new(refusal: &Refusal<'_>) -> Self {
        let mut values = [Value::default(); FIELDS_SHOWN];
        let fields = refusal.rule.map_or(&[][..], |rule| rule.fields);
        for (value, &field) in values.iter_mut().zip(fields) {
            let (must_be_1, may_be_1) = settings(field, refusal);
            *value = Value { value: refusal.vmcs12.read_raw(field), must_be_1, must_be_0: !may_be_1 };
        }
        Self { rule: refusal.rule, outcome: refusal.outcome, values, listed: refusal.listed }
    }

    /// The rule that vmcs12 breaks; none where an MSR of the VM-entry MSR-load list could not be loaded.
    pub const fn rule(&self) -> Option<&'static Rule> {
        self.rule
    }

    /// What L1 was told.
    pub const fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// One line after the other, the first of which says what hardware says.
    pub fn lines(&self) -> impl Iterator<Item = impl Display> + '_ {
        let shown = self.rule.map_or(0, |rule| rule.fields.len().min(FIELDS_SHOWN));
        (0..2 + shown).map(|number| Line { explanation: self, number })
    }

    fn cause(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let position = match (self.rule, self.outcome) {
            (Some(rule), _) => return write!(f, "broken rule: {rule}"),
            (None, Outcome::Exit { qualification, .. }) => qualification,
            (None, Outcome::VmFail(_)) => 0,
        };
        write!(f, "entry {position} of the VM-entry MSR-load list is ")?;
        match self.listed {
            Some((msr, value)) => {
                write!(f, "{value:#x} for {msr:?}, which WRMSR would not take or which may not be in the list")
            }
            None => f.write_str("not in memory, or beyond the 4096 entries that are recommended at most"),
        }?;
        f.write_str(" (SDM 3C 27.4 \"Loading MSRs\")")
    }

    fn field(&self, f: &mut Formatter<'_>, number: usize) -> fmt::Result {
        let Some((&field, value)) = self.rule.and_then(|rule| rule.fields.get(number)).zip(self.values.get(number))
        else {
            return Ok(());
        };
        write!(f, "{field:?} is {:#x}", value.value)?;
        let wrong_0 = value.must_be_1 & !value.value;
        let wrong_1 = value.must_be_0 & value.value;
        if wrong_0 | wrong_1 == 0 {
            return meaning(f, field, value.value);
        }
        let mut separator = ": ";
        for bit in (0..64).filter(|bit| (wrong_0 | wrong_1) >> bit & 1 != 0) {
            let (is, must) = if wrong_1 >> bit & 1 != 0 { (1, 0) } else { (0, 1) };
            write!(f, "{separator}bit {bit}")?;
            if let Some(name) = bit_name(field, bit) {
                write!(f, " ({name})")?;
            }
            write!(f, " is {is} and must be {must}")?;
            separator = ", ";
        }
        Ok(())
    }
}

/// One line of an explanation.
struct Line<'a> {
    explanation: &'a Explanation,
    number: usize,
}

impl Display for Line<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match (self.number, self.explanation.outcome) {
            (0, Outcome::VmFail(error)) => write!(f, "entry of L1 failed: VMfailValid, {error}"),
            (0, Outcome::Exit { reason, qualification }) => write!(
                f,
                "entry of L1 failed: VM exit {}, {}, with exit reason {:#x} and qualification {qualification}",
                reason.0,
                reason.name(),
                u32::from(reason.0) | 1 << 31
            ),
            (1, _) => self.explanation.cause(f),
            (number, _) => self.explanation.field(f, number - 2),
        }
    }
}

impl Display for Explanation {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.lines().try_for_each(|line| writeln!(f, "{line}"))
    }
}

impl PartialEq for Explanation {
    /// The same cause, whatever the values are.
    fn eq(&self, other: &Self) -> bool {
        self.rule == other.rule && self.outcome == other.outcome
    }
}

impl Eq for Explanation {}

#[cfg(feature = "defmt")]
impl defmt::Format for Explanation {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "{}", defmt::Display2Format(self));
    }
}

/// The bits of a field that must be 1 and those that may be 1, by the capability MSRs of L1.
fn settings(field: Encoding, refusal: &Refusal<'_>) -> (u64, u64) {
    fn of<C: ControlWord>(allowed: &vmcs::capabilities::Allowed<C>) -> (u64, u64) {
        (allowed.allowed0.to_bits(), allowed.allowed1.to_bits())
    }
    let Capabilities { pin, primary, secondary, exit, entry, cr0, cr4, .. } = refusal.capabilities;
    // With "unrestricted guest" these two are free.
    let word = SecondaryBased::from_bits_retain(refusal.vmcs12.read(SECONDARY_VM_EXEC_CONTROL));
    let free = if word.contains(SecondaryBased::UNRESTRICTED_GUEST) { (Cr0::PE | Cr0::PG).bits() } else { 0 };
    match field {
        _ if field == PIN_BASED_VM_EXEC_CONTROL.encoding() => of(pin),
        _ if field == CPU_BASED_VM_EXEC_CONTROL.encoding() => of(primary),
        _ if field == SECONDARY_VM_EXEC_CONTROL.encoding() => of(secondary),
        _ if field == VM_EXIT_CONTROLS.encoding() => of(exit),
        _ if field == VM_ENTRY_CONTROLS.encoding() => of(entry),
        _ if field == HOST_CR0.encoding() => (cr0.fixed0, cr0.fixed1),
        _ if field == GUEST_CR0.encoding() => (cr0.fixed0 & !free, cr0.fixed1),
        _ if field == HOST_CR4.encoding() || field == GUEST_CR4.encoding() => (cr4.fixed0, cr4.fixed1),
        _ => (0, u64::MAX),
    }
}

/// What the manual calls a bit of a field.
fn bit_name(field: Encoding, bit: u32) -> Option<&'static str> {
    fn control<C: ControlWord>(bit: u32) -> Option<&'static str> {
        C::CONTROLS.iter().find(|(number, _)| u32::from(*number) == bit).map(|&(_, name)| name)
    }
    fn flag<F: bitflags::Flags<Bits = u64>>(bit: u32) -> Option<&'static str> {
        F::FLAGS.iter().find(|flag| flag.value().bits() == 1 << bit).map(|flag| flag.name())
    }
    match field {
        _ if field == PIN_BASED_VM_EXEC_CONTROL.encoding() => control::<PinBased>(bit),
        _ if field == CPU_BASED_VM_EXEC_CONTROL.encoding() => control::<PrimaryBased>(bit),
        _ if field == SECONDARY_VM_EXEC_CONTROL.encoding() => control::<SecondaryBased>(bit),
        _ if field == VM_EXIT_CONTROLS.encoding() => control::<ExitControls>(bit),
        _ if field == VM_ENTRY_CONTROLS.encoding() => control::<EntryControls>(bit),
        _ if field == HOST_CR0.encoding() || field == GUEST_CR0.encoding() => flag::<Cr0>(bit),
        _ if field == HOST_CR4.encoding() || field == GUEST_CR4.encoding() => flag::<Cr4>(bit),
        _ if field == HOST_IA32_EFER.encoding() || field == GUEST_IA32_EFER.encoding() => flag::<Efer>(bit),
        _ if field == GUEST_RFLAGS.encoding() && bit != 1 => flag::<Rflags>(bit),
        _ => None,
    }
}

/// What a value means, where a number says little.
fn meaning(f: &mut Formatter<'_>, field: Encoding, value: u64) -> fmt::Result {
    const RIGHTS: [Encoding; 8] = [
        GUEST_ES_ACCESS_RIGHTS.encoding(),
        GUEST_CS_ACCESS_RIGHTS.encoding(),
        GUEST_SS_ACCESS_RIGHTS.encoding(),
        GUEST_DS_ACCESS_RIGHTS.encoding(),
        GUEST_FS_ACCESS_RIGHTS.encoding(),
        GUEST_GS_ACCESS_RIGHTS.encoding(),
        GUEST_LDTR_ACCESS_RIGHTS.encoding(),
        GUEST_TR_ACCESS_RIGHTS.encoding(),
    ];
    let low = u32::try_from(value & 0xffff_ffff).unwrap_or_default();
    match field {
        _ if RIGHTS.contains(&field) => rights(f, AccessRights(low)),
        _ if field == VMCS_LINK_POINTER.encoding() => write!(f, ", where {:#x} stands for none", u64::MAX),
        _ if field == VM_ENTRY_INTERRUPTION_INFO.encoding() => write!(f, ": {:?}", EventInfo(low)),
        _ if field == EPT_POINTER.encoding() => {
            let flags = if value & 1 << 6 == 0 { "no accessed and dirty flags" } else { "accessed and dirty flags" };
            write!(
                f,
                ": memory type {}, {} levels, {flags}, root at {:#x}",
                value & 7,
                (value >> 3 & 7) + 1,
                value & !0xfff
            )
        }
        _ => {
            let mut separator = ": ";
            for name in (0..64).filter(|bit| value >> bit & 1 != 0).filter_map(|bit| bit_name(field, bit)) {
                write!(f, "{separator}{name}")?;
                separator = ", ";
            }
            Ok(())
        }
    }
}

fn rights(f: &mut Formatter<'_>, rights: AccessRights) -> fmt::Result {
    let kind = if rights.is_code_or_data() { if rights.is_code() { "code" } else { "data" } } else { "system" };
    write!(f, ": {kind} of type {}, DPL {}", rights.kind(), rights.dpl())?;
    for (is_set, name) in [
        (rights.is_present(), "present"),
        (rights.is_long(), "L"),
        (rights.is_big(), "D/B"),
        (rights.is_granular(), "G"),
        (rights.is_unusable(), "unusable"),
    ] {
        if is_set {
            write!(f, ", {name}")?;
        }
    }
    Ok(())
}
