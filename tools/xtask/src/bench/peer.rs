//! KVM as the peer: the same guest under Debian's KVM and QEMU, in a Linux on the same emulated processor.

use super::{GUEST, Ticks};
use crate::build::Built;
use crate::guest_linux::kvm::{self, L2};
use crate::places;
use crate::setup::guest_packages;
use crate::spec::Spec;
use anyhow::Result;
use std::time::Duration;

/// With APICv, entries fail on Bochs 3.0: KVM's posted-interrupt descriptor is aligned to 64 bytes as the manual says, and
/// Bochs wants 4096.
const PARAMETERS: &str = "kvm_intel.enable_apicv=0";

/// Measures the guest under KVM.
pub(super) fn measure(spec: &Spec, built: &Built) -> Result<Ticks> {
    let dir = places::output()?.join("kvm-peer");
    places::fresh_folder(&dir)?;
    let initramfs = dir.join("initramfs.cpio");
    kvm::initramfs(&[L2::multiboot(GUEST, built.guest(GUEST), "")], &initramfs)?;
    let mut linux = spec.clone();
    linux.bare = true;
    linux.kernel = Some(guest_packages::kernel()?);
    linux.initrd = Some(initramfs);
    linux.cmdline = kvm::cmdline(linux.mips, GUEST, PARAMETERS);
    linux.memory = kvm::MEMORY;
    linux.timeout = Some(Duration::from_secs(900));
    let ticks = super::measure(&linux, built);
    places::remove(&dir)?;
    ticks
}
