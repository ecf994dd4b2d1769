//! `bench`: what exits cost, in ticks of the emulated machine, where one instruction is one tick and figures repeat.

mod peer;

use crate::board::{self, Board};
use crate::build;
use crate::console::{Step, say};
use crate::defmt_log::Line;
use crate::emulator::{self, Listener};
use crate::places;
use crate::setup::{self, Need};
use crate::spec::Spec;
use anyhow::{Context, Result, bail};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// Boot the benchmark guest, print a table of ticks and write target/bench.json.
///
/// The file is {"cpu_model": "...", "ticks": {"l1_cpuid": N, ...}, "peer": {"kvm": {"l1_cpuid": N, ...}}}.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cargo xtask bench
  cargo xtask bench --peer kvm                  also the same guest under Debian's KVM and QEMU on the same machine
  cargo xtask bench --board bochs-sandy-bridge")]
pub(crate) struct Options {
    /// The machine to run on: a folder of boards/
    #[arg(long, value_name = "NAME", default_value = board::DEFAULT)]
    board: String,
    /// The emulator's name of the processor [default: the board's]
    #[arg(long, value_name = "NAME")]
    cpu_model: Option<String>,
    /// Also measure this hypervisor, in a Linux on the same emulated machine
    #[arg(long, value_parser = ["kvm"])]
    peer: Option<String>,
}

/// Name and ticks of each measurement.
type Ticks = BTreeMap<String, u64>;

/// What `target/bench.json` holds.
#[derive(Serialize)]
struct Report {
    cpu_model: String,
    ticks: Ticks,
    peer: BTreeMap<String, Ticks>,
}

/// The guest that measures; it prints `bench NAME TICKS`.
const GUEST: &str = "bench";

/// The `bench` command.
pub(crate) fn command(options: &Options) -> Result<()> {
    let mut spec = Spec::new(Board::load(&options.board)?);
    spec.cpu_model.clone_from(&options.cpu_model);
    spec.check()?;
    let mut needs = vec![Need::RustTarget, Need::BootTools, Need::Bochs];
    if options.peer.is_some() {
        needs.extend([Need::LinuxGuest, Need::GuestQemu]);
    }
    setup::ensure(&needs)?;
    let built = build::all()?;
    spec.kernel = Some(built.guest(GUEST));
    spec.timeout = Some(Duration::from_secs(300));

    let step = Step::start("measuring Nestling");
    let mut ticks = measure(&spec, &built)?;
    let mut shared = spec.clone();
    (shared.cpus, shared.pcpus) = (2, Some(1));
    shared.cmdline = "vcpu-switch".to_owned();
    ticks.extend(measure(&shared, &built)?);
    if ticks.contains_key("l2_cpuid") {
        ticks.insert("exits_per_l2_exit".to_owned(), exits_per_l2_exit(&spec, &built)?);
    }
    step.done("");
    let mut report = Report { cpu_model: spec.model()?.to_owned(), ticks, peer: BTreeMap::new() };
    if let Some(peer) = &options.peer {
        let step = Step::start("measuring KVM (a Linux boots first: about a minute)");
        let ticks = peer::measure(&spec, &built)?;
        step.done("");
        report.peer.insert(peer.clone(), ticks);
    }
    println!("{}", table(&report));
    let path = places::workspace().join("target/bench.json");
    places::make_folder(&places::workspace().join("target"))?;
    places::write(&path, serde_json::to_string_pretty(&report)? + "\n")?;
    say(&format!("written to {}", path.display()));
    Ok(())
}

/// Runs the machine and takes the measurements from its console.
fn measure(spec: &Spec, built: &build::Built) -> Result<Ticks> {
    let (console, _) = run(spec, built)?;
    let ticks = parse(&console);
    if ticks.is_empty() {
        bail!("the benchmark printed no measurement:\n{console}");
    }
    Ok(ticks)
}

