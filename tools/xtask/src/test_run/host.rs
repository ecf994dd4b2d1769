//! What is checked on the host: unit tests, lints and the rules of tidy.

use crate::command::Tool;
use crate::places;
use crate::setup::rust_target::TARGET;
use crate::tidy;
use anyhow::{Result, bail};

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
        Step { name: "host-tests", run: || cargo().args(["test", "--quiet"]).output().map(drop) },
        Step {
            name: "xtask-tests",
            run: || cargo().args(["test", "--quiet", "--package", "xtask"]).output().map(drop),
        },
        Step { name: "clippy-pure-crates", run: || clippy(&["--all-targets"]) },
        Step { name: "clippy-xtask", run: || clippy(&["--package", "xtask", "--all-targets"]) },
        Step {
            name: "clippy-bare-metal",
            run: || clippy(&["--target", TARGET, "--package", "hw", "--package", "image", "--package", "guests"]),
        },
    ]
}

fn cargo() -> Tool {
    Tool::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())).dir(&places::workspace())
}

/// A warning is a failure here, and only here: while one works, it is a warning.
fn clippy(args: &[&str]) -> Result<()> {
    cargo().args(["clippy", "--quiet"]).args(args).args(["--", "-D", "warnings"]).output().map(drop)
}

fn check_tidy() -> Result<()> {
    let (errors, _) = tidy::check(&places::workspace())?;
    if !errors.is_empty() {
        bail!("{}", errors.join("\n"));
    }
    Ok(())
}
