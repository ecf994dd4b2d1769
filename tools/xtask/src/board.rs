//! A board is a folder of data: `boards/NAME/board.toml` says what the machine is and how it is started.

use crate::places;
use anyhow::{Context, Result, bail};
use serde::Deserialize;

/// The board that commands use unless told otherwise.
pub(crate) const DEFAULT: &str = "bochs-skylake-x";

/// A machine that Nestling runs on.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Board {
    /// The folder's name.
    pub(crate) name: String,
    /// One sentence for a person.
    pub(crate) description: String,
    /// Where the guest's console goes.
    pub(crate) console: Port,
    /// Where Nestling's log goes.
    pub(crate) log: Port,
    /// How the machine gets Nestling into its memory.
    pub(crate) boot: Boot,
    /// What starts the machine's boot loader.
    #[serde(default)]
    pub(crate) firmware: Firmware,
    /// What plays the machine.
    pub(crate) emulator: Emulator,
    /// How Nestling ends the machine.
    pub(crate) end: End,
    /// Whether the machine's watchdog resets it when Nestling stands still.
    #[serde(default)]
    pub(crate) watchdog: bool,
    /// The emulator's name of the processor; none for a machine that is not emulated.
    pub(crate) cpu_model: Option<String>,
    /// The most RAM it can have, in MiB; none for a machine that has what it has.
    pub(crate) memory: Option<u32>,
}

/// A serial port of a PC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Port {
    /// I/O port 0x3F8.
    Com1,
    /// I/O port 0x2F8.
    Com2,
    /// None: the machine has a screen only.
    None,
}

impl Port {
    /// Its name on the image's command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Port::Com1 => "com1",
            Port::Com2 => "com2",
            Port::None => "none",
        }
    }
}

/// A way of booting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Boot {
    /// GRUB on a CD
    GrubIso,
    /// GRUB on a USB stick
    GrubUsb,
    /// GRUB, fetched over the network by the boot ROM of the network card
    GrubPxe,
    /// iPXE, which fetches Nestling over the network itself
    Ipxe,
    /// QEMU's -kernel: no boot loader at all
    Kernel,
}

/// What starts a machine's boot loader.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Firmware {
    /// A PC BIOS
    #[default]
    Bios,
    /// UEFI, 64-bit
    Uefi,
}

/// What plays a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Emulator {
    /// Bochs 3.0, which has VT-x.
    Bochs,
    /// QEMU without hardware acceleration, which has no VT-x.
    Qemu,
    /// QEMU with KVM on an Intel host whose KVM nests, which gives the host's own VT-x.
    QemuKvm,
    /// Nothing: the machine is real.
    None,
}

/// How Nestling ends the machine when its guest has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum End {
    /// Bochs's own port 0x8900.
    Bochs,
    /// Power-off by ACPI.
    Acpi,
    /// A reset of the machine.
    Reset,
    /// The processors halt and the machine stays on for its owner to read the console.
    Halt,
}

impl End {
    /// Its name on the image's command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            End::Bochs => "bochs",
            End::Acpi => "acpi",
            End::Reset => "reset",
            End::Halt => "halt",
        }
    }
}

impl Board {
    /// Reads a board by name; an unknown name is answered with those there are.
    pub(crate) fn load(name: &str) -> Result<Self> {
        let boards = places::workspace().join("boards");
        let path = boards.join(name).join("board.toml");
        let names = names()?;
        if !names.iter().any(|known| known == name) {
            bail!("there is no board {name:?}; the boards are {}", names.join(", "));
        }
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let board: Board = toml::from_str(&text).with_context(|| format!("{} is not a board", path.display()))?;
        if board.name != name {
            bail!("{} says that its name is {:?}", path.display(), board.name);
        }
        if (board.emulator == Emulator::None) != board.cpu_model.is_none() {
            bail!("{}: an emulated machine has a cpu-model and a real one has none", path.display());
        }
        Ok(board)
    }
}

/// The boards there are, in alphabetical order.
pub(crate) fn names() -> Result<Vec<String>> {
    let boards = places::workspace().join("boards");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&boards).with_context(|| format!("cannot read {}", boards.display()))? {
        let path = entry?.path();
        if let (true, Some(name)) = (path.join("board.toml").is_file(), path.file_name()) {
            names.push(name.to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every board in the repository can be read, and the default one is among them.
    #[test]
    fn all_boards_load() {
        let names = names().unwrap();
        assert!(names.iter().any(|name| name == DEFAULT));
        for name in names {
            Board::load(&name).unwrap();
        }
    }

    /// A person who mistypes a board's name is told what the names are.
    #[test]
    fn an_unknown_board_names_the_boards() {
        let error = Board::load("pdp-11").unwrap_err().to_string();
        assert!(error.contains("\"pdp-11\"") && error.contains(DEFAULT), "{error}");
    }
}
