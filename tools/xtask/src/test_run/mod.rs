//! `test`: everything that shows whether the project works, with one summary.

mod caps;
mod cases;
mod exits;
mod host;
mod kept;
mod machines;
pub(crate) mod nested;
mod netboot;
mod screen;
mod vms;

use crate::console::say;
use crate::lock::Lock;
use crate::places;
use crate::setup::{self, Need};
use crate::{build, emulator};
use anyhow::Result;
use cases::Case;
use host::Step;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// Run the host tests, the lints, tidy, and the tests in the emulator.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cargo xtask test                     everything but long campaigns
  cargo xtask test --filter linux      only tests with \"linux\" in their names
  cargo xtask test --bare              the guests on the bare emulated machine, without Nestling
  cargo xtask test --list              the names
  cargo xtask test --long              long campaigns too

What each emulator test left (serial log, Nestling's log) is in target/nestling/runs/NAME.")]
pub(crate) struct Options {
    /// Only tests whose names contain this
    #[arg(long, value_name = "TEXT", default_value = "")]
    filter: String,
    /// Also run what takes many minutes
    #[arg(long)]
    long: bool,
    /// Only check that guests on the bare machine do what is expected of them under Nestling
    #[arg(long)]
    bare: bool,
    /// Show the names and run nothing
    #[arg(long)]
    list: bool,
    /// How many emulators at a time
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    jobs: u16,
}

/// What came of one test: nothing to say, or why it failed.
type Verdict = std::result::Result<(), String>;

/// The `test` command; returns the status for the shell.
pub(crate) fn command(options: &Options) -> Result<u8> {
    let long = if options.long { host::long_steps() } else { Vec::new() };
    let host: Vec<_> = host::steps()
        .into_iter()
        .chain(long)
        .filter(|step| step.name.contains(&options.filter) && !options.bare)
        .collect();
    let cases: Vec<Case> = cases::all()?
        .into_iter()
        .filter(|case| case.name.contains(&options.filter) && (options.long || !case.is_long))
        .filter(|case| !options.bare || case.runs_bare())
        .collect();
    run(&host, &cases, options.bare, options.list, options.jobs)
}

/// The nested guests on these boards, with and without VMCS shadowing as `variants` says; the work of `oracle`.
pub(crate) fn oracle(
    boards: &[&str],
    variants: &[bool],
    filter: &str,
    bare: bool,
    list: bool,
    jobs: u16,
) -> Result<u8> {
    let mut cases = Vec::new();
    for &shadowing in variants {
        cases.extend(nested::cases(boards, shadowing)?.into_iter().filter(|case| case.name.contains(filter)));
    }
    run(&[], &cases, bare, list, jobs)
}

/// Runs all of it, or shows the names only; returns the status for the shell.
fn run(host: &[Step], cases: &[Case], bare: bool, list: bool, jobs: u16) -> Result<u8> {
    if list {
        for name in host.iter().map(|step| step.name).chain(cases.iter().map(|case| case.name.as_str())) {
            println!("{name}");
        }
        return Ok(0);
    }
    let started = Instant::now();
    let tally = Tally { total: host.len() + cases.len(), done: AtomicUsize::new(0), failed: Mutex::new(Vec::new()) };
    setup::ensure(&[Need::RustTarget])?;
    for step in host {
        let at = Instant::now();
        tally.count(step.name, at, step.run().map_err(|error| format!("{error:#}")));
    }
    if !cases.is_empty() {
        emulate(cases, bare, jobs, &tally)?;
    }
    let failed = tally.failed.into_inner().unwrap_or_default();
    if !failed.is_empty() {
        say("\nfailed:");
        for (name, why) in &failed {
            say(&format!("  {name}: {}", why.lines().next().unwrap_or("")));
        }
    }
    let passed = tally.done.into_inner() - failed.len();
    say(&format!("\nin {:.0} s", started.elapsed().as_secs_f64()));
    // The last line is what scripts read.
    println!("{passed} passed, {} failed", failed.len());
    Ok(u8::from(!failed.is_empty()))
}

fn emulate(cases: &[Case], bare: bool, jobs: u16, tally: &Tally) -> Result<()> {
    setup::ensure(&[Need::BootTools, Need::Bochs, Need::Qemu, Need::LinuxGuest, Need::XenGuest, Need::GuestQemu])?;
    let built = if bare { build::guests()? } else { build::all()? };
    // Another xtask may build or test; the runs' folders are this one's alone.
    let runs = places::output()?.join("runs");
    places::make_folder(&runs)?;
    let _lock = Lock::take(&runs)?;
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let started = Instant::now();
                    let verdict = emulator::run_folder(&case.name)
                        .map_err(|error| format!("{error:#}"))
                        .and_then(|dir| machines::run(case, bare, &built, &dir));
                    tally.count(&case.name, started, verdict);
                }
            });
        }
    });
    Ok(())
}

/// What came of the tests so far.
struct Tally {
    total: usize,
    done: AtomicUsize,
    failed: Mutex<Vec<(String, String)>>,
}

impl Tally {
    fn count(&self, name: &str, started: Instant, verdict: Verdict) {
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        let word = if verdict.is_ok() { "ok" } else { "FAILED" };
        say(&format!("[{done}/{}] {name} ... {word} ({:.1} s)", self.total, started.elapsed().as_secs_f64()));
        if let Err(why) = verdict {
            say(&why.lines().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n"));
            // A panic of another thread must not hide this failure.
            self.failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((name.to_owned(), why));
        }
    }
}
