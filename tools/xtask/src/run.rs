//! `run`: one guest, or those that a file describes, live.

use crate::board::{self, Board, Boot, Emulator, Firmware};
use crate::bochs;
use crate::build;
use crate::console::say;
use crate::consoles::{self, Consoles, Piece};
use crate::defmt_log::Line;
use crate::described::Described;
use crate::emulator::{self, Listener, Outcome};
use crate::keys::StandardInput;
use crate::places;
use crate::setup::{self, Need};
use crate::spec::Spec;
use anyhow::{Context, Result};
use config::{STATUS_REFUSED, STATUS_TIMEOUT, SerialPort};
use std::fs::File;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Build Nestling, boot it in the emulator and run a guest, or several.
///
/// The guest's console comes out on standard output, Nestling's log on standard error. Without --kernel the demo guest
/// that is built into Nestling runs. Several guests, described in a file as `nestling.toml` on a boot medium, write lines with
/// their names before them.
#[derive(clap::Args)]
#[command(after_help = "Exit status:
  0        the guest powered off, reset the machine, or wrote 0 to its exit port
  1..123   what the guest wrote to its exit port (a 32-bit write to I/O port 0xF4; the low 8 bits of the value);
           of several guests, the number of the first in the file, from 1, that did not end with status 0
  124      the time limit
  125      Nestling or this command refused or failed; the last lines say why

Examples:
  cargo xtask run
  cargo xtask run --kernel bzImage --initrd initramfs.cpio --cmdline 'console=ttyS0' --cpus 2
  cargo xtask run --kernel kernel.elf --module 'data.bin one two' --serial serial.txt --timeout 60
  cargo xtask run --config three.toml --pcpus 2 --serial consoles
  cargo xtask run --kernel kernel.elf --bare          the same guest on the same machine without Nestling
  cargo xtask run --board bochs-haswell --cpu-model corei7_icelake_u
  cargo xtask run --boot grub-pxe                     the machine boots over the network
  cargo xtask run --board qemu-q35 --firmware uefi    QEMU without KVM has no VT-x: up to the refusal")]
pub(crate) struct Options {
    /// The machine to run on: a folder of boards/
    #[arg(long, value_name = "NAME", default_value = board::DEFAULT)]
    board: String,
    /// Boot by another way than the board's
    #[arg(long, value_name = "WAY")]
    boot: Option<Boot>,
    /// Boot by another firmware than the board's
    #[arg(long, value_name = "KIND")]
    firmware: Option<Firmware>,
    /// Run the guests that this file describes; their files lie beside it (README.md, "Several guests")
    #[arg(long, value_name = "FILE", conflicts_with_all = ["kernel", "initrd", "modules", "cmdline", "cpus", "memory", "bare"])]
    config: Option<PathBuf>,
    /// The guest's kernel: a Linux bzImage or a multiboot1 kernel
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// The guest's initial ramdisk
    #[arg(long, value_name = "FILE")]
    initrd: Option<PathBuf>,
    /// A module for a multiboot kernel, with its arguments; may be given several times
    #[arg(long = "module", value_name = "FILE ARGUMENTS")]
    modules: Vec<String>,
    /// The kernel's command line; a multiboot kernel gets its file name before it
    #[arg(long, value_name = "TEXT", default_value = "", allow_hyphen_values = true)]
    cmdline: String,
    /// How many processors the guest has
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    cpus: u32,
    /// How much memory the guest has
    #[arg(long, value_name = "MIB", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..))]
    memory: u32,
    /// How many processors the machine has [default: as many as the guests]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    pcpus: Option<u32>,
    /// The emulator's name of the processor [default: the board's]
    #[arg(long, value_name = "NAME")]
    cpu_model: Option<String>,
    /// How quick each processor of Bochs is: so many instructions in a microsecond of the machine's time
    #[arg(long, value_name = "N", default_value_t = bochs::MIPS, value_parser = clap::value_parser!(u32).range(1..=i64::from(bochs::MOST_MIPS)))]
    mips: u32,
    /// Send standard input to a guest's COM1: Ctrl-A and a number choose the guest, Ctrl-A i logs what each
    /// vCPU did so far, Ctrl-A x ends the run (status 130)
    #[arg(long)]
    input: bool,
    /// Also write exactly the bytes that the guest sent to its COM1 to this file; with --config, to NAME.txt in this folder
    /// for each guest
    #[arg(long, value_name = "PATH")]
    serial: Option<PathBuf>,
    /// Also write Nestling's decoded log to this file
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Stop the machine after this time (status 124)
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    timeout: Option<u64>,
    /// Run the guest on the emulated machine itself, without Nestling
    #[arg(long)]
    bare: bool,
}

/// The `run` command; returns the status for the shell.
pub(crate) fn command(options: &Options) -> Result<u8> {
    let mut board = Board::load(&options.board)?;
    board.boot = options.boot.unwrap_or(board.boot);
    board.firmware = options.firmware.unwrap_or(board.firmware);
    let spec = Spec {
        cpu_model: options.cpu_model.clone(),
        bare: options.bare,
        kernel: options.kernel.clone(),
        initrd: options.initrd.clone(),
        modules: options.modules.clone(),
        cmdline: options.cmdline.clone(),
        cpus: options.cpus,
        memory: options.memory,
        pcpus: options.pcpus,
        mips: options.mips,
        timeout: options.timeout.map(Duration::from_secs),
        input: options.input,
        ..Spec::new(board)
    };
    let spec = match &options.config {
        Some(file) => {
            let described = Described::read(file, &spec.board, options.pcpus)?;
            spec.with(described)
        }
        None => spec,
    };
    spec.check()?;
    let mut live = Live::create(options, &spec)?;
    setup::ensure(&needs(&spec))?;
    let built = if !spec.bare {
        build::all()?
    } else if spec.kernel.is_none() {
        build::guests()?
    } else {
        build::nothing()
    };
    let name = format!("run-{}", std::process::id());
    let dir = emulator::run_folder(&name)?;
    say(&format!("{}: {}", spec.board.name, spec.board.description));
    live.keys = options.input.then(StandardInput::open).transpose()?;
    let outcome = spec.run(&built, &dir, &mut live);
    live.keys = None;
    let _ = places::remove(&dir);
    let outcome = outcome?;
    live.flush()?;
    report(&outcome, spec.bare);
    Ok(outcome.status)
}

