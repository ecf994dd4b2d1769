//! Where unsafe code and assembly may be, and notes that were meant to go away.

use super::{Crate, MAY_BE_UNSAFE, MAY_HAVE_ASSEMBLY};
use anyhow::{Context, Result};

/// What is wrong in one file.
pub(super) fn file(member: &str, shown: &str, text: &str) -> Vec<String> {
    let mut errors = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let mut complain = |what: &str| errors.push(format!("{shown}:{}: {what}", number + 1));
        // Split here, so that this file does not find itself.
        if ["TO\u{44}O", "FIX\u{4d}E", "XX\u{58}"]
            .iter()
            .any(|note| line.split(|c: char| !c.is_alphanumeric()).any(|w| w == *note))
        {
            complain("a note about work to do: do it, or make it an issue");
        }
        let code = code(line);
        if has_word(&code, "unsafe") && !MAY_BE_UNSAFE.contains(&member) {
            complain(&format!("unsafe code, which {member} may not have"));
        }
        if (code.contains("asm!(") || has_word(&code, "naked")) && !MAY_HAVE_ASSEMBLY.contains(&member) {
            complain(&format!("assembly, which {member} may not have"));
        }
        if code.contains("todo!(") || code.contains("unimplemented!(") {
            complain("a function that is not there");
        }
        if code.contains("#[allow(") || code.contains("#![allow(") {
            complain("#[allow]: write #[expect(.., reason = \"..\")], which tells when it is no longer needed");
        }
    }
    errors
}

/// A pure crate says so to the compiler.
pub(super) fn forbids_unsafe(member: &Crate) -> Result<Option<String>> {
    if MAY_BE_UNSAFE.contains(&member.name.as_str()) {
        return Ok(None);
    }
    let roots = ["src/lib.rs", "src/main.rs"].map(|root| member.dir.join(root));
    let root = roots.iter().find(|root| root.is_file());
    let root = root.with_context(|| format!("{} has neither src/lib.rs nor src/main.rs", member.name))?;
    let text = std::fs::read_to_string(root).with_context(|| format!("cannot read {}", root.display()))?;
    let says_so = text.lines().any(|line| line.trim() == "#![forbid(unsafe_code)]");
    Ok((!says_so).then(|| format!("{} lacks #![forbid(unsafe_code)]", member.name)))
}

/// The line without comment and string literals.
fn code(line: &str) -> String {
    let mut code = String::new();
    let mut in_string = false;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' if in_string => drop(chars.next()),
            '"' => in_string = !in_string,
            '/' if !in_string && chars.peek() == Some(&'/') => break,
            _ if !in_string => code.push(c),
            _ => {}
        }
    }
    code
}

fn has_word(code: &str, word: &str) -> bool {
    code.split(|c: char| !c.is_alphanumeric() && c != '_').any(|found| found == word)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Code is judged, words about code are not.
    #[test]
    fn a_line_is_judged_by_its_code() {
        for (member, line, errors) in [
            ("vcpu", "unsafe { read() }", 1),
            ("hw", "unsafe { read() }", 0),
            ("vcpu", "// unsafe is elsewhere", 0),
            ("vcpu", "let text = \"unsafe\";", 0),
            ("vcpu", "#![forbid(unsafe_code)]", 0),
            ("image", "core::arch::asm!(\"hlt\")", 1),
            ("hw", "core::arch::asm!(\"hlt\")", 0),
            ("hw", "#[allow(dead_code)]", 1),
            ("hw", &format!("// {}: later", "TO\u{44}O"), 1),
        ] {
            assert_eq!(file(member, "f.rs", line).len(), errors, "{member}: {line}");
        }
    }
}
