//! `mistakes`: does a test fail when a mistake that others made is made in this code?

mod table;

use crate::console::{Step, say};
use crate::places;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use table::{MISTAKES, Mistake};

/// Make each of the mistakes that others made in a copy of the code, and see the test fail that is there to find it.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cargo xtask mistakes                    all, which takes some minutes
  cargo xtask mistakes --filter PDPTE     those whose stories contain this
  cargo xtask mistakes --list             the stories, where each mistake would be, and the test that finds it

The exit status is 1 if a mistake was not found.")]
pub(crate) struct Options {
    /// Only mistakes whose stories contain this
    #[arg(long, value_name = "TEXT", default_value = "")]
    filter: String,
    /// Show them and do nothing
    #[arg(long)]
    list: bool,
}

/// The `mistakes` command; returns the status for the shell.
pub(crate) fn command(options: &Options) -> Result<u8> {
    let chosen: Vec<_> = MISTAKES.iter().filter(|mistake| mistake.story.contains(&options.filter)).collect();
    if options.list {
        for mistake in chosen {
            say(&format!("{}\n  {}\n  {} {}", mistake.story, mistake.file, mistake.package, mistake.test));
        }
        return Ok(0);
    }
    let missed = try_out(&chosen)?;
    say(&format!("{} mistakes, {} not found", chosen.len(), missed.len()));
    for story in &missed {
        say(&format!("  not found: {story}"));
    }
    Ok(u8::from(!missed.is_empty()))
}

/// All of them, for the tests.
pub(crate) fn all() -> Result<()> {
    let missed = try_out(&MISTAKES.iter().collect::<Vec<_>>())?;
    if !missed.is_empty() {
        bail!("no test finds: {}", missed.join("; "));
    }
    Ok(())
}

/// Makes the mistakes one after the other; the stories of those that no test found.
fn try_out(mistakes: &[&Mistake]) -> Result<Vec<&'static str>> {
    let tree = copy()?;
    let step = Step::start("the code as it is");
    for mistake in mistakes {
        if !passes(mistake, &tree)? {
            bail!("{} fails without the mistake too", mistake.test);
        }
    }
    step.done("");
    let mut missed = Vec::new();
    for mistake in mistakes {
        let step = Step::start(mistake.story);
        let is_found = is_found(mistake, &tree).with_context(|| format!("the mistake {:?}", mistake.story))?;
        step.done(if is_found { "found" } else { "NOT FOUND" });
        if !is_found {
            missed.push(mistake.story);
        }
    }
    Ok(missed)
}

/// Whether the test of `mistake` fails with it.
fn is_found(mistake: &Mistake, tree: &Path) -> Result<bool> {
    let path = tree.join(mistake.file);
    let code = code_of(mistake, tree)?;
    places::write(&path, code.replace(mistake.right, mistake.wrong))?;
    let passes = passes(mistake, tree);
    places::write(&path, code)?;
    Ok(!passes?)
}

/// The file that the mistake would be in, which has what stands there instead once.
fn code_of(mistake: &Mistake, tree: &Path) -> Result<String> {
    let path = tree.join(mistake.file);
    let code = std::fs::read_to_string(&path).with_context(|| format!("{} cannot be read", path.display()))?;
    match code.matches(mistake.right).count() {
        1 => Ok(code),
        count => bail!("{} has this {count} times: {}", mistake.file, mistake.right),
    }
}

/// Whether the test passes; an error if there is none, or it does not build.
fn passes(mistake: &Mistake, tree: &Path) -> Result<bool> {
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["test", "--package", mistake.package, mistake.test, "--", "--exact"])
        .current_dir(tree)
        .env("CARGO_TARGET_DIR", places::output()?.join("mistakes/target"))
        // The code is strange on purpose.
        .env("RUSTFLAGS", "--cap-lints=allow")
        .stdin(Stdio::null())
        .output()
        .context("cannot start cargo")?;
    let said = String::from_utf8_lossy(&output.stdout);
    let count = |what: &str| said.matches(&format!("{} ... {what}", mistake.test)).count();
    match (count("ok"), count("FAILED")) {
        (1, 0) => Ok(true),
        (0, 1) => Ok(false),
        _ => bail!("{} did not run:\n{said}{}", mistake.test, String::from_utf8_lossy(&output.stderr)),
    }
}

/// A copy of the workspace as it is now.
fn copy() -> Result<PathBuf> {
    let tree = places::output()?.join("mistakes/tree");
    let workspace = places::workspace();
    for name in ["Cargo.toml", "Cargo.lock", "rust-toolchain.toml", "crates", "boards", "tools"] {
        copy_into(&workspace.join(name), &tree.join(name))?;
    }
    Ok(tree)
}

/// Copies a file, or a folder with all that is in it; what is the same already keeps its time, so that cargo need not build it
/// again.
fn copy_into(from: &Path, to: &Path) -> Result<()> {
    if from.is_dir() {
        for entry in std::fs::read_dir(from).with_context(|| format!("{} cannot be read", from.display()))? {
            let name = entry?.file_name();
            if name != "target" {
                copy_into(&from.join(&name), &to.join(&name))?;
            }
        }
        return Ok(());
    }
    let bytes = places::read(from)?;
    if std::fs::read(to).is_ok_and(|there| there == bytes) {
        return Ok(());
    }
    places::make_folder(to.parent().context("a file is in a folder")?)?;
    places::write(to, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table follows the code; that the tests find the mistakes, `cargo xtask test --long` shows.
    #[test]
    fn the_code_has_what_the_table_says() {
        for mistake in &MISTAKES {
            if let Err(error) = code_of(mistake, &places::workspace()) {
                panic!("{}: {error}", mistake.story);
            }
        }
    }
}
