//! The project's commands. `cargo xtask --help` lists them; each one sets up what it needs before it starts.

#![forbid(unsafe_code)]

mod bench;
mod board;
mod bochs;
mod build;
mod caps;
mod carried;
mod command;
mod console;
mod consoles;
mod cpio;
mod defmt_log;
mod described;
mod emulator;
mod grub;
mod guest_linux;
mod image;
mod kernel_file;
mod keys;
mod linux;
mod lock;
mod medium;
mod mistakes;
mod oracle;
mod places;
mod pxe;
mod qemu;
mod run;
mod setup;
mod spec;
mod test_run;
mod tidy;
mod usb;

use clap::{Parser, Subcommand};
use config::STATUS_REFUSED;
use std::process::ExitCode;

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
    /// Run the host tests, the lints, tidy, and the tests in the emulator
    Test(test_run::Options),
    /// Compare the nested guests, or random VM entries, with the bare machine
    Oracle(oracle::Options),
    /// Make the mistakes of others in a copy of the code, and see the tests find them
    Mistakes(mistakes::Options),
    /// Measure what exits cost, in ticks of the emulated machine
    Bench(bench::Options),
    /// Build the bootable ISO and the ELF, with a size report
    Image(image::Options),
    /// Write what a machine boots over the network, and serve it
    Pxe(pxe::Options),
    /// Write what a machine's processor offers beside its board.toml
    Caps(caps::Options),
    /// Write the image of a USB stick that boots Nestling
    Usb(usb::Options),
    /// Check the rules of ARCHITECTURE.md that no compiler checks
    Tidy(tidy::Options),
    /// Write Debian's kernel and a busybox initramfs for use with `run`
    Linux(linux::Options),
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are answers, not errors; everything else is a refusal like any other.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(STATUS_REFUSED) } else { ExitCode::SUCCESS };
        }
    };
    let result = match cli.command {
        Command::Setup(options) => setup::command(&options).map(|()| 0),
        Command::Run(options) => run::command(&options),
        Command::Test(options) => test_run::command(&options),
        Command::Oracle(options) => oracle::command(&options),
        Command::Mistakes(options) => mistakes::command(&options),
        Command::Bench(options) => bench::command(&options).map(|()| 0),
        Command::Image(options) => image::command(&options).map(|()| 0),
        Command::Pxe(options) => pxe::command(&options).map(|()| 0),
        Command::Caps(options) => caps::command(&options).map(|()| 0),
        Command::Usb(options) => usb::command(&options).map(|()| 0),
        Command::Tidy(options) => tidy::command(&options).map(|()| 0),
        Command::Linux(options) => linux::command(&options).map(|()| 0),
    };
    match result {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            console::say(&format!("error: {error:#}"));
            ExitCode::from(STATUS_REFUSED)
        }
    }
}
