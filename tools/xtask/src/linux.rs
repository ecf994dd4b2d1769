//! `linux`: a stock Debian kernel and an initramfs as files, to be given to `run` or to anything else.

use crate::bochs;
use crate::build;
use crate::console::say;
use crate::guest_linux::{
    self,
    kvm::{self, L2},
};
use crate::places;
use crate::setup::{self, Need, guest_packages};
use anyhow::Result;
use std::path::PathBuf;

/// Write Debian's kernel and a busybox initramfs for use with `run`.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cargo xtask linux                       the initramfs that the tests use: exercises the machine and powers off
  cargo xtask linux --init my-init.sh     your own /init: a script for '#!/bin/busybox sh'
  cargo xtask linux --kvm                 with KVM and QEMU, which run an L2

The command prints the `run` command that boots the files. With --kvm, words of its --cmdline may be changed:
  l2=linux               QEMU boots the same Linux, which exercises its machine and powers off
  l2=load                the same Linux on two processors, under a load of interrupts
  l2=small               QEMU boots a small kernel, the guest `hello`
  l2.WORD                another word for the L2's command line: l2.load=60 loads for 60 seconds
  kvm_intel.ept=0        any parameter of kvm-intel; enable_apicv=0 is needed on Bochs 3.0 without Nestling")]
pub(crate) struct Options {
    /// The script that the kernel starts as /init
    #[arg(long, value_name = "FILE", conflicts_with = "kvm")]
    init: Option<PathBuf>,
    /// For a machine of this speed: `run` has the same option
    #[arg(long, value_name = "N", default_value_t = bochs::MIPS, value_parser = clap::value_parser!(u32).range(1..=i64::from(bochs::MOST_MIPS)))]
    mips: u32,
    /// A Linux that is a hypervisor: its /init loads KVM and starts QEMU
    #[arg(long)]
    kvm: bool,
}

/// The `linux` command.
pub(crate) fn command(options: &Options) -> Result<()> {
    setup::ensure(&[Need::LinuxGuest])?;
    let folder = places::output()?;
    let (initrd, cmdline, memory) = if options.kvm {
        setup::ensure(&[Need::GuestQemu, Need::RustTarget])?;
        let built = build::guests()?;
        let path = folder.join("initramfs-kvm.cpio");
        kvm::initramfs(
            &["linux", "load", "small"]
                .map(|name| L2::of_ours(name, &built, options.mips))
                .into_iter()
                .collect::<Result<Vec<_>>>()?,
            &path,
        )?;
        (path, kvm::cmdline(options.mips, "linux", "kvm_intel.enable_apicv=0"), kvm::MEMORY)
    } else {
        let init = match &options.init {
            Some(path) => String::from_utf8_lossy(&places::read(path)?).into_owned(),
            None => guest_linux::INIT_EXERCISE.to_owned(),
        };
        let path = folder.join("initramfs.cpio");
        places::write(&path, guest_linux::initramfs(&init)?)?;
        (path, guest_linux::cmdline(options.mips), 512)
    };
    let mips = if options.mips == bochs::MIPS { String::new() } else { format!(" --mips {}", options.mips) };
    say(&format!(
        "cargo xtask run --kernel {} --initrd {} --cmdline '{cmdline}' --memory {memory}{mips}",
        guest_packages::kernel()?.display(),
        initrd.display(),
    ));
    Ok(())
}
