//! The standard library of the bare-metal target, from wherever this machine can have it.

use crate::command::Tool;
use crate::console::Step;
use crate::places;
use anyhow::{Result, bail};
use std::path::{Path, PathBuf};

/// The target that Nestling and its guests are built for.
pub(crate) const TARGET: &str = "x86_64-unknown-none";

/// How cargo is called for the bare-metal target.
pub(crate) enum Toolchain {
    /// The toolchain has the target's library.
    Ready,
    /// It has the library's source: cargo builds `core` along with us.
    FromSource,
}

/// What this machine's toolchain can do now; none if it lacks both the target and its source.
pub(crate) fn toolchain() -> Option<Toolchain> {
    if has_target() {
        return Some(Toolchain::Ready);
    }
    let sysroot = rustc(&["--print", "sysroot"])?;
    let source = Path::new(&sysroot).join("lib/rustlib/src/rust/library/core/Cargo.toml");
    source.exists().then_some(Toolchain::FromSource)
}

/// Adds the target to the toolchain, or the source to build its library from.
pub(crate) fn add() -> Result<()> {
    let step = Step::start(format!("adding the Rust target {TARGET}"));
    let mut tried = Vec::new();
    if places::program("rustup").is_some() {
        for args in [["target", "add", TARGET], ["component", "add", "rust-src"]] {
            match Tool::new("rustup").args(args).dir(&places::workspace()).output() {
                Ok(_) if toolchain().is_some() => {
                    step.done("");
                    return Ok(());
                }
                Ok(_) => tried.push(format!("rustup {} changed nothing for this toolchain", args.join(" "))),
                Err(error) => tried.push(format!("{error:#}")),
            }
        }
    }
    drop(step);
    bail!(
        "the Rust toolchain has neither the target {TARGET} nor the source of its library: \
         add one with `rustup target add {TARGET}`, or on Debian install rust-src beside its rustc and cargo\n{}",
        tried.join("\n")
    )
}

fn has_target() -> bool {
    let Some(dir) = rustc(&["--target", TARGET, "--print", "target-libdir"]) else { return false };
    let Ok(files) = std::fs::read_dir(PathBuf::from(dir)) else { return false };
    files.flatten().any(|file| file.file_name().to_string_lossy().starts_with("libcore-"))
}

fn rustc(args: &[&str]) -> Option<String> {
    let program = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let text = Tool::new(program).args(args).dir(&places::workspace()).output().ok()?;
    Some(text.trim().to_owned())
}
