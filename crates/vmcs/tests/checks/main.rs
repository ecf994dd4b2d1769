//! The consistency checks of VM entry: for each rule, a VMCS that is valid but for one thing.

use std::collections::HashSet;

use testkit::{FakeMemory, FakeVmcs, capability_msrs};
use vmcs::checks::{self, Environment, Outcome, PhysicalMemory};
use vmcs::field::{Field, W32};
use vmcs::fields::*;
use vmcs::{Access, Capabilities, ExitReason, InstructionError};

mod controls;
mod guest_non_register;
mod guest_registers;
mod guest_segments;
mod host;

/// Where the current VMCS is.
const CURRENT_VMCS: u64 = 0x5_0000;
/// A valid page that nothing else uses.
const PAGE: u64 = 0x7_0000;
/// An address beyond the 46 bits that the tests' processor has.
const TOO_WIDE: u64 = 1 << 46;
/// An address that is canonical neither with 48 nor with 57 bits.
const NOT_CANONICAL: u64 = 0x8000_0000_0000_0000;

/// A processor about to enter a guest: everything passes until a test breaks it.
struct Machine {
    vmcs: FakeVmcs,
    memory: FakeMemory,
    capabilities: Capabilities,
    in_ia32e_mode: bool,
    has_sgx: bool,
    has_rtm: bool,
    has_bus_lock_debug: bool,
    is_tracing: bool,
    refuses_nmi_after_sti: bool,
}

impl Machine {
    fn new() -> Self {
        let mut memory = FakeMemory::new();
        // VTPR of the virtual-APIC page.
        memory.set(0x1_3080, 0);
        Self {
            vmcs: FakeVmcs::valid(),
            memory,
            capabilities: Capabilities::read(capability_msrs),
            in_ia32e_mode: true,
            has_sgx: true,
            has_rtm: true,
            has_bus_lock_debug: true,
            is_tracing: false,
            refuses_nmi_after_sti: true,
        }
    }

    fn set(&mut self, field: Field<W32>, bits: u32) {
        let value = self.vmcs.read(field) | bits;
        self.vmcs.write(field, value);
    }

    fn clear(&mut self, field: Field<W32>, bits: u32) {
        let value = self.vmcs.read(field) & !bits;
        self.vmcs.write(field, value);
    }

    fn environment(&self) -> Environment<'_> {
        let memory: &dyn PhysicalMemory = &self.memory;
        Environment {
            in_ia32e_mode: self.in_ia32e_mode,
            has_sgx: self.has_sgx,
            has_rtm: self.has_rtm,
            has_bus_lock_debug: self.has_bus_lock_debug,
            is_tracing: self.is_tracing,
            refuses_nmi_after_sti: self.refuses_nmi_after_sti,
            ..Environment::new(&self.capabilities, 46, CURRENT_VMCS, memory)
        }
    }

    fn broken(&self) -> Vec<&'static str> {
        let mut names = Vec::new();
        checks::for_each_broken(&self.vmcs, &self.environment(), |rule| names.push(rule.name()));
        names
    }
}

