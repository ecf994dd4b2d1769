//! `caps`: what a machine's processor offers, as a file beside its `board.toml` that the host tests read.

use crate::board::{Board, Emulator};
use crate::build::{self, Built};
use crate::console::say;
use crate::defmt_log::Line;
use crate::emulator::{self, Listener};
use crate::places;
use crate::run;
use crate::setup;
use crate::spec::Spec;
use anyhow::{Context, Result, bail};
use std::path::PathBuf;
use std::time::Duration;

/// Write boards/NAME/vmx-caps.toml: the VMX capability MSRs, CPUID and the processors that ACPI lists.
///
/// Nestling boots on the machine and reports them. Of a real machine the report is given as a file: what came out of its
/// serial port when it booted from `cargo xtask usb NAME --caps` or `cargo xtask pxe NAME --caps`.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cargo xtask caps --board bochs-haswell
  cargo xtask caps --board my-nuc --from serial-log.txt")]
pub(crate) struct Options {
    /// The machine: a folder of boards/
    #[arg(long, value_name = "NAME")]
    board: String,
    /// Take the report from this file instead of booting the machine
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
}

/// The file's name.
pub(crate) const FILE: &str = "vmx-caps.toml";
/// The word that lets the image report.
pub(crate) const WORD: &str = "report=caps";
/// How the report begins and how its last line does.
const FIRST: &str = "# Written by `cargo xtask caps`";
const LAST: &str = "apic-ids = [";

/// The `caps` command.
pub(crate) fn command(options: &Options) -> Result<()> {
    let board = Board::load(&options.board)?;
    let path = path(&board);
    let report = match &options.from {
        Some(file) => report(&String::from_utf8_lossy(&places::read(file)?))
            .with_context(|| format!("{} holds no report of Nestling", file.display()))?,
        None => {
            let spec = spec(board)?;
            setup::ensure(&run::needs(&spec))?;
            let dir = emulator::run_folder(&format!("caps-{}", std::process::id()))?;
            let report = boot(&spec, &build::all()?, &dir);
            places::remove(&dir)?;
            report?
        }
    };
    let changed = std::fs::read_to_string(&path).ok().as_deref() != Some(report.as_str());
    places::write(&path, report)?;
    say(&format!("{} {}", path.display(), if changed { "is new or has changed" } else { "was the same already" }));
    Ok(())
}

/// Where a board's capabilities are.
pub(crate) fn path(board: &Board) -> PathBuf {
    places::workspace().join("boards").join(&board.name).join(FILE)
}

/// The run that reports; refused where the machine cannot.
pub(crate) fn spec(board: Board) -> Result<Spec> {
    match board.emulator {
        Emulator::Qemu => bail!("{} has no VT-x to report: QEMU needs KVM for it", board.name),
        Emulator::None => bail!(
            "{} is a real machine: boot it from `cargo xtask usb {} --caps`, and give its serial log by --from",
            board.name,
            board.name
        ),
        Emulator::Bochs | Emulator::QemuKvm => {}
    }
    let mut spec = Spec::new(board);
    spec.image_words = vec![WORD];
    spec.memory = 64;
    spec.timeout = Some(Duration::from_secs(60));
    spec.check()?;
    Ok(spec)
}

/// Boots the machine and takes its report.
pub(crate) fn boot(spec: &Spec, built: &Built, dir: &std::path::Path) -> Result<String> {
    let mut console = Console(Vec::new());
    let outcome = spec.run(built, dir, &mut console)?;
    if outcome.status != 0 {
        bail!("Nestling did not report: {}", outcome.reason);
    }
    report(&String::from_utf8_lossy(&console.0)).context("Nestling's report is not whole")
}

/// The report within a serial log, in which lines may end with carriage returns and other things may stand. On a line that
/// console and log share, zeros part plain text from what is not.
pub(crate) fn report(log: &str) -> Option<String> {
    let lines = log.lines().filter(|line| !line.contains('\0')).map(str::trim_end);
    let mut lines = lines.skip_while(|line| !line.starts_with(FIRST));
    let mut report = String::new();
    loop {
        let line = lines.next()?;
        report += line;
        report.push('\n');
        if line.starts_with(LAST) {
            break;
        }
    }
    // A log with other lines in between is not a report.
    toml::from_str::<toml::Table>(&report).ok()?;
    Some(report)
}

struct Console(Vec<u8>);

impl Listener for Console {
    fn console(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn log(&mut self, _: &Line) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A serial log has carriage returns, and a beginning and an end of its own; half a report is none.
    #[test]
    fn a_report_is_found_in_a_serial_log() {
        let log = "noise\r\n# Written by `cargo xtask caps`; x\r\n\r\n[msr]\r\n0x3a = \"0x5\"\r\n[acpi]\r\napic-ids = [0x0]\r\nend";
        let expected = "# Written by `cargo xtask caps`; x\n\n[msr]\n0x3a = \"0x5\"\n[acpi]\napic-ids = [0x0]\n";
        assert_eq!(report(log).as_deref(), Some(expected));
        let shared = log.replace("\r\n", "\r\n\0\0\r\n");
        assert_eq!(report(&shared).as_deref(), Some(expected));
        assert_eq!(report(&log[..60]), None);
        assert_eq!(report(&log.replace("[msr]", "lost")), None);
    }
}
