//! The help for L1's APIC that goes and comes back while L2 runs.

use super::{Case, Expect, HASWELL, Kernel, PATIENCE, World};
use crate::board;
use crate::places;
use anyhow::Result;

const GUEST: &str = "l2_inhibit";
/// What the emulator's APIC cannot do.
const WITHOUT: &str = "without-id without-return";

/// With one and two processors: whole, as the manual says; and what the bare machine can do, as it does it.
pub(super) fn all() -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    for (board, short) in [(board::DEFAULT, "skylake"), (HASWELL, "haswell")] {
        for cpus in [1, 2] {
            let name = format!("{GUEST}-{cpus}-{short}");
            let mut whole = Case::new(&name, board, Kernel::Ours(GUEST), PATIENCE)?;
            whole.spec.cpus = cpus;
            whole.spec.image_words.push("xapic-id=writable");
            let expected = if cpus == 1 { format!("{GUEST}.expected") } else { format!("{GUEST}.{cpus}.expected") };
            whole.expect.push(Expect::ConsoleIs(places::workspace().join("crates/guests/src/bin").join(expected)));
            // Each change of the id, and each switch to x2APIC mode, which resets it.
            whole.expect.push(Expect::Log("help for the guest's APICs was switched off or on 6 times".to_owned()));
            cases.push(whole);
            let mut bare = Case::new(&format!("{name}-as-bare"), board, Kernel::Ours(GUEST), PATIENCE)?;
            bare.world = World::Both;
            bare.spec.cpus = cpus;
            bare.spec.cmdline = WITHOUT.to_owned();
            bare.expect.push(Expect::SameAsBare);
            cases.push(bare);
        }
    }
    Ok(cases)
}
