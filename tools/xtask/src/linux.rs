//! `linux`: a stock Debian kernel and an initramfs as files, to be given to `run` or to anything else.

use crate::console::say;
use crate::guest_linux;
use crate::places;
use crate::setup::{self, Need, guest_packages};
use anyhow::Result;
use std::path::PathBuf;

/// Write Debian's kernel and a busybox initramfs for use with `run`.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cargo xtask linux                       the initramfs that the tests use: exercises the machine and powers off
  cargo xtask linux --init my-init.sh     your own /init: a script for '#!/bin/busybox sh'

The command prints the `run` command that boots the files.")]
pub(crate) struct Options {
    /// The script that the kernel starts as /init
    #[arg(long, value_name = "FILE")]
    init: Option<PathBuf>,
}

/// The `linux` command.
pub(crate) fn command(options: &Options) -> Result<()> {
    let init = match &options.init {
        Some(path) => String::from_utf8_lossy(&places::read(path)?).into_owned(),
        None => guest_linux::INIT_EXERCISE.to_owned(),
    };
    setup::ensure(&[Need::LinuxGuest])?;
    let path = places::output()?.join("initramfs.cpio");
    places::write(&path, guest_linux::initramfs(&init)?)?;
    say(&format!(
        "cargo xtask run --kernel {} --initrd {} --cmdline '{}'",
        guest_packages::kernel()?.display(),
        path.display(),
        guest_linux::CMDLINE
    ));
    Ok(())
}
