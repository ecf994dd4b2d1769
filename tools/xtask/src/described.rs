//! A machine description from a file of the user's, with the files that it names.

use crate::board::{Board, Port};
use crate::grub::{GUESTS, Menu};
use crate::places;
use anyhow::{Context, Result, bail};
use config::{CONFIG_MODULE, Config, Console, Machine, SerialPort};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Names that a boot loader passes on.
const MAX_NAME: usize = 64;

/// It, judged by the machine that it is to run on.
#[derive(Clone)]
pub(crate) struct Described {
    text: String,
    /// It is large.
    config: Box<Config>,
    /// The files by the names that the text has for them.
    files: BTreeMap<String, PathBuf>,
}

impl Described {
    /// Reads the description in `file`, whose files lie in its folder unless it says otherwise, for `board` with so many
    /// processors, or as many as all guests together.
    pub(crate) fn read(file: &Path, board: &Board, pcpus: Option<u32>) -> Result<Self> {
        let shown = file.display();
        let text = String::from_utf8(places::read(file)?).with_context(|| format!("{shown} is not UTF-8 text"))?;
        let wrong = |error| anyhow::anyhow!("{shown}: {error}");
        let mut config = Box::new(Config::new());
        config.read(&text).map_err(wrong)?;
        let folder = file.parent().unwrap_or(Path::new(""));
        let files = files(&config, folder).with_context(|| shown.to_string())?;
        let mut described = Described { text, config, files };
        let machine = Machine {
            processors: pcpus.unwrap_or(described.cpus()),
            memory_mib: described.most_memory(board),
            ports: [board.console, board.log].map(port),
            has_file: &|name| folder.join(name).is_file(),
        };
        described.config.read_for(&described.text, &machine).map_err(wrong)?;
        for path in described.files.values() {
            std::fs::File::open(path).with_context(|| format!("{shown}: {} cannot be read", path.display()))?;
        }
        Ok(described)
    }

    /// What it says.
    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// The guests' processors, all together, at most as many as a machine has.
    pub(crate) fn cpus(&self) -> u32 {
        self.config.vms.iter().map(|vm| vm.cpus).sum::<u32>().min(config::vm::MAX_CPUS)
    }

    /// The guests' memory in MiB, all together.
    pub(crate) fn memory(&self) -> u32 {
        self.config.vms.iter().map(|vm| vm.memory_mib).fold(0, u32::saturating_add)
    }

    /// What Nestling itself needs, in MiB: as much as for one guest alone, for each.
    pub(crate) fn own_memory(&self) -> u64 {
        crate::spec::OWN_MEMORY * self.config.vms.len() as u64
    }

    /// What `board` has for the guests, in MiB.
    fn most_memory(&self, board: &Board) -> u64 {
        let Some(most) = board.memory else { return u64::MAX };
        let bytes: u64 = self.files.values().filter_map(|path| Some(path.metadata().ok()?.len())).sum();
        u64::from(most).saturating_sub(self.own_memory() + (bytes >> 20) + 32)
    }

    /// The serial ports that guests have of their own.
    pub(crate) fn own_ports(&self) -> Vec<SerialPort> {
        let own = |console| if let Console::Port(port) = console { Some(port) } else { None };
        self.config.vms.iter().filter_map(|vm| own(vm.console)).collect()
    }

    /// Lets the boot loader bring the description and its files.
    pub(crate) fn load(&self, menu: &mut Menu) -> Result<()> {
        menu.load("module2", CONFIG_MODULE, self.text.clone().into_bytes(), &[CONFIG_MODULE]);
        for (name, path) in &self.files {
            let name = base_name(name);
            menu.load("module2", &format!("{GUESTS}/{name}"), places::read(path)?, &[name]);
        }
        Ok(())
    }
}

/// The files that `config` names. Each must be one on the boot medium, where folders do not count.
fn files(config: &Config, folder: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let mut files = BTreeMap::new();
    for vm in &config.vms {
        let modules = vm.modules.iter().map(|module| &module.file);
        for name in vm.kernel.iter().chain(&vm.initrd).chain(modules) {
            let base = base_name(name);
            if base.is_empty() || base.contains(char::is_whitespace) || base.len() > MAX_NAME || base == CONFIG_MODULE {
                bail!(
                    "{name:?}: a boot loader wants a name without spaces of at most {MAX_NAME} bytes, not {CONFIG_MODULE}"
                );
            }
            if let Some(other) =
                files.keys().find(|other: &&String| *other != name.as_str() && base_name(other) == base)
            {
                bail!("{other:?} and {name:?} have one name, and folders do not count on the boot medium: rename one");
            }
            files.insert(name.to_string(), folder.join(name.as_str()));
        }
    }
    Ok(files)
}

/// `name` without its folders.
fn base_name(name: &str) -> &str {
    name.rsplit_once('/').map_or(name, |(_, base)| base)
}

/// The port of this kind, in the words of a description.
fn port(port: Port) -> Option<SerialPort> {
    SerialPort::ALL.into_iter().find(|known| known.name() == port.name())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two files whose names differ by their folders only, and what no boot loader passes on, are told apart from good ones.
    #[test]
    fn names_of_files() {
        let vm = |kernel: &str, initrd: &str| {
            let text = format!("[[vm]]\nname = \"a\"\nmemory-mib = 2\nkernel = \"{kernel}\"\ninitrd = \"{initrd}\"\n");
            files(&Config::parse(&text).unwrap(), Path::new("here"))
        };
        let good = vm("sub/kernel", "kernel2").unwrap();
        assert_eq!(good["sub/kernel"], Path::new("here/sub/kernel"));
        assert_eq!(vm("/abs/kernel", "/abs/kernel").unwrap()["/abs/kernel"], Path::new("/abs/kernel"));
        for (kernel, initrd, word) in [
            ("a/kernel", "b/kernel", "rename"),
            ("a kernel", "x", "spaces"),
            ("sub/", "x", "spaces"),
            ("x/nestling.toml", "x", "not nestling.toml"),
        ] {
            let error = vm(kernel, initrd).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
