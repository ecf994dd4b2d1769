//! The guests that run on every machine.

use super::{Case, Expect, HASWELL, Kernel, PATIENCE, SANDY_BRIDGE, World};
use crate::board;
use crate::places;
use anyhow::Result;

/// Guests that print the same on the bare machine and under Nestling: what lies beside them.
pub(super) fn all() -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    for (guest, cpus, expected) in [
        ("hello", 1, "hello.expected"),
        ("smp", 1, "smp.expected"),
        ("smp", 2, "smp.2.expected"),
        ("timers", 1, "timers.expected"),
        ("machine", 1, "machine.expected"),
        ("spinlock", 2, "spinlock.2.expected"),
    ] {
        let mut case = Case::new(&format!("{guest}-{cpus}-skylake"), board::DEFAULT, Kernel::Ours(guest), PATIENCE)?;
        case.world = World::Both;
        case.spec.cpus = cpus;
        let path = places::workspace().join("crates/guests/src/bin").join(expected);
        case.expect.extend([Expect::ConsoleIs(path), Expect::SameAsBare]);
        cases.push(case);
    }
    // Other processors. Nestling's guests have two features everywhere that Sandy Bridge of Bochs has not.
    let without = "without-x2apic without-tsc_adjust";
    for (board, short, words) in [(HASWELL, "haswell", ""), (SANDY_BRIDGE, "sandy-bridge", without)] {
        for (guest, cpus) in [("hello", 1), ("smp", 1), ("smp", 2), ("timers", 1), ("machine", 1)] {
            let mut case = Case::new(&format!("{guest}-{cpus}-{short}"), board, Kernel::Ours(guest), PATIENCE)?;
            case.world = World::Both;
            case.spec.cpus = cpus;
            case.spec.cmdline = words.to_owned();
            case.expect.push(Expect::SameAsBare);
            cases.push(case);
        }
    }
    // And without APICv, what these two features do is what they do elsewhere.
    for guest in ["timers", "machine"] {
        let mut case = Case::new(&format!("{guest}-all-sandy-bridge"), SANDY_BRIDGE, Kernel::Ours(guest), PATIENCE)?;
        let path = places::workspace().join(format!("crates/guests/src/bin/{guest}.expected"));
        case.expect.push(Expect::ConsoleIs(path));
        cases.push(case);
    }
    Ok(cases)
}
