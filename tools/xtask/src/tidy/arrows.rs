//! Which crate may use which: the manifests against the table in ARCHITECTURE.md.

use super::Crate;
use anyhow::{Context, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

type Arrows = BTreeMap<String, BTreeSet<String>>;

/// Every dependency between our crates that the table lacks, and every row or crate without its counterpart.
pub(super) fn check(root: &Path, crates: &[Crate]) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(root.join("ARCHITECTURE.md")).context("cannot read ARCHITECTURE.md")?;
    let mut uses = Arrows::new();
    for member in crates {
        let path = member.dir.join("Cargo.toml");
        let manifest = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let manifest: toml::Table = manifest.parse().with_context(|| format!("{} is not TOML", path.display()))?;
        uses.insert(member.name.clone(), dependencies(&manifest));
    }
    Ok(compare(&table(&text), &uses))
}

fn compare(allowed: &Arrows, uses: &Arrows) -> Vec<String> {
    let mut errors = Vec::new();
    for (name, used) in uses {
        let Some(may) = allowed.get(name) else {
            errors.push(format!("ARCHITECTURE.md's table of arrows has no row for the crate {name}"));
            continue;
        };
        // A dependency that is not a crate of ours is no arrow.
        for other in used.iter().filter(|other| uses.contains_key(*other) && !may.contains(*other)) {
            errors.push(format!("{name} uses {other}: ARCHITECTURE.md's table has no such arrow"));
        }
    }
    for name in allowed.keys().filter(|name| !uses.contains_key(*name)) {
        errors.push(format!("ARCHITECTURE.md's table of arrows has a row for {name}, which is no crate"));
    }
    errors
}

/// All dependencies but those of tests, also those for one target only.
fn dependencies(manifest: &toml::Table) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (key, value) in manifest {
        match (key.as_str(), value.as_table()) {
            ("dependencies" | "build-dependencies", Some(table)) => names.extend(table.keys().cloned()),
            ("target", Some(targets)) => {
                for target in targets.values().filter_map(toml::Value::as_table) {
                    names.extend(dependencies(target));
                }
            }
            _ => {}
        }
    }
    names
}

/// The rows of the table `| crate | may use |`.
fn table(text: &str) -> Arrows {
    let cells = |line: &str| -> Option<(String, String)> {
        let mut cells = line.trim().strip_prefix('|')?.split('|').map(|cell| cell.trim().to_owned());
        Some((cells.next()?, cells.next()?))
    };
    text.lines()
        .skip_while(|line| cells(line) != Some(("crate".to_owned(), "may use".to_owned())))
        .skip(2)
        .map_while(cells)
        .map(|(name, used)| (quoted(&name).into_iter().collect(), quoted(&used)))
        .collect()
}

/// The words in backquotes.
fn quoted(cell: &str) -> BTreeSet<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# A\n\n| crate | answers |\n|---|---|\n| `x` | `y` |\n\n| crate | may use |\n|---|---|\n\
        | `a` | |\n| `b` | `a` |\n| `gone` | |\n\nmore\n";

    /// An arrow that the table lacks is named; crates from outside and tests' dependencies are free.
    #[test]
    fn an_arrow_that_the_table_lacks_is_found() {
        let manifest = |text: &str| dependencies(&text.parse().unwrap());
        let uses = Arrows::from([
            ("a".to_owned(), manifest("[dependencies]\nb.workspace = true\n[dev-dependencies]\nc = \"1\"")),
            ("b".to_owned(), manifest("[target.'cfg(unix)'.dependencies]\na = \"1\"\nserde = \"1\"")),
            ("c".to_owned(), manifest("")),
        ]);
        assert_eq!(
            compare(&table(TEXT), &uses),
            [
                "a uses b: ARCHITECTURE.md's table has no such arrow",
                "ARCHITECTURE.md's table of arrows has no row for the crate c",
                "ARCHITECTURE.md's table of arrows has a row for gone, which is no crate",
            ]
        );
    }
}