/// The rules that the change breaks, separated by spaces (mostly one), and the change.
type Row = (&'static str, fn(&mut Machine));

fn all_rows() -> Vec<Row> {
    [controls::ROWS, host::ROWS, guest_registers::ROWS, guest_segments::ROWS, guest_non_register::ROWS].concat()
}

/// The baseline must pass, or no row would mean anything.
#[test]
fn valid_vmcs_breaks_no_rule() {
    assert_eq!(Machine::new().broken(), [""; 0]);
    assert!(checks::first_broken(&Machine::new().vmcs, &Machine::new().environment()).is_none());
}

/// Break one thing, expect that rule and no other. A row whose change cannot but break several rules names them all.
#[test]
fn each_change_breaks_its_rule() {
    for (expected, change) in all_rows() {
        let mut machine = Machine::new();
        change(&mut machine);
        let broken = machine.broken();
        assert_eq!(broken.join(" "), expected);
        let first = checks::first_broken(&machine.vmcs, &machine.environment());
        assert_eq!(first.map(|rule| rule.name()), broken.first().copied());
    }
}

/// No rule is without a row, and no two rules have one name.
#[test]
fn each_rule_has_a_row() {
    let tried: HashSet<&str> = all_rows().iter().flat_map(|(names, _)| names.split(' ')).collect();
    let untried: Vec<_> = checks::rules().map(|rule| rule.name()).filter(|name| !tried.contains(name)).collect();
    assert_eq!(untried, [""; 0]);
    let names: HashSet<_> = checks::rules().map(|rule| rule.name()).collect();
    assert_eq!(names.len(), checks::rules().count());
}

/// SDM 3C 27.2 and 27.8: controls fail with error 7, host state with error 8, guest state exits with reason 33, whose
/// qualification tells PDPTEs (2), NMI injection (3) and the link pointer (4) from the rest (0).
#[test]
fn outcomes_follow_from_the_section() {
    for rule in checks::rules() {
        let qualification = match (rule.section.number, rule.name()) {
            (_, "GUEST_PDPTES_RESERVED") => 2,
            (_, "GUEST_NMI_WHILE_STI") => 3,
            (_, name) if name.starts_with("LINK_POINTER") => 4,
            _ => 0,
        };
        let expected = match &rule.section.number[..4] {
            _ if rule.section.number.starts_with("27.2.1") => Outcome::VmFail(InstructionError::INVALID_CONTROL_FIELDS),
            "27.2" => Outcome::VmFail(InstructionError::INVALID_HOST_STATE),
            _ => Outcome::Exit { reason: ExitReason::ENTRY_FAILURE_GUEST_STATE, qualification },
        };
        assert_eq!(*rule.outcome, expected, "{}", rule.name());
    }
}

/// Controls are judged before host state and host state before guest state, as the processor does: of three mistakes the
/// first decides the outcome.
#[test]
fn groups_are_judged_in_the_processors_order() {
    let mut machine = Machine::new();
    machine.vmcs.write(GUEST_RFLAGS, 0);
    let first = |machine: &Machine| checks::first_broken(&machine.vmcs, &machine.environment()).unwrap().name();
    assert_eq!(first(&machine), "GUEST_RFLAGS_RESERVED");
    machine.vmcs.write(HOST_CR3, TOO_WIDE);
    assert_eq!(first(&machine), "HOST_CR3_WIDTH");
    machine.vmcs.write(VIRTUAL_PROCESSOR_ID, 0);
    assert_eq!(first(&machine), "VPID_NOT_ZERO");
}

/// VMREAD of a field that the processor does not have fails. Whatever bits a control word sets, no rule may ask for a field
/// beyond the capabilities: here those of a processor without secondary controls.
#[test]
fn rules_read_no_field_that_does_not_exist() {
    use arch::Msr;
    let mut machine = Machine::new();
    machine.capabilities = Capabilities::read(|msr| match msr {
        Msr::VMX_TRUE_PROCBASED_CTLS => 0x77b9_fffe_0400_6172,
        Msr::VMX_TRUE_EXIT_CTLS => 0x0003_6fff_0003_6dfb,
        Msr::VMX_TRUE_ENTRY_CTLS => 0x0000_13ff_0000_11fb,
        other => capability_msrs(other),
    });
    machine.vmcs.write(CPU_BASED_VM_EXEC_CONTROL, u32::MAX);
    machine.vmcs.write(SECONDARY_VM_EXEC_CONTROL, u32::MAX);
    machine.vmcs.write(VM_EXIT_CONTROLS, u32::MAX);
    machine.vmcs.write(VM_ENTRY_CONTROLS, u32::MAX);
    machine.vmcs.forget_reads();
    assert!(machine.broken().contains(&"PRIMARY_RESERVED"));
    for encoding in machine.vmcs.reads() {
        let field = vmcs::field::info(encoding).unwrap();
        assert!(machine.capabilities.has_field(field), "{} does not exist", field.name);
    }
}

/// The sentence in the log of a failed entry.
#[test]
fn rules_explain_themselves() {
    let mut machine = Machine::new();
    machine.vmcs.write(VIRTUAL_PROCESSOR_ID, 0);
    let rule = checks::first_broken(&machine.vmcs, &machine.environment()).unwrap();
    assert_eq!(
        rule.to_string(),
        "with \"enable VPID\", the VPID must not be 0 (SDM 3C 27.2.1.1 \"VM-Execution Control Fields\")"
    );
    assert_eq!(rule.fields, [VIRTUAL_PROCESSOR_ID.encoding()]);
}
