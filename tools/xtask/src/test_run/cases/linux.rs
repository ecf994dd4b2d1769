//! Stock Debian Linux.

use super::{Case, Expect, Kernel, SANDY_BRIDGE, World};
use crate::board;
use crate::guest_linux::{INIT_BOOT, INIT_EXERCISE, load};
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
    for (name, board, seconds) in [
        ("linux-load-skylake-2-vcpu-60-s", board::DEFAULT, 60),
        ("linux-load-sandy-bridge-2-vcpu-60-s", SANDY_BRIDGE, 60),
        ("linux-load-skylake-2-vcpu", board::DEFAULT, 8),
        ("linux-load-sandy-bridge-2-vcpu", SANDY_BRIDGE, 8),
    ] {
        let mut case = Case::new(name, board, Kernel::Load { seconds }, 1200)?;
        case.spec.cpus = load::CPUS;
        case.expect.extend([Expect::Load { seconds, longest_wait: load::LONGEST_WAIT }, Expect::ExitsExplained]);
        case.is_long = seconds > 10;
        cases.push(case);
    }
    let mut case = Case::new("linux-boot-ticks", board::DEFAULT, Kernel::Linux(INIT_BOOT), 600)?;
    case.world = World::Both;
    case.expect.push(Expect::Console("user space reached".to_owned()));
    case.most_ticks_of_bare = Some(1.15);
    cases.push(case);
    Ok(cases)
}
