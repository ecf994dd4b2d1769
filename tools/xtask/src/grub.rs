//! What a boot loader is to do, as GRUB's script and as iPXE's, and GRUB itself as one file for each way of starting it.

use crate::board::{Board, Emulator, Port};
use crate::command::Tool;
use crate::places;
use anyhow::{Context, Result};
use std::path::Path;

/// The folder of the guests' files on a medium.
pub(crate) const GUESTS: &str = "guest";
/// Where GRUB looks for its script.
pub(crate) const SCRIPT: &str = "boot/grub/grub.cfg";

/// A file that the boot loader puts into memory.
pub(crate) struct Load {
    /// GRUB's command for it, such as `multiboot2` or `initrd`.
    command: &'static str,
    /// Where on the medium, without a leading slash.
    pub(crate) at: String,
    /// What is in it.
    pub(crate) bytes: Vec<u8>,
    /// What the loaded program is told.
    words: Vec<String>,
}

/// What the boot loader is to do.
#[derive(Default)]
pub(crate) struct Menu {
    /// Commands of GRUB before the first file.
    pub(crate) before: Vec<String>,
    pub(crate) loads: Vec<Load>,
}

impl Menu {
    /// Loads a file with a GRUB command, and passes words after its name.
    pub(crate) fn load(&mut self, command: &'static str, at: &str, bytes: Vec<u8>, words: &[&str]) {
        let words = words.iter().map(|&word| word.to_owned()).collect();
        self.loads.push(Load { command, at: at.to_owned(), bytes, words });
    }

    /// Lets GRUB speak on the board's serial console too: on a real machine nobody may be looking at the screen.
    pub(crate) fn speak_on(&mut self, board: &Board) {
        if board.emulator == Emulator::None {
            let unit = match board.console {
                Port::Com1 => 0,
                Port::Com2 => 1,
                Port::None => return,
            };
            self.before.push(format!("serial --unit={unit} --speed=115200"));
            self.before.push("terminal_output console serial".to_owned());
        }
    }

    /// Bytes of all files together.
    pub(crate) fn size(&self) -> u64 {
        self.loads.iter().map(|load| load.bytes.len() as u64).sum()
    }

    /// GRUB's script. `all_guests` also loads what else lies in the guests' folder, which takes a medium with a directory.
    pub(crate) fn grub_script(&self, all_guests: bool) -> String {
        // With a timeout of zero GRUB waits for nothing. UEFI leaves no text mode: a graphics mode is set for our console.
        let mut lines = vec!["set timeout=0".to_owned()];
        lines.push("if test \"$grub_platform\" = efi; then insmod all_video; fi".to_owned());
        lines.extend(self.before.iter().cloned());
        // A file that is missing or cut short must not be left out of the run silently.
        let checked = |command: &str| format!("if {command}; then set loaded=1; else set failed=1; fi");
        for load in self.loads.iter().filter(|load| !(all_guests && load.is_guest())) {
            let words: Vec<String> = load.words.iter().map(|word| quote(word)).collect();
            lines.push(checked(format!("{} /{} {}", load.command, load.at, words.join(" ")).trim_end()));
        }
        if all_guests {
            lines.push("insmod regexp".to_owned());
            let load = checked("module2 \"$file\" \"$file\"");
            lines.push(format!("for file in /{GUESTS}/*; do if test -f \"$file\"; then {load}; fi; done"));
        }
        lines.push("if test -z \"$failed\"; then boot; fi".to_owned());
        lines.push("echo 'Nestling does not start: the boot medium lacks what the lines above name.'".to_owned());
        lines.push("sleep 86400".to_owned());
        lines.join("\n") + "\n"
    }

    /// iPXE's script: it takes the image by its multiboot1 header.
    pub(crate) fn ipxe_script(&self) -> String {
        let mut lines = vec!["#!ipxe".to_owned()];
        for load in &self.loads {
            let command = if load.command == "multiboot2" { "kernel" } else { "module" };
            lines.push(format!("{command} /{} {} || goto failed", load.at, load.words.join(" ")));
        }
        lines.extend(["boot || goto failed", ":failed"].map(str::to_owned));
        lines.push("echo Nestling does not start: the lines above say which file the server lacks.".to_owned());
        lines.push("sleep 86400".to_owned());
        lines.join("\n") + "\n"
    }

    /// What `qemu -kernel` is given: the image's words, and its modules with theirs.
    pub(crate) fn kernel_arguments(&self, tree: &str) -> (String, String) {
        let mut loads = self.loads.iter();
        let words = loads.next().map_or(String::new(), |image| image.words.join(" "));
        let modules: Vec<String> =
            loads.map(|load| format!("{tree}/{} {}", load.at, load.words.join(" ").replace(',', ",,"))).collect();
        (words, modules.join(","))
    }
}

impl Load {
    /// Whether it is one of the files that a user may add to.
    fn is_guest(&self) -> bool {
        self.at.starts_with(&format!("{GUESTS}/"))
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

/// GRUB for one way of starting it.
#[derive(Clone, Copy)]
pub(crate) enum Core {
    /// Behind the boot sector of a disk.
    BiosDisk,
    /// What a BIOS network card's ROM fetches.
    BiosNet,
    /// What UEFI reads from a disk.
    UefiDisk,
    /// What UEFI fetches from the network.
    UefiNet,
}

/// Modules of GRUB that every one of them has.
pub(crate) const MODULES: &str = "multiboot multiboot2 normal configfile linux test echo sleep serial terminal regexp";

impl Core {
    /// Writes it to `file`. A `server` is where GRUB finds its script; without one it looks where it came from.
    pub(crate) fn write(self, file: &Path, server: Option<&str>) -> Result<()> {
        let (format, prefix, modules) = match self {
            Core::BiosDisk => ("i386-pc", "(hd0,msdos1)/boot/grub", "biosdisk part_msdos fat"),
            Core::BiosNet => ("i386-pc-pxe", "/boot/grub", "pxe tftp"),
            Core::UefiDisk => ("x86_64-efi", "/boot/grub", "part_msdos fat all_video"),
            Core::UefiNet => ("x86_64-efi", "/boot/grub", "efinet tftp all_video"),
        };
        let mut tool = Tool::new("grub-mkimage").args(["-O", format, "-p", prefix, "-o"]).arg(file);
        let script = file.with_extension("first");
        if let Some(server) = server {
            places::write(&script, format!("set root=(tftp,{server})\nset prefix=($root){prefix}\n"))?;
            tool = tool.arg("-c").arg(&script);
        }
        let made = tool
            .args(modules.split(' ').chain(MODULES.split(' ')))
            .output()
            .map(drop)
            .context("cannot make GRUB's boot file");
        if server.is_some() {
            std::fs::remove_file(script)?;
        }
        made
    }
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
