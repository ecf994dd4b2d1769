//! The table of emulator tests.

mod abuse;
mod apicv;
mod boot;
mod kvm;
mod linux;
mod multiboot;
mod refusals;
mod twins;

use super::nested;
use crate::board::Board;
use crate::spec::Spec;
use anyhow::Result;
use config::STATUS_REFUSED;
use std::path::PathBuf;
use std::time::Duration;

/// One test in the emulator.
pub(super) struct Case {
    /// Also the name of its folder.
    pub(super) name: String,
    pub(super) kernel: Kernel,
    /// The machine and what is not a file.
    pub(super) spec: Spec,
    /// Name, contents and arguments of modules.
    pub(super) modules: Vec<(&'static str, Vec<u8>, &'static str)>,
    /// An initrd of so many zero bytes.
    pub(super) initrd_size: Option<usize>,
    /// Where it runs.
    pub(super) world: World,
    /// The status of the run.
    pub(super) status: u8,
    pub(super) expect: Vec<Expect>,
    /// Under Nestling at most so many times the ticks of the bare machine.
    pub(super) most_ticks_of_bare: Option<f64>,
    /// Only with `--long`.
    pub(super) is_long: bool,
}

/// Where a guest runs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum World {
    Nestling,
    /// On the bare machine, then under Nestling, with the same expectations.
    Both,
}

/// What is booted.
pub(super) enum Kernel {
    /// The guest that Nestling carries.
    Demo,
    /// A guest of crates/guests.
    Ours(&'static str),
    /// Debian's kernel with this /init.
    Linux(&'static str),
    /// Debian's kernel under a load of interrupts for so many seconds.
    Load { seconds: u32 },
    /// Debian's Xen, a multiboot1 kernel that is not ours; its first guest is Debian's kernel with this /init.
    Xen(&'static str),
    /// Debian's kernel with KVM and QEMU, which run this L2; more words for its command line.
    Kvm { l2: &'static str, words: &'static str },
    /// A file made for the test.
    Made(Made),
}

/// How a kernel file for a test comes about.
pub(super) enum Made {
    Bytes(Vec<u8>),
    /// The first bytes of Debian's kernel.
    TruncatedLinux(usize),
    /// The first bytes of a guest of ours.
    TruncatedGuest(&'static str, usize),
}

/// What must have come out.
pub(super) enum Expect {
    /// A text on the guest's console.
    Console(String),
    /// No such text on the guest's console.
    ConsoleLacks(&'static str),
    /// A text in a line of Nestling's log.
    Log(String),
    /// No such text in a line of Nestling's log.
    LogLacks(&'static str),
    /// A text in the sentence that ends the run.
    Sentence(String),
    /// The console, line by line, as in this file.
    ConsoleIs(PathBuf),
    /// The console, line by line, as on the bare machine.
    SameAsBare,
    /// The console of another run under Nestling is the same.
    SameAgain,
    /// Under Nestling with this command line a vCPU has as many exits of each kind, but for the timer by which L0 keeps time.
    SameExits { vcpu: usize, cmdline: &'static str },
    /// The console of the exercised Linux.
    LinuxExercise,
    /// The console of a Linux under load for so many seconds.
    Load { seconds: u32, longest_wait: u64 },
    /// Nestling's counters explain every exit of a Linux.
    ExitsExplained,
    /// The same of the Linux in L1.
    L2Exercise,
}

/// Seconds after which a guest hangs: many times what any takes, so that a busy machine fails none.
pub(super) const PATIENCE: u64 = 300;

pub(super) const HASWELL: &str = "bochs-haswell";
pub(super) const SANDY_BRIDGE: &str = "bochs-sandy-bridge";
/// What Nestling's guests have everywhere, and Sandy Bridge of Bochs has not: for the guests' command lines.
pub(super) const WITHOUT: &str = "without-x2apic without-tsc_adjust";

impl Case {
    pub(super) fn new(name: &str, board: &str, kernel: Kernel, seconds: u64) -> Result<Self> {
        let mut spec = Spec::new(Board::load(board)?);
        spec.timeout = Some(Duration::from_secs(seconds));
        Ok(Case {
            name: name.to_owned(),
            kernel,
            spec,
            modules: Vec::new(),
            initrd_size: None,
            world: World::Nestling,
            status: 0,
            expect: Vec::new(),
            most_ticks_of_bare: None,
            is_long: false,
        })
    }

    /// Whether the expectations can be those of the bare machine.
    pub(super) fn runs_bare(&self) -> bool {
        let is_stock = match self.kernel {
            Kernel::Linux(_) | Kernel::Load { .. } | Kernel::Xen(_) => self.status == 0,
            // With several processors Bochs loses L2's RIP now and then, and KVM does not know (ARCHITECTURE.md, "Errors
            // of the emulator").
            // There its entries with APICv fail.
            Kernel::Kvm { words, .. } => self.spec.cpus == 1 && words.contains("enable_apicv=0"),
            _ => false,
        };
        self.world == World::Both || is_stock
    }

    /// Whether it runs bare, for each run in order.
    pub(super) fn worlds(&self, bare_only: bool) -> &'static [bool] {
        if bare_only {
            return &[true];
        }
        match self.world {
            World::Nestling => &[false],
            World::Both => &[true, false],
        }
    }

    pub(super) fn refused(mut self, sentence: &str) -> Self {
        self.status = STATUS_REFUSED;
        self.expect.push(Expect::Sentence(sentence.to_owned()));
        self
    }
}

/// All tests, the longest first so that the last minutes have work for every job.
pub(super) fn all() -> Result<Vec<Case>> {
    let mut cases = kvm::all()?;
    cases.extend(linux::all()?);
    cases.extend(twins::all()?);
    for shadowing in [true, false] {
        cases.extend(nested::cases(&nested::BOARDS, shadowing)?);
    }
    cases.extend(nested::without_apicv()?);
    cases.extend(apicv::all()?);
    cases.extend(multiboot::all()?);
    cases.extend(abuse::all()?);
    cases.extend(refusals::all()?);
    cases.extend(boot::all()?);
    Ok(cases)
}
