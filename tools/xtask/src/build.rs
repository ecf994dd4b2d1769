//! Building Nestling and its guests for the bare-metal target.

use crate::command::Tool;
use crate::console::Step;
use crate::lock::Lock;
use crate::places;
use crate::setup::rust_target::{self, TARGET, Toolchain};
use anyhow::{Context, Result};
use std::path::PathBuf;

/// What was built, as ELF files.
pub(crate) struct Built {
    /// Nestling; none when only guests were asked for.
    image: Option<PathBuf>,
    guests: PathBuf,
}

impl Built {
    /// Nestling's ELF.
    pub(crate) fn image(&self) -> Result<PathBuf> {
        self.image.clone().context("Nestling itself was not built")
    }

    /// A guest of crates/guests, by the name of its binary.
    pub(crate) fn guest(&self, name: &str) -> PathBuf {
        self.guests.join(name)
    }
}

/// Builds the guests, and Nestling with the demo guest inside.
pub(crate) fn all() -> Result<Built> {
    build(true)
}

/// For a run that needs neither.
pub(crate) fn nothing() -> Built {
    Built { image: None, guests: PathBuf::new() }
}

/// Builds the guests alone.
pub(crate) fn guests() -> Result<Built> {
    build(false)
}

/// The program of crates/load, for Linux guests: it needs no library, as there is none.
pub(crate) fn load() -> Result<PathBuf> {
    let _lock = Lock::take(&places::output()?)?;
    Tool::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["rustc", "--quiet", "--release", "--package", "load", "--"])
        .args(["-Ctarget-feature=+crt-static", "-Cstrip=symbols"])
        .dir(&places::workspace())
        .output()?;
    Ok(places::target().join("release/load"))
}

fn build(with_image: bool) -> Result<Built> {
    let _lock = Lock::take(&places::output()?)?;
    let release = places::target().join(TARGET).join("release");
    let step = Step::start("building the guests");
    cargo("build", &["guests"])?.output()?;
    step.done("");
    let image = if with_image {
        let step = Step::start("building Nestling");
        cargo("build", &["image"])?.env("NESTLING_DEMO", release.join("demo")).output()?;
        step.done("");
        Some(release.join("nestling"))
    } else {
        None
    };
    Ok(Built { image, guests: release })
}

/// `cargo COMMAND` of packages for the bare-metal target, in the release profile.
pub(crate) fn cargo(command: &str, packages: &[&str]) -> Result<Tool> {
    let tool = Tool::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args([command, "--quiet", "--release", "--target", TARGET])
        .args(packages.iter().flat_map(|package| ["--package", package]))
        .dir(&places::workspace());
    match rust_target::toolchain().context("the Rust toolchain cannot build for bare metal")? {
        Toolchain::Ready => Ok(tool),
        Toolchain::FromSource => Ok(tool
            .args(["-Zbuild-std=core,compiler_builtins", "-Zbuild-std-features=compiler-builtins-mem"])
            .env("RUSTC_BOOTSTRAP", "1")),
    }
}
