//! The tree that a TFTP server gives to machines that boot over the network: BIOS, UEFI and iPXE from the same one.

use crate::grub::{Core, Menu, SCRIPT};
use crate::places;
use anyhow::Result;
use std::path::Path;

/// What the boot ROM of a BIOS network card fetches first.
pub(crate) const BIOS: &str = "boot/core.0";
/// What UEFI fetches first.
pub(crate) const UEFI: &str = "boot/core.efi";
/// What iPXE on BIOS fetches first.
pub(crate) const IPXE: &str = "boot.ipxe";

/// Writes the tree; files there that are not of it stay. Where proxy-DHCP names the server, as `pxe --serve` does, GRUB on
/// UEFI does not see the name: it is told the `server`'s address here.
pub(crate) fn write(menu: &Menu, tree: &Path, server: Option<&str>) -> Result<()> {
    super::files(menu, tree)?;
    let script = tree.join(SCRIPT);
    places::make_folder(script.parent().unwrap_or(tree))?;
    places::write(&script, menu.grub_script(false))?;
    places::write(&tree.join(IPXE), menu.ipxe_script())?;
    Core::BiosNet.write(&tree.join(BIOS), server)?;
    Core::UefiNet.write(&tree.join(UEFI), server)
}
