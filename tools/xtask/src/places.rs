//! Where things are: the workspace, the build's output, the cache that outlives a clone.

use anyhow::{Context, Result};
use std::path::{Path, PathBuf};

/// The root of the workspace that this program was built from.
pub(crate) fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap_or_else(|_| PathBuf::from("."))
}

/// Cargo's target folder, as cargo itself chooses it.
pub(crate) fn target() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => {
            let dir = PathBuf::from(dir);
            if dir.is_absolute() { dir } else { workspace().join(dir) }
        }
        None => workspace().join("target"),
    }
}

/// What the commands make: `target/nestling`.
pub(crate) fn output() -> Result<PathBuf> {
    let dir = target().join("nestling");
    make_folder(&dir)?;
    Ok(dir)
}

/// Bochs and the guests' packages, shared by all clones of this user: `$NESTLING_CACHE` or `~/.cache/nestling`.
pub(crate) fn cache() -> Result<PathBuf> {
    let dir = match (std::env::var_os("NESTLING_CACHE"), std::env::var_os("XDG_CACHE_HOME"), std::env::var_os("HOME")) {
        (Some(dir), _, _) => std::path::absolute(dir)?,
        (None, Some(dir), _) => std::path::absolute(dir)?.join("nestling"),
        (None, None, Some(home)) => PathBuf::from(home).join(".cache/nestling"),
        (None, None, None) => anyhow::bail!("no folder for the cache: set NESTLING_CACHE to one"),
    };
    make_folder(&dir)?;
    Ok(dir)
}

/// Creates a folder and its parents; the error names it.
pub(crate) fn make_folder(dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot create the folder {}", dir.display()))
}

/// An empty folder at this path, whatever was there before.
pub(crate) fn fresh_folder(dir: &Path) -> Result<()> {
    remove(dir)?;
    make_folder(dir)
}

/// Removes a folder with what is in it; none there is fine.
pub(crate) fn remove(dir: &Path) -> Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove the folder {}", dir.display()))
        }
        _ => Ok(()),
    }
}

/// Writes a file; the error names it.
pub(crate) fn write(path: &Path, bytes: impl AsRef<[u8]>) -> Result<()> {
    std::fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}

/// Reads a file; the error names it.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// The program of this name on PATH, if there is one.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    // Debian keeps some tools where only root's PATH looks.
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}
