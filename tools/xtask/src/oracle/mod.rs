//! `oracle`: the bare machine says what is right; every nested guest must print under Nestling what it prints there.

use crate::test_run::{self, nested};
use anyhow::Result;

/// Run the nested guests bare and under Nestling and compare their consoles line by line.
#[derive(clap::Args)]
#[command(
    after_help = "Each guest is a hypervisor of crates/guests that runs guests of its own. It runs with VMCS shadowing, then without.

Examples:
  cargo xtask oracle
  cargo xtask oracle --filter l2_ept --board bochs-skylake-x
  cargo xtask oracle --no-shadowing    only without VMCS shadowing
  cargo xtask oracle --bare            only the bare machine against the logs beside the guests"
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
}

/// The `oracle` command; returns the status for the shell.
pub(crate) fn command(options: &Options) -> Result<u8> {
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
