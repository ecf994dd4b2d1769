//! The bootable ISO: GRUB, its menu of one entry, and the files it loads.

use crate::command::Tool;
use crate::places;
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};

/// A file that goes onto the ISO.
pub(crate) struct Payload {
    /// Where on the ISO, without a leading slash.
    pub(crate) at: String,
    /// What is in it.
    pub(crate) bytes: Vec<u8>,
}

/// What GRUB is to do: its commands, and the files they name.
#[derive(Default)]
pub(crate) struct Menu {
    commands: Vec<String>,
    files: Vec<Payload>,
}

impl Menu {
    /// Loads a file with a GRUB command such as `multiboot2` or `initrd`, and passes words after its name.
    pub(crate) fn load(&mut self, command: &str, at: &str, bytes: Vec<u8>, words: &[&str]) {
        let words: Vec<String> = words.iter().map(|word| quote(word)).collect();
        self.commands.push(format!("{command} /{at} {}", words.join(" ")).trim_end().to_owned());
        self.files.push(Payload { at: at.to_owned(), bytes });
    }

    /// Bytes of all files together.
    pub(crate) fn size(&self) -> u64 {
        self.files.iter().map(|file| file.bytes.len() as u64).sum()
    }

    /// Makes the ISO `name` in `dir`.
    pub(crate) fn make_iso(&self, dir: &Path, name: &str) -> Result<PathBuf> {
        let tree = dir.join("iso.d");
        places::fresh_folder(&tree)?;
        for file in &self.files {
            let path = tree.join(&file.at);
            places::make_folder(path.parent().unwrap_or(&tree))?;
            places::write(&path, &file.bytes)?;
        }
        places::make_folder(&tree.join("boot/grub"))?;
        // With a timeout of zero and one entry GRUB says nothing and waits for nothing.
        let script = format!("set timeout=0\n{}\nboot\n", self.commands.join("\n"));
        places::write(&tree.join("boot/grub/grub.cfg"), script)?;
        let iso = dir.join(name);
        // Of GRUB's modules only those that its script and a CD need: 1 MB instead of 22.
        Tool::new("grub-mkrescue")
            .args(["--locales=", "--fonts=", "--themes="])
            .arg("--install-modules=multiboot multiboot2 normal iso9660 search search_fs_file configfile serial linux")
            .args(["-d".as_ref(), Path::new("/usr/lib/grub/i386-pc").as_os_str()])
            .args(["-o".as_ref(), iso.as_os_str(), tree.as_os_str()])
            .output()
            .context("cannot make the bootable ISO")?;
        places::remove(&tree)?;
        Ok(iso)
    }
}

/// One word of a GRUB script that means exactly this text.
fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "=,._/:+-".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Text of the user stays text: GRUB's script language must not see a variable, a quote or a second command in it.
    #[test]
    fn words_are_quoted_for_the_script() {
        for (word, quoted) in [
            ("console=ttyS0,115200", "console=ttyS0,115200"),
            ("a;reboot", "'a;reboot'"),
            ("$root", "'$root'"),
            ("it's", "'it'\\''s'"),
            ("", "''"),
        ] {
            assert_eq!(quote(word), quoted);
        }
    }
}
