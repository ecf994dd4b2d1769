//! `pxe`: a machine boots Nestling over the network.

mod serve;

use crate::build;
use crate::carried::Carried;
use crate::console::say;
use crate::medium::netboot;
use crate::places;
use crate::setup::{self, Need};
use anyhow::Result;

/// Write what a machine boots over the network, and serve it.
///
/// The tree is target/nestling/pxe/BOARD. It boots BIOS and UEFI machines and iPXE; edit nestling.toml in it to choose what
/// runs. What lies in its folder guest/ and its nestling.toml stay when the command is called again.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cargo xtask pxe pc-serial                                     write the tree, for a TFTP server that is there
  cargo xtask pxe pc-serial --serve --interface eth0            and answer machines that boot from the network of eth0
  cargo xtask pxe pc-serial --guest vmlinuz --guest initrd.img  with files for nestling.toml to name

The server is Debian's dnsmasq as proxy-DHCP and TFTP server: addresses still come from the network's own DHCP server, which
needs no change. It uses no other interface, runs until Ctrl-C, and takes root's rights, by sudo.

A TFTP and DHCP server of one's own gives: boot/core.0 to BIOS machines, boot/core.efi to UEFI machines, boot.ipxe to iPXE.")]
pub(crate) struct Options {
    #[command(flatten)]
    carried: Carried,
    /// Serve the tree to the network of --interface until Ctrl-C
    #[arg(long, requires = "interface")]
    serve: bool,
    /// The network interface whose machines are answered
    #[arg(long, value_name = "NAME", requires = "serve")]
    interface: Option<String>,
}

/// The `pxe` command.
pub(crate) fn command(options: &Options) -> Result<()> {
    let tree = places::output()?.join("pxe").join(&options.carried.board);
    let files = options.carried.read(Some(&tree))?;
    let network = options.interface.as_deref().map(serve::Network::find).transpose()?;
    setup::ensure(&[Need::RustTarget, Need::BootTools])?;
    let menu = files.menu(&build::all()?)?;
    netboot::write(&menu, &tree, network.as_ref().map(|network| network.address.as_str()))?;
    println!("{}", tree.display());
    say("edit nestling.toml in it to choose what runs; nothing has to be built for that");
    match network {
        Some(network) => serve::serve(&network, &tree),
        None => Ok(()),
    }
}
