//! The project's commands. `cargo xtask --help` lists them; each one sets up what it needs before it starts.

#![forbid(unsafe_code)]

mod board;
mod bochs;
mod build;
mod command;
mod console;
mod cpio;
mod defmt_log;
mod emulator;
mod grub;
mod guest_linux;
mod kernel_file;
mod linux;
mod lock;
mod places;
mod run;
mod setup;
mod spec;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// What a shell sees when a command could not do its work, or Nestling refused or failed.
const STATUS_FAILED: u8 = 125;

/// Nestling's commands.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install what is missing: Rust target, boot tools, Bochs, the Debian packages of the test guests
    Setup(setup::Options),
    /// Build Nestling, boot it in the emulator and run a guest
    Run(run::Options),
    /// Write Debian's kernel and a busybox initramfs for use with `run`
    Linux(linux::Options),
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are answers, not errors; everything else is a refusal like any other.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(STATUS_FAILED) } else { ExitCode::SUCCESS };
        }
    };
    let result = match cli.command {
        Command::Setup(options) => setup::command(&options).map(|()| 0),
        Command::Run(options) => run::command(&options),
        Command::Linux(options) => linux::command(&options).map(|()| 0),
    };
    match result {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            console::say(&format!("error: {error:#}"));
            ExitCode::from(STATUS_FAILED)
        }
    }
}
