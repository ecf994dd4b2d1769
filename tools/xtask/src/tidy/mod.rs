//! `tidy`: rules of ARCHITECTURE.md that no compiler checks.

mod arrows;
mod files;
mod policy;

use crate::console::say;
use crate::places;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};

/// Check the arrows between the crates, where unsafe code may be, orphan files and left-over notes.
///
/// The arrows are the table `| crate | may use |` of ARCHITECTURE.md, where a crate's name stands in backquotes.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cargo xtask tidy")]
pub(crate) struct Options {}

/// Crates whose work is to touch the machine, or to check code that does.
const MAY_BE_UNSAFE: [&str; 4] = ["hw", "image", "guests", "testkit"];
/// Crates with assembly.
const MAY_HAVE_ASSEMBLY: [&str; 2] = ["hw", "guests"];

/// One of our crates.
pub(crate) struct Crate {
    name: String,
    dir: PathBuf,
}

/// The `tidy` command.
pub(crate) fn command(_: &Options) -> Result<()> {
    let (errors, warnings) = check(&places::workspace())?;
    for warning in &warnings {
        say(&format!("warning: {warning}"));
    }
    for error in &errors {
        say(&format!("error: {error}"));
    }
    if !errors.is_empty() {
        bail!("tidy found {} errors", errors.len());
    }
    say("tidy: arrows, unsafe policy and files are in order");
    Ok(())
}

/// Errors and warnings of the whole workspace.
pub(crate) fn check(root: &Path) -> Result<(Vec<String>, Vec<String>)> {
    let crates = crates(root)?;
    let mut errors = arrows::check(root, &crates)?;
    let mut warnings = Vec::new();
    for member in &crates {
        let sources = files::sources(&member.dir)?;
        errors.extend(files::orphans(member, &sources)?);
        for path in &sources {
            let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
            let shown = path.strip_prefix(root).unwrap_or(path).display().to_string();
            errors.extend(policy::file(&member.name, &shown, &text));
            warnings.extend(files::too_long(&shown, &text));
        }
        errors.extend(policy::forbids_unsafe(member)?);
    }
    Ok((errors, warnings))
}

fn crates(root: &Path) -> Result<Vec<Crate>> {
    let mut crates = vec![Crate { name: "xtask".to_owned(), dir: root.join("tools/xtask") }];
    for entry in std::fs::read_dir(root.join("crates")).context("cannot read crates/")? {
        let dir = entry?.path();
        if let (true, Some(name)) = (dir.join("Cargo.toml").is_file(), dir.file_name()) {
            crates.push(Crate { name: name.to_string_lossy().into_owned(), dir });
        }
    }
    crates.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(crates)
}
