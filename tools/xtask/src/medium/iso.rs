//! The bootable ISO, for CDs and for emulators: BIOS and UEFI start from the same one.

use crate::command::Tool;
use crate::grub::{MODULES, Menu, SCRIPT};
use crate::places;
use anyhow::{Context, Result};
use std::path::Path;

/// Makes the ISO `file`.
pub(crate) fn write(menu: &Menu, file: &Path) -> Result<()> {
    let tree = file.with_extension("d");
    places::fresh_folder(&tree)?;
    super::files(menu, &tree)?;
    let script = tree.join(SCRIPT);
    places::make_folder(script.parent().unwrap_or(&tree))?;
    places::write(&script, menu.grub_script(false))?;
    // Of GRUB's modules only those that its script and a CD need: 5 MB instead of 22.
    Tool::new("grub-mkrescue")
        .args(["--locales=", "--fonts=", "--themes="])
        .arg(format!("--install-modules={MODULES} wrmsr iso9660 search search_fs_file all_video"))
        .args(["-o".as_ref(), file.as_os_str(), tree.as_os_str()])
        .output()
        .context("cannot make the bootable ISO")?;
    places::remove(&tree)
}
