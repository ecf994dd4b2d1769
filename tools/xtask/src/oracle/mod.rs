//! `oracle`: the bare machine says what is right; every nested guest must print under Nestling what it prints there.

mod random;

use crate::test_run::{self, nested};
use anyhow::{Result, bail};

/// Run the nested guests bare and under Nestling and compare their consoles line by line; or, with --random, enter random
/// VMCSs and compare what each came to.
#[derive(clap::Args)]
#[command(
    after_help = "Each guest is a hypervisor of crates/guests that runs guests of its own. It runs with VMCS shadowing, then without.

Examples:
  cargo xtask oracle
  cargo xtask oracle --filter l2_ept --board bochs-skylake-x
  cargo xtask oracle --no-shadowing    only without VMCS shadowing
  cargo xtask oracle --bare            only the bare machine against the logs beside the guests
  cargo xtask oracle --random --seed 2                           20,000 random VM entries
  cargo xtask oracle --random --bare                             only the bare machine against the manual
  cargo xtask oracle --random --seed 2 --first 1234 --count 1    one of them again

A round of --random takes a valid VMCS, changes one to three things and enters. The outcomes on the bare machine and under
Nestling must be equal, and those that the manual's rules predict; what the emulator is known to do wrong is excepted. The
logs are left in target/nestling/runs/oracle-SEED, a line for each round: v7 is VMfail with error 7; f33 4 an entry that
failed with exit reason 33 and qualification 4; e48 184 an exit of L2 with reason 48 and qualification 0x184, and e0 3 one
by the exception with vector 3. The exit status is 1 if there was a difference."
)]
pub(crate) struct Options {
    /// Only guests whose names contain this
    #[arg(long, value_name = "TEXT", default_value = "")]
    filter: String,
    /// The machines to run on, folders of boards/ [default: bochs-skylake-x bochs-haswell]
    #[arg(long = "board", value_name = "NAME", num_args = 1..)]
    boards: Vec<String>,
    /// Only without VMCS shadowing
    #[arg(long, conflicts_with = "bare")]
    no_shadowing: bool,
    /// Only on the bare machine
    #[arg(long)]
    bare: bool,
    /// Show the names and run nothing
    #[arg(long)]
    list: bool,
    /// How many emulators at a time
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    jobs: u16,
    /// Random VM entries instead of the guests
    #[arg(long, conflicts_with_all = ["filter", "boards", "list", "jobs"])]
    random: bool,
    #[command(flatten)]
    rounds: random::Rounds,
}

/// The `oracle` command; returns the status for the shell.
pub(crate) fn command(options: &Options) -> Result<u8> {
    if options.random {
        return random::command(&options.rounds, options.bare, options.no_shadowing);
    }
    let named: Vec<&str> = options.boards.iter().map(String::as_str).collect();
    let boards = if named.is_empty() { &nested::BOARDS[..] } else { &named[..] };
    // The bare machine knows nothing of Nestling's choice: once is enough.
    let variants: &[bool] = match (options.bare, options.no_shadowing) {
        (true, _) => &[true],
        (false, true) => &[false],
        (false, false) => &[true, false],
    };
    test_run::oracle(boards, variants, &options.filter, options.bare, options.list, options.jobs)
}

/// Some random entries, for the tests.
pub(crate) fn some_random_entries() -> Result<()> {
    let rounds = random::Rounds { seed: 4, count: 2000, first: 0, show: 3 };
    match random::command(&rounds, false, false)? {
        0 => Ok(()),
        _ => bail!(
            "differences that the list of the emulator's errors does not explain: see `cargo xtask oracle --random --seed 4`"
        ),
    }
}
