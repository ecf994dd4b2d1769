//! What is checked on the host: unit tests, lints and the rules of tidy.

use crate::build;
use crate::command::Tool;
use crate::console::say;
use crate::image;
use crate::places;
use crate::tidy;
use anyhow::{Context, Result, bail};
use config::STATUS_REFUSED;

/// One check with its name.
pub(super) struct Step {
    pub(super) name: &'static str,
    run: fn() -> Result<()>,
}

impl Step {
    /// Runs it; an error is its failure.
    pub(super) fn run(&self) -> Result<()> {
        (self.run)()
    }
}

/// All of them, the quickest to fail first.
pub(super) fn steps() -> Vec<Step> {
    vec![
        Step { name: "tidy", run: check_tidy },
        Step { name: "format", run: || cargo().args(["fmt", "--all", "--check"]).output().map(drop) },
        Step { name: "host-tests", run: || tests(&["--", "--skip", EXPLORATION]) },
        Step { name: "apicv-exploration", run: exploration },
        Step { name: "xtask-tests", run: || tests(&["--package", "xtask"]) },
        Step { name: "command-line-refusals", run: refusals },
        Step { name: "medium-refusals", run: super::netboot::refusals },
        Step { name: "pxe-serve", run: super::netboot::served },
        Step { name: "pxe-edited-tree", run: super::netboot::edited_tree },
        Step { name: "watchdog-and-kept-log", run: super::kept::watchdog_and_log },
        Step { name: "screen", run: super::screen::readable },
        Step { name: "boot-qemu-kvm", run: super::netboot::kvm },
        Step { name: "caps-reproduced", run: super::caps::reproduced },
        Step { name: "clippy-pure-crates", run: || clippy(&["--all-targets"]) },
        Step { name: "clippy-xtask", run: || clippy(&["--package", "xtask", "--all-targets"]) },
        Step { name: "clippy-bare-metal", run: clippy_bare_metal },
        Step { name: "oracle-random", run: crate::oracle::some_random_entries },
        Step { name: "image-size", run: || image::check_size(&build::all()?.image()?) },
    ]
}

/// The test that goes through every state of two vCPUs' APICs: it runs by itself, and says how many there are.
const EXPLORATION: &str = "every_reachable_state_keeps_the_invariants";

fn exploration() -> Result<()> {
    let said = cargo().args(["test", "--package", "nested", "--lib", EXPLORATION, "--", "--nocapture"]).output()?;
    let states = said.lines().find(|line| line.contains("distinct states")).context("it said no number of states")?;
    say(&format!("  {states}"));
    Ok(())
}

/// What takes many minutes.
pub(super) fn long_steps() -> Vec<Step> {
    vec![Step { name: "mistakes", run: crate::mistakes::all }]
}

/// Property tests start from one seed here, so that a change is judged by what it changes; `cargo test` explores.
fn tests(more: &[&str]) -> Result<()> {
    cargo().args(["test", "--quiet"]).args(more).env("PROPTEST_RNG_SEED", "2026").output().map(drop)
}

fn cargo() -> Tool {
    Tool::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())).dir(&places::workspace())
}

/// A warning is a failure here, and only here: while one works, it is a warning.
fn clippy(args: &[&str]) -> Result<()> {
    cargo().args(["clippy", "--quiet"]).args(args).args(["--", "-D", "warnings"]).output().map(drop)
}

/// What `run` refuses before it starts a machine: a sentence that names what is wrong, and status 125.
fn refusals() -> Result<()> {
    let broken_kernel = places::output()?.join("no-kernel");
    places::write(&broken_kernel, "This is no kernel.\n")?;
    let broken_kernel = broken_kernel.display().to_string();
    let mut wrong = Vec::new();
    for (arguments, sentence) in [
        (&["--kernel", "/no/such/kernel"][..], "the kernel /no/such/kernel cannot be read"),
        (&["--kernel", &broken_kernel, "--bare"], "kernel"),
        (&["--kernel", &broken_kernel, "--initrd", "/no/such/initrd"], "the initrd /no/such/initrd cannot be read"),
        (&["--kernel", &broken_kernel, "--module", "/no/such/module a b"], "the module /no/such/module cannot be read"),
        (&["--board", "no-such-board"], "no-such-board"),
        (&["--board", "pc-serial"], "real machine"),
        (&["--frobnicate"], "--frobnicate"),
        (&["--cpus", "0"], "--cpus"),
        (&["--cmdline", "text"], "--cmdline needs --kernel"),
    ] {
        let output = std::process::Command::new(std::env::current_exe()?)
            .args(["run", "--timeout", "30"])
            .args(arguments)
            .stdin(std::process::Stdio::null())
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        if output.status.code() != Some(STATUS_REFUSED.into()) || !said.contains(sentence) {
            wrong.push(format!(
                "run {}: {}, expected 125 and {sentence:?}:\n{said}",
                arguments.join(" "),
                output.status
            ));
        }
    }
    if !wrong.is_empty() {
        bail!("{}", wrong.join("\n"));
    }
    Ok(())
}

/// The crates that only build for the bare-metal target. The image carries a guest, so one is built first.
fn clippy_bare_metal() -> Result<()> {
    let demo = build::guests()?.guest("demo");
    build::cargo("clippy", &["hw", "image", "guests"])?
        .env("NESTLING_DEMO", demo)
        .args(["--", "-D", "warnings"])
        .output()
        .map(drop)
}

fn check_tidy() -> Result<()> {
    let (errors, _) = tidy::check(&places::workspace())?;
    if !errors.is_empty() {
        bail!("{}", errors.join("\n"));
    }
    Ok(())
}
