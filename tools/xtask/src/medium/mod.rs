//! Boot media: the files of a [`Menu`] with the boot loader that loads them.

pub(crate) mod iso;
pub(crate) mod netboot;
pub(crate) mod usb;

use crate::board::Boot;
use crate::grub::Menu;
use crate::places;
use anyhow::Result;
use std::path::Path;

/// Names of what [`write()`] makes in a run's folder.
pub(crate) const ISO: &str = "iso";
pub(crate) const USB: &str = "usb";
pub(crate) const TREE: &str = "tree";

/// Makes what a machine boots from in `dir`.
pub(crate) fn write(menu: &Menu, boot: Boot, dir: &Path) -> Result<()> {
    match boot {
        Boot::GrubIso => iso::write(menu, &dir.join(ISO)),
        Boot::GrubUsb => usb::write(menu, &dir.join(USB)),
        Boot::GrubPxe | Boot::Ipxe => netboot::write(menu, &dir.join(TREE), None),
        Boot::Kernel => files(menu, &dir.join(TREE)),
    }
}

/// Removes it again: it is large, and made of what is elsewhere.
pub(crate) fn remove(dir: &Path) {
    for name in [ISO, USB] {
        let _ = std::fs::remove_file(dir.join(name));
    }
    let _ = places::remove(&dir.join(TREE));
}

/// The menu's files, each where it belongs below `tree`.
fn files(menu: &Menu, tree: &Path) -> Result<()> {
    for load in &menu.loads {
        let path = tree.join(&load.at);
        places::make_folder(path.parent().unwrap_or(tree))?;
        places::write(&path, &load.bytes)?;
    }
    Ok(())
}
