//! Source files: that each is part of its crate, and that each can be read in one go.

use super::Crate;
use anyhow::{Context, Result};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// From here on a file holds more than one concept.
const LONG: usize = 450;

/// All Rust files of a crate, in order.
pub(super) fn sources(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut folders = vec![dir.to_owned()];
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                sources.push(path);
            }
        }
    }
    sources.sort();
    Ok(sources)
}

/// A warning for a file that is long.
pub(super) fn too_long(shown: &str, text: &str) -> Option<String> {
    let lines = text.lines().count();
    (lines > LONG).then(|| format!("{shown} has {lines} lines"))
}

/// Files that no `mod` reaches from a file that cargo compiles.
pub(super) fn orphans(member: &Crate, sources: &[PathBuf]) -> Result<Vec<String>> {
    let dir = &member.dir;
    let mut open: Vec<PathBuf> = sources.iter().filter(|path| is_root(dir, path)).cloned().collect();
    let mut reached = BTreeSet::new();
    while let Some(path) = open.pop() {
        if !reached.insert(path.clone()) {
            continue;
        }
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let stem = path.file_stem().unwrap_or_default();
        let folder = path.parent().unwrap_or(dir);
        // The modules of `name.rs` are in `name/`, those of a root or a `mod.rs` beside it.
        let inner = if stem == "mod" || is_root(dir, &path) { folder.to_owned() } else { folder.join(stem) };
        for module in modules(&text) {
            open.extend(match module {
                Module::Named(name) => vec![inner.join(format!("{name}.rs")), inner.join(&name).join("mod.rs")],
                Module::At(file) => vec![folder.join(file)],
            });
        }
        open.retain(|path| path.is_file());
    }
    Ok(sources
        .iter()
        .filter(|path| !reached.contains(*path))
        .map(|path| {
            format!("{} belongs to no module of {}", path.strip_prefix(dir).unwrap_or(path).display(), member.name)
        })
        .collect())
}

/// Whether cargo compiles this file of its own accord.
fn is_root(dir: &Path, path: &Path) -> bool {
    let Ok(path) = path.strip_prefix(dir) else { return false };
    let parts: Vec<_> = path.iter().map(|part| part.to_string_lossy()).collect();
    matches!(
        parts.iter().map(AsRef::as_ref).collect::<Vec<&str>>()[..],
        ["build.rs"]
            | ["src", "lib.rs" | "main.rs"]
            | ["src", "bin", _]
            | ["src", "bin", _, "main.rs"]
            | ["tests" | "examples" | "benches", _]
            | ["tests" | "examples" | "benches", _, "main.rs"]
    )
}

/// A `mod` without a body.
#[derive(Debug, PartialEq, Eq)]
enum Module {
    Named(String),
    /// With a `#[path]`.
    At(String),
}

fn modules(text: &str) -> Vec<Module> {
    let mut modules = Vec::new();
    let mut path = None;
    for line in text.lines().map(str::trim) {
        if let Some(file) = line.strip_prefix("#[path = \"").and_then(|rest| rest.strip_suffix("\"]")) {
            path = Some(file.to_owned());
        } else if let Some(name) = module_name(line) {
            modules.push(path.take().map_or(Module::Named(name), Module::At));
        }
    }
    modules
}

fn module_name(line: &str) -> Option<String> {
    let (before, name) = line.strip_suffix(';')?.rsplit_once("mod ")?;
    let before = before.trim();
    (before.is_empty() || before.ends_with(']') || before.starts_with("pub"))
        .then(|| name.trim().trim_start_matches("r#").to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The ways in which our files name their modules.
    #[test]
    fn modules_of_a_file() {
        let text =
            "mod a;\npub(crate) mod b;\n#[cfg(test)]\nmod c;\n#[path = \"other.rs\"]\nmod d;\nmod e {\n}\n// mod f;\n";
        let named = |name: &str| Module::Named(name.to_owned());
        assert_eq!(modules(text), [named("a"), named("b"), named("c"), Module::At("other.rs".to_owned())]);
    }

    /// Cargo finds these by itself; all else needs a `mod`.
    #[test]
    fn roots() {
        for (path, expected) in [
            ("src/lib.rs", true),
            ("src/bin/smp.rs", true),
            ("src/bin/timers/main.rs", true),
            ("src/bin/timers/rules.rs", false),
            ("tests/all.rs", true),
            ("tests/common/mod.rs", false),
            ("src/entry.rs", false),
        ] {
            assert_eq!(is_root(Path::new("c"), &Path::new("c").join(path)), expected, "{path}");
        }
    }
}
