//! Stock Debian Linux.

use super::{Case, Expect, Kernel, SANDY_BRIDGE, World};
use crate::board;
use crate::guest_linux::{INIT_BOOT, INIT_EXERCISE};
use anyhow::Result;

/// Stock Debian Linux with and without APICv, on one and two vCPUs, and what Nestling costs it.
pub(super) fn all() -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    for (board, short) in [(board::DEFAULT, "skylake"), (SANDY_BRIDGE, "sandy-bridge")] {
        for cpus in [1, 2] {
            let name = format!("linux-{short}-{cpus}-vcpu");
            let mut case = Case::new(&name, board, Kernel::Linux(INIT_EXERCISE), 900)?;
            case.spec.cpus = cpus;
            case.expect.push(Expect::LinuxExercise);
            cases.push(case);
        }
    }
    let mut case = Case::new("linux-boot-ticks", board::DEFAULT, Kernel::Linux(INIT_BOOT), 600)?;
    case.world = World::Both;
    case.expect.push(Expect::Console("user space reached".to_owned()));
    case.most_ticks_of_bare = Some(1.15);
    cases.push(case);
    Ok(cases)
}