/// The exits that the processor takes for each exit of an L2 that goes to its L1: how many more they are when the guest makes
/// a thousand more round trips.
fn exits_per_l2_exit(spec: &Spec, built: &build::Built) -> Result<u64> {
    const MORE: u64 = 1000;
    let exits = |rounds: u64| -> Result<u64> {
        let mut spec = spec.clone();
        spec.cmdline = format!("round-trips={rounds}");
        let (_, messages) = run(&spec, built)?;
        let counted = messages.iter().find_map(|message| message.strip_prefix("vCPU 0: ")?.strip_suffix(" exits"));
        counted.and_then(|count| count.parse().ok()).context("Nestling's log says nothing about vCPU 0's exits")
    };
    // Rounded up: one exit too many in a thousand round trips shows.
    Ok((exits(100 + MORE)? - exits(100)?).div_ceil(MORE))
}

/// Runs the machine: what the guest printed, and what Nestling logged, without times and levels.
fn run(spec: &Spec, built: &build::Built) -> Result<(String, Vec<String>)> {
    let dir = emulator::run_folder(&format!("bench-{}", std::process::id()))?;
    let mut record = Record::default();
    let outcome = spec.run(built, &dir, &mut record);
    places::remove(&dir)?;
    let outcome = outcome?;
    let console = String::from_utf8_lossy(&record.console).into_owned();
    if outcome.status != 0 {
        let log = record.log.join("\n");
        bail!("the benchmark ended with status {}: {}\n{console}\n{log}", outcome.status, outcome.reason);
    }
    Ok((console, record.messages))
}

#[derive(Default)]
struct Record {
    console: Vec<u8>,
    /// The log as shown.
    log: Vec<String>,
    /// The log without times and levels.
    messages: Vec<String>,
}

impl Listener for Record {
    fn console(&mut self, bytes: &[u8]) {
        self.console.extend_from_slice(bytes);
    }

    fn log(&mut self, line: &Line) {
        self.log.push(line.text.clone());
        self.messages.push(line.message.clone());
    }
}

/// The lines `bench NAME TICKS`.
fn parse(console: &str) -> Ticks {
    console
        .lines()
        .filter_map(|line| {
            let (name, ticks) = line.trim().strip_prefix("bench ")?.split_once(' ')?;
            Some((name.to_owned(), ticks.trim().parse().ok()?))
        })
        .collect()
}

/// One row for each measurement that anybody made.
fn table(report: &Report) -> String {
    let names: std::collections::BTreeSet<&String> =
        report.ticks.keys().chain(report.peer.values().flat_map(Ticks::keys)).collect();
    let show = |value: Option<&u64>| value.map_or("-".to_owned(), u64::to_string);
    let mut text = format!("ticks on {}\n{:<32}{:>10}", report.cpu_model, "", "nestling");
    for peer in report.peer.keys() {
        text += &format!("{peer:>10}{:>8}", "ratio");
    }
    for name in names {
        let own = report.ticks.get(name);
        text += &format!("\n{name:<32}{:>10}", show(own));
        for ticks in report.peer.values() {
            text += &format!("{:>10}{:>8}", show(ticks.get(name)), ratio(own, ticks.get(name)));
        }
    }
    text
}

/// Nestling's part of the peer's ticks.
#[expect(clippy::cast_precision_loss, reason = "two decimals for people")]
fn ratio(own: Option<&u64>, peer: Option<&u64>) -> String {
    match (own, peer) {
        (Some(own), Some(peer)) if *peer > 0 => format!("{:.2}", *own as f64 / *peer as f64),
        _ => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Only whole measurements are taken; the table has a row for what one side alone measured.
    #[test]
    fn measurements_are_read_and_shown() {
        let ticks =
            parse("hello\r\nbench l1_cpuid 180\r\nbench-skip l1_vmcall\r\nbench broken\r\nbench in_port 900\r\n");
        assert_eq!(ticks, Ticks::from([("l1_cpuid".to_owned(), 180), ("in_port".to_owned(), 900)]));
        let peer = Ticks::from([("l1_cpuid".to_owned(), 1440), ("l1_vmcall".to_owned(), 4000)]);
        let report = Report { cpu_model: "x".to_owned(), ticks, peer: BTreeMap::from([("kvm".to_owned(), peer)]) };
        let rows: Vec<Vec<String>> =
            table(&report).lines().skip(2).map(|line| line.split_whitespace().map(str::to_owned).collect()).collect();
        assert_eq!(rows[0], ["in_port", "900", "-", "-"]);
        assert_eq!(rows[1], ["l1_cpuid", "180", "1440", "0.12"]);
        assert_eq!(rows[2], ["l1_vmcall", "-", "4000", "-"]);
    }
}
