//! The guest `abuse`.

use super::{Case, Expect, Kernel, PATIENCE};
use crate::board;
use crate::places;
use anyhow::Result;
use config::{STATUS_REFUSED, STATUS_TIMEOUT};

/// A guest that does what no kernel should: the fault that the manual names, or its VM stopped with a sentence.
pub(super) fn all() -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    for name in [
        "outside_memory",
        "unknown_port",
        "unknown_msr",
        "wild_cr",
        "cpuid_storm",
        "msr_storm",
        "port_storm",
        "mmio_storm",
        "mmio_storm_ioapic",
        "icr_storm",
        "apic_base_moved",
        "jump_nowhere",
        "spin_deaf",
        "ipi_flood",
    ] {
        let mut case = Case::new(&format!("abuse-{name}"), board::DEFAULT, Kernel::Ours("abuse"), PATIENCE)?;
        case.spec.cmdline = name.to_owned();
        case.expect.push(Expect::Console("\nsurvived\n".to_owned()));
        let log = match name {
            "jump_nowhere" => Some("where its machine has no memory: #UD"),
            "outside_memory" => Some("where its machine has nothing"),
            "unknown_msr" => Some("which its machine does not have: #GP"),
            _ => None,
        };
        case.expect.extend(log.map(|text| Expect::Log(text.to_owned())));
        let expected = places::workspace().join(format!("crates/guests/src/bin/abuse.{name}.expected"));
        if expected.is_file() {
            case.expect.push(Expect::ConsoleIs(expected));
        }
        cases.push(case);
    }
    for (name, status, sentence) in [
        ("triple_fault", STATUS_REFUSED, "triple fault"),
        ("idt_outside", STATUS_REFUSED, "stopped"),
        ("gdt_outside", STATUS_REFUSED, "stopped"),
        ("cr3_outside", STATUS_REFUSED, "page tables"),
        ("stack_outside", STATUS_REFUSED, "stopped"),
        ("hlt_if0", STATUS_REFUSED, "interrupts off"),
        ("endless_loop", STATUS_TIMEOUT, "time limit"),
        ("jump_apic", STATUS_REFUSED, "jumped into the registers of a device"),
        ("apic_over_memory", STATUS_REFUSED, "moved the registers of a local APIC over its memory"),
        ("mmio_other shl", STATUS_REFUSED, "does not emulate"),
        ("mmio_other movups", STATUS_REFUSED, "does not emulate"),
        ("mmio_other fxsave", STATUS_REFUSED, "does not emulate"),
        ("init_self", STATUS_REFUSED, "INIT"),
        ("keyboard_reset", 0, "reset"),
    ] {
        let seconds = if status == STATUS_TIMEOUT { 20 } else { PATIENCE };
        let mut case =
            Case::new(&format!("abuse-{}", name.replace(' ', "-")), board::DEFAULT, Kernel::Ours("abuse"), seconds)?;
        case.spec.cmdline = name.to_owned();
        case.status = status;
        case.expect.push(Expect::Sentence(sentence.to_owned()));
        cases.push(case);
    }
    // An APIC of L2 where nobody should look, and another processor that must not notice.
    for cpus in [1, 2] {
        let mut case = Case::new(&format!("abuse-l2_pages-{cpus}"), board::DEFAULT, Kernel::Ours("abuse"), PATIENCE)?;
        case.spec.cmdline = "l2_pages".to_owned();
        case.spec.cpus = cpus;
        case.expect.push(Expect::Console("\nsurvived\n".to_owned()));
        case.expect.push(Expect::Console(" L2 afterwards: done".to_owned()));
        if cpus == 2 {
            case.expect.push(Expect::Console(" the other processor was busy: true, lost 0\n".to_owned()));
        }
        cases.push(case);
    }
    // Two processors of an L1 that means harm.
    let mut case = Case::new("nested-hostile", board::DEFAULT, Kernel::Ours("hostile"), PATIENCE)?;
    case.spec.cpus = 2;
    case.expect.extend([Expect::Console("\nsurvived 20000 rounds".to_owned()), Expect::SameAgain]);
    cases.push(case);
    Ok(cases)
}