/// What a run of this kind needs from setup.
pub(crate) fn needs(spec: &Spec) -> Vec<Need> {
    let emulator = match spec.board.emulator {
        Emulator::Qemu | Emulator::QemuKvm => Need::Qemu,
        Emulator::Bochs | Emulator::None => Need::Bochs,
    };
    let builds = !spec.bare || spec.kernel.is_none();
    let target = builds.then_some(Need::RustTarget);
    target.into_iter().chain([Need::BootTools, emulator]).collect()
}

fn report(outcome: &Outcome, bare: bool) {
    let failed = outcome.status == STATUS_REFUSED || outcome.status == STATUS_TIMEOUT;
    if failed && !outcome.emulator_log.is_empty() && (bare || outcome.ticks.is_none()) {
        say("the emulator's last messages:");
        for line in &outcome.emulator_log {
            say(&format!("  {line}"));
        }
    }
    let ticks = outcome.ticks.map_or(String::new(), |ticks| format!(" after {ticks} ticks"));
    say(&format!("ended{ticks} with status {}: {}", outcome.status, outcome.reason));
}

/// Shows everything as it comes and copies it to the files that were asked for.
struct Live {
    /// With several guests, who wrote what.
    consoles: Option<Consoles>,
    /// The guests' bytes, by their numbers.
    serial: Vec<File>,
    log: Option<File>,
    keys: Option<StandardInput>,
    /// The guests on standard output, and the log on standard error.
    colored: [bool; 2],
    error: Option<std::io::Error>,
}

impl Live {
    fn create(options: &Options, spec: &Spec) -> Result<Self> {
        let create = |path: &Path| File::create(path).with_context(|| format!("cannot create {}", path.display()));
        let consoles = spec.described.as_ref().map(|described| Consoles::new(described.config()));
        let serial = match (&options.serial, &consoles) {
            (None, _) => Vec::new(),
            (Some(file), None) => vec![create(file)?],
            (Some(folder), Some(consoles)) => {
                places::make_folder(folder)?;
                consoles.names().map(|name| create(&folder.join(format!("{name}.txt")))).collect::<Result<_>>()?
            }
        };
        let are_several = consoles.as_ref().is_some_and(|consoles| consoles.names().count() > 1);
        let wants_colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Ok(Live {
            consoles,
            serial,
            log: options.log.as_deref().map(create).transpose()?,
            keys: None,
            colored: [are_several && std::io::stdout().is_terminal(), std::io::stderr().is_terminal()]
                .map(|is| is && wants_colour),
            error: None,
        })
    }

    /// Reports a full disk at last: a log that was cut off must not look complete.
    fn flush(&mut self) -> Result<()> {
        let pieces = self.consoles.as_mut().map(Consoles::finish);
        self.pieces(pieces.unwrap_or_default());
        self.error.take().map_or(Ok(()), |error| Err(error).context("cannot write the copy of the console or log"))
    }

    fn note(&mut self, result: std::io::Result<()>) {
        if let Err(error) = result {
            self.error.get_or_insert(error);
        }
    }

    fn pieces(&mut self, pieces: Vec<Piece>) {
        for Piece { vm, bytes, shown } in pieces {
            match vm {
                Some(vm) if self.colored[0] && shown.ends_with(b"\n") => show(&consoles::coloured(vm, &shown)),
                _ => show(&shown),
            }
            if let Some(file) = vm.and_then(|vm| self.serial.get_mut(vm)) {
                let result = file.write_all(&bytes);
                self.note(result);
            }
        }
    }
}

fn show(bytes: &[u8]) {
    // A closed pipe (`run | head`) ends the showing, not the run.
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(bytes).and_then(|()| out.flush());
}

impl Listener for Live {
    fn console(&mut self, bytes: &[u8]) {
        let pieces = match &mut self.consoles {
            Some(consoles) => consoles.shared(bytes),
            None => vec![Piece::raw(bytes)],
        };
        self.pieces(pieces);
    }

    fn own_port(&mut self, port: SerialPort, bytes: &[u8]) {
        let pieces = self.consoles.as_mut().map(|consoles| consoles.own(port, bytes));
        self.pieces(pieces.unwrap_or_default());
    }

    fn keys(&mut self) -> Option<Vec<u8>> {
        self.keys.as_mut().map_or(Some(Vec::new()), StandardInput::read)
    }

    fn log(&mut self, line: &Line) {
        let colors = if self.colored[1] { ("\x1b[2m", "\x1b[0m") } else { ("", "") };
        say(&format!("{}{}{}", colors.0, line.text, colors.1));
        if let Some(file) = &mut self.log {
            let result = writeln!(file, "{}", line.text);
            self.note(result);
        }
    }
}
