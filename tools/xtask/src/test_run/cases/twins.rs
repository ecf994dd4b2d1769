//! The guests that run on every machine.

use super::{Case, Expect, HASWELL, Kernel, PATIENCE, SANDY_BRIDGE, WITHOUT, World};
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
    // The same without what the processor does for APICs.
    for (guest, cpus, expected) in [("smp", 2, "smp.2.expected"), ("l2_apicv", 1, "l2_apicv.expected")] {
        let mut case = Case::new(&format!("{guest}-{cpus}-no-apicv"), board::DEFAULT, Kernel::Ours(guest), PATIENCE)?;
        case.spec.cpus = cpus;
        case.spec.image_words.push("apicv=off");
        let path = places::workspace().join("crates/guests/src/bin").join(expected);
        case.expect.extend([Expect::ConsoleIs(path), Expect::Log("by Disabled, which 1 have at the end".to_owned())]);
        cases.push(case);
    }
    // Interrupts that the processor sends and delivers by itself: however many there are, whoever gets them does not exit.
    for (name, cpus, vcpu, many, few) in [
        ("ipis-self", 1, 0, "self rounds=500000", "self rounds=5"),
        ("ipis-other", 2, 1, "other rounds=2000", "other rounds=5"),
    ] {
        let mut case = Case::new(name, board::DEFAULT, Kernel::Ours("ipis"), PATIENCE)?;
        case.world = World::Both;
        case.spec.cpus = cpus;
        case.spec.cmdline = many.to_owned();
        case.expect.extend([Expect::SameAsBare, Expect::SameExits { vcpu, cmdline: few }]);
        cases.push(case);
    }
    // A processor that is flooded works on, and two whose changes concern each other do not wait for ever.
    for (mode, line) in [
        ("flood rounds=20000", "flood: the other one worked true, the last came true\nx2APIC mode: 1 taken\n"),
        ("moves rounds=200", "both moved 200 times: true\nx2APIC mode: 5 taken\n"),
    ] {
        let name = format!("ipis-{}", mode.split(' ').next().unwrap_or(mode));
        let mut case = Case::new(&name, board::DEFAULT, Kernel::Ours("ipis"), PATIENCE)?;
        case.world = World::Both;
        case.spec.cpus = 2;
        case.spec.cmdline = mode.to_owned();
        case.expect.extend([Expect::Console(line.to_owned()), Expect::SameAsBare]);
        cases.push(case);
    }
    // Other processors.
    for (board, short, words) in [(HASWELL, "haswell", ""), (SANDY_BRIDGE, "sandy-bridge", WITHOUT)] {
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
