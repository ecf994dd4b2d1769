//! `setup`: what the other commands need from outside the repository, fetched once.
//!
//! Each component checks whether it is there and does nothing then; all that is fetched goes to the cache folder with
//! a stamp saying what it was made from. Only tools of the host itself (GRUB, xorriso) need root, and only if missing.

pub(crate) mod bochs;
pub(crate) mod component;
mod debian;
pub(crate) mod guest_packages;
mod host_packages;
pub(crate) mod rust_target;

use crate::console::say;
use crate::lock::Lock;
use crate::places;
use anyhow::Result;

/// Install what is missing and say what was done. Nothing is done twice: the second call says so in one line.
///
/// The other commands call this for what they need; it is there to be run ahead of time.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cargo xtask setup                 everything that run, test, bench and image need
  NESTLING_CACHE=/big/disk cargo xtask setup

The cache folder is $NESTLING_CACHE, or ~/.cache/nestling; it can be removed at any time.")]
pub(crate) struct Options {}

/// Something a command needs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// The bare-metal target of the Rust toolchain.
    RustTarget,
    /// GRUB, xorriso and mtools, which make a bootable ISO.
    BootTools,
    /// The emulator with VT-x.
    Bochs,
    /// The emulator without VT-x.
    Qemu,
    /// A DHCP and TFTP server for machines that boot over the network.
    NetbootServer,
    /// What counts the instructions of a program of the host.
    Valgrind,
    /// Debian's kernel and busybox.
    LinuxGuest,
    /// Debian's Xen, a multiboot1 kernel.
    XenGuest,
    /// QEMU with its libraries, to run inside the Linux guest.
    GuestQemu,
}

const ALL: [Need; 9] = [
    Need::RustTarget,
    Need::BootTools,
    Need::Bochs,
    Need::Qemu,
    Need::NetbootServer,
    Need::Valgrind,
    Need::LinuxGuest,
    Need::XenGuest,
    Need::GuestQemu,
];

/// The `setup` command.
pub(crate) fn command(_: &Options) -> Result<()> {
    if !ensure(&ALL)? {
        say(&format!("everything is set up already (cache: {})", places::cache()?.display()));
    }
    Ok(())
}

/// Provides what is listed; true if something had to be done.
pub(crate) fn ensure(needs: &[Need]) -> Result<bool> {
    // Most calls find everything in place: look before taking the lock, so that runs do not wait for each other.
    let missing: Vec<Need> = needs.iter().copied().filter(|need| !present(*need)).collect();
    if missing.is_empty() {
        return Ok(false);
    }
    let _lock = Lock::take(&places::cache()?)?;
    let packages: Vec<_> = missing.iter().flat_map(|need| host_packages::missing(*need)).collect();
    host_packages::install(&packages)?;
    for need in missing {
        match need {
            Need::RustTarget => rust_target::add()?,
            Need::BootTools | Need::Qemu | Need::NetbootServer | Need::Valgrind => {}
            Need::Bochs => bochs::component().provide()?,
            Need::LinuxGuest => guest_packages::linux().provide()?,
            Need::XenGuest => guest_packages::xen().provide()?,
            Need::GuestQemu => guest_packages::qemu().provide()?,
        }
    }
    Ok(true)
}

fn present(need: Need) -> bool {
    host_packages::missing(need).is_empty()
        && match need {
            Need::RustTarget => rust_target::toolchain().is_some(),
            Need::BootTools | Need::Qemu | Need::NetbootServer | Need::Valgrind => true,
            Need::Bochs => bochs::component().is_present(),
            Need::LinuxGuest => guest_packages::linux().is_present(),
            Need::XenGuest => guest_packages::xen().is_present(),
            Need::GuestQemu => guest_packages::qemu().is_present(),
        }
}
