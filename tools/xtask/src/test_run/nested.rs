//! The nested guests: hypervisors of ours that run bare and under Nestling with the same log.

use super::cases::{Case, Expect, HASWELL, Kernel, PATIENCE, SANDY_BRIDGE, WITHOUT, World};
use crate::board;
use crate::places;
use anyhow::Result;

/// Each with its number of processors. One topic each, beside its log: crates/guests/src/bin.
const GUESTS: [(&str, u32); 18] = [
    ("vmx_instructions", 1),
    ("vmx_fields", 1),
    ("vmx_operands", 1),
    ("vmx_32bit", 1),
    ("l2_entry", 1),
    ("l2_state", 1),
    ("l2_exits", 1),
    ("l2_msrs", 1),
    ("l2_events", 1),
    ("l2_ept", 1),
    ("l2_paging", 1),
    ("l2_timer", 1),
    ("l2_modes", 1),
    ("l2_shadowing", 1),
    ("l2_apic", 1),
    ("l2_apicv", 1),
    ("l2_posted", 2),
    ("l2_smp", 2),
];

/// Those that are about APICs run where there is no APICv as well.
const ON_SANDY_BRIDGE: [&str; 1] = ["l2_apic"];

/// The boards that they run on unless others are named.
pub(crate) const BOARDS: [&str; 2] = [board::DEFAULT, HASWELL];

/// The image's word that leaves VMCS shadowing alone.
pub(crate) const NO_SHADOWING: &str = "vmcs-shadowing=off";

/// The guests about APICs on the board without APICv.
pub(super) fn without_apicv() -> Result<Vec<Case>> {
    let mut cases = cases(&[SANDY_BRIDGE], true)?;
    cases.retain(|case| matches!(case.kernel, Kernel::Ours(guest) if ON_SANDY_BRIDGE.contains(&guest)));
    Ok(cases)
}

/// Every nested guest on these boards, with VMCS shadowing (where the machine has it) or without.
pub(super) fn cases(boards: &[&str], shadowing: bool) -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    for board in boards {
        for (guest, cpus) in GUESTS {
            let short = board.trim_start_matches("bochs-");
            let variant = if shadowing { "" } else { "-no-shadowing" };
            let name = format!("nested-{guest}-{short}{variant}");
            let mut case = Case::new(&name, board, Kernel::Ours(guest), PATIENCE)?;
            case.world = World::Both;
            case.spec.cpus = cpus;
            if *board == SANDY_BRIDGE {
                case.spec.cmdline = WITHOUT.to_owned();
            }
            if !shadowing {
                case.spec.image_words.push(NO_SHADOWING);
            }
            case.expect.push(Expect::SameAsBare);
            // Beside the guest lies the log of the default board.
            if *board == board::DEFAULT {
                let path = places::workspace().join(format!("crates/guests/src/bin/{guest}.expected"));
                case.expect.push(Expect::ConsoleIs(path));
            }
            cases.push(case);
        }
    }
    Ok(cases)
}
