//! `oracle --random`: random VM entries on the bare machine, under Nestling, and by the manual.

mod capture;
mod emulator_errors;
mod judge;

use crate::board::{self, Board};
use crate::build::{self, Built};
use crate::console::Step;
use crate::defmt_log::Line;
use crate::emulator::{self, Listener};
use crate::places;
use crate::setup::{self, Need};
use crate::spec::Spec;
use crate::test_run::nested;
use anyhow::{Context, Result, bail};
use rounds::Outcome;
use std::time::Duration;

/// Which rounds to make.
#[derive(clap::Args)]
pub(super) struct Rounds {
    /// With --random: which rounds
    #[arg(long, value_name = "S", default_value_t = 1, requires = "random")]
    pub(super) seed: u32,
    /// With --random: how many
    #[arg(long, value_name = "N", default_value_t = 20_000, requires = "random",
          value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) count: u32,
    /// With --random: which one first
    #[arg(long, value_name = "I", default_value_t = 0, requires = "random")]
    pub(super) first: u32,
    /// With --random: how many differences to show
    #[arg(long, value_name = "N", default_value_t = 10, requires = "random")]
    pub(super) show: usize,
}

/// The guest that makes the rounds.
const GUEST: &str = "oracle";
/// A round takes milliseconds; starting the machine some seconds.
const PATIENCE: Duration = Duration::from_secs(900);

/// `oracle --random`; returns the status for the shell.
pub(super) fn command(rounds: &Rounds, bare_only: bool, no_shadowing: bool) -> Result<u8> {
    let machine = capture::read(board::DEFAULT)?;
    let mut spec = Spec::new(Board::load(board::DEFAULT)?);
    setup::ensure(&[Need::RustTarget, Need::BootTools, Need::Bochs])?;
    let built = if bare_only { build::guests()? } else { build::all()? };
    spec.kernel = Some(built.guest(GUEST));
    spec.cmdline = format!("seed={} first={} count={}", rounds.seed, rounds.first, rounds.count);
    spec.timeout = Some(PATIENCE);
    if no_shadowing {
        spec.image_words.push(nested::NO_SHADOWING);
    }
    spec.check()?;
    let bare = outcomes(&spec, &built, rounds, true)?;
    let nested = if bare_only { None } else { Some(outcomes(&spec, &built, rounds, false)?) };
    let report = judge::judge(&machine, rounds.seed, rounds.first, &bare, nested.as_deref());
    print!("{}", report.text(rounds.show));
    Ok(u8::from(report.has_differences()))
}

/// Runs the rounds on one machine.
fn outcomes(spec: &Spec, built: &Built, rounds: &Rounds, bare: bool) -> Result<Vec<Outcome>> {
    let world = if bare { "bare" } else { "nestling" };
    let dir = emulator::run_folder(&format!("oracle-{}/{world}", rounds.seed))?;
    let step = Step::start(if bare { "entering on the bare machine" } else { "entering under Nestling" });
    let mut record = Record::default();
    let mut spec = spec.clone();
    spec.bare = bare;
    let outcome = spec.run(built, &dir, &mut record)?;
    let text = String::from_utf8_lossy(&record.console).replace("\r\n", "\n");
    places::write(&dir.join("serial"), &text)?;
    places::write(&dir.join("log"), record.log.join("\n"))?;
    step.done("");
    let lines = parse(&text, rounds.count as usize).with_context(|| {
        let last: Vec<&str> = text.lines().rev().take(3).collect();
        format!("the run {world} ended with status {}: {}; last lines {last:?}", outcome.status, outcome.reason)
    })?;
    if outcome.status != 0 {
        bail!("the run {world} ended with status {}: {}", outcome.status, outcome.reason);
    }
    Ok(lines)
}

/// The lines between the first and the last.
fn parse(text: &str, count: usize) -> Result<Vec<Outcome>> {
    let lines = text.lines().skip_while(|line| !line.starts_with("oracle ")).skip(1);
    let outcomes: Vec<Outcome> = lines
        .take_while(|line| *line != "done")
        .map(|line| line.parse().map_err(|()| anyhow::anyhow!("{line:?} is no outcome")))
        .collect::<Result<_>>()?;
    if outcomes.len() != count {
        bail!("{} rounds of {count} were made", outcomes.len());
    }
    Ok(outcomes)
}

/// Keeps everything.
#[derive(Default)]
struct Record {
    console: Vec<u8>,
    log: Vec<String>,
}

impl Listener for Record {
    fn console(&mut self, bytes: &[u8]) {
        self.console.extend_from_slice(bytes);
    }

    fn log(&mut self, line: &Line) {
        self.log.push(line.text.clone());
    }
}
