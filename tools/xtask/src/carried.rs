//! What is carried to a real machine, over the network or on a stick: Nestling, guests, and `nestling.toml`, which the user
//! edits there.

use crate::board::Board;
use crate::build::Built;
use crate::caps;
use crate::grub::{GUESTS, Menu};
use crate::image;
use crate::places;
use crate::spec::{IMAGE, image_words};
use anyhow::{Context, Result, bail};
use config::{CONFIG_MODULE, Config};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The options that `pxe` and `usb` share.
#[derive(clap::Args)]
pub(crate) struct Carried {
    /// The machine: a folder of boards/
    #[arg(value_name = "BOARD")]
    pub(crate) board: String,
    /// A file for the folder guest/, for nestling.toml to name; may be given several times
    #[arg(long = "guest", value_name = "FILE")]
    guests: Vec<PathBuf>,
    /// Begin with this nestling.toml instead of one that runs the demo guest
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Nestling runs no guest but reports what the processor offers, for `cargo xtask caps`
    #[arg(long)]
    caps: bool,
}

/// The nestling.toml that a medium begins with.
const FIRST_CONFIG: &str = include_str!("carried/nestling.toml");

/// Small guests of ours that every medium has.
const OWN_GUESTS: [&str; 2] = ["hello", "smp"];

impl Carried {
    /// Reads what the user gave, before anything is built or written. `kept` is the folder of an earlier time, whose
    /// nestling.toml and guests are the user's and stay.
    pub(crate) fn read(&self, kept: Option<&Path>) -> Result<Files> {
        let board = Board::load(&self.board)?;
        let mut guests = BTreeMap::new();
        let old = kept.map(|tree| tree.join(GUESTS)).filter(|folder| folder.is_dir());
        let old = old.map(|folder| std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect());
        let old: Vec<PathBuf> = old.transpose().map_err(|error: std::io::Error| error)?.unwrap_or_default();
        for path in old.iter().chain(&self.guests) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.is_empty() || name.contains(char::is_whitespace) || name.len() > config::vm::MAX_NAME {
                bail!(
                    "{}: a boot loader wants a name without spaces of at most {} bytes",
                    path.display(),
                    config::vm::MAX_NAME
                );
            }
            guests.insert(name, places::read(path)?);
        }
        let kept = kept.map(|tree| tree.join(CONFIG_MODULE)).filter(|file| file.is_file());
        let (shown, text) = match self.config.as_ref().or(kept.as_ref()) {
            Some(path) => {
                let text = String::from_utf8(places::read(path)?)
                    .with_context(|| format!("{} is not UTF-8 text", path.display()))?;
                (path.display().to_string(), text)
            }
            None => (CONFIG_MODULE.to_owned(), FIRST_CONFIG.to_owned()),
        };
        let parsed = Config::parse(&text).map_err(|error| anyhow::anyhow!("{shown}: {error}"))?;
        let known = |name: &str| guests.contains_key(name) || OWN_GUESTS.contains(&name);
        for vm in &parsed.vms {
            let modules = vm.modules.iter().map(|module| &module.file);
            if let Some(file) = vm.kernel.iter().chain(&vm.initrd).chain(modules).find(|file| !known(file)) {
                bail!(
                    "{shown}: {:?} names the file {file:?}, which is not there: add it with --guest",
                    vm.name.as_str()
                );
            }
        }
        Ok(Files { board, config: text, guests, caps: self.caps })
    }
}

/// All that the user chose.
pub(crate) struct Files {
    pub(crate) board: Board,
    config: String,
    guests: BTreeMap<String, Vec<u8>>,
    caps: bool,
}

impl Files {
    /// The boot loader's menu of it.
    pub(crate) fn menu(mut self, built: &Built) -> Result<Menu> {
        let mut menu = Menu::default();
        menu.speak_on(&self.board);
        let words = image_words(&self.board);
        let report = self.caps.then_some(caps::WORD);
        let words: Vec<&str> = words.iter().map(String::as_str).chain(report).collect();
        menu.load("multiboot2", IMAGE, image::loadable(places::read(&built.image()?)?)?, &words);
        menu.load("module2", CONFIG_MODULE, self.config.into_bytes(), &[CONFIG_MODULE]);
        for name in OWN_GUESTS {
            // As built now: an older one of the same name is of an earlier time.
            self.guests.insert(name.to_owned(), places::read(&built.guest(name))?);
        }
        for (name, bytes) in self.guests {
            menu.load("module2", &format!("{GUESTS}/{name}"), bytes, &[&name]);
        }
        Ok(menu)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the file says in its comments is as true as what it says outside of them.
    #[test]
    fn the_first_description_is_right_with_its_examples() {
        assert_eq!(Config::parse(FIRST_CONFIG).unwrap().vms.len(), 1);
        let examples = FIRST_CONFIG.split_once("#[[vm]]").unwrap().1.replace("\n#", "\n");
        let config = Config::parse(&format!("[[vm]]{examples}")).unwrap();
        assert_eq!(config.vms.len(), 2);
        assert!(!config.vms[0].initrd.as_ref().unwrap().is_empty() && !config.vms[1].modules.is_empty());
    }
}
