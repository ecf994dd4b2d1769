//! KVM as the peer: the same guest under Debian's KVM and QEMU, in a Linux on the same emulated processor.

use super::{GUEST, Ticks};
use crate::build::Built;
use crate::command::Tool;
use crate::cpio::Archive;
use crate::guest_linux;
use crate::places;
use crate::setup::guest_packages;
use crate::spec::Spec;
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What QEMU needs of its firmware packages, wherever in usr/share they are.
const FIRMWARE: [&str; 7] = [
    "bios-256k.bin",
    "multiboot.bin",
    "multiboot_dma.bin",
    "linuxboot.bin",
    "linuxboot_dma.bin",
    "kvmvapic.bin",
    "vgabios-stdvga.bin",
];

/// The machine needs room for the initramfs, unpacked, beside Linux and the guest.
const MEMORY: u32 = 1024;

/// Measures the guest under KVM.
pub(super) fn measure(spec: &Spec, built: &Built) -> Result<Ticks> {
    let dir = places::output()?.join("kvm-peer");
    places::fresh_folder(&dir)?;
    let initramfs = dir.join("initramfs.cpio");
    places::write(&initramfs, archive(&built.guest(GUEST))?)?;
    // Packed: the emulated CD is slower than the emulated processor.
    Tool::new("gzip").args(["-1".as_ref(), initramfs.as_os_str()]).output()?;
    let mut linux = spec.clone();
    linux.bare = true;
    linux.kernel = Some(guest_packages::kernel()?);
    linux.initrd = Some(initramfs.with_extension("cpio.gz"));
    linux.cmdline = guest_linux::CMDLINE.to_owned();
    linux.memory = MEMORY;
    linux.timeout = Some(Duration::from_secs(900));
    let ticks = super::measure(&linux, built);
    places::remove(&dir)?;
    ticks
}

/// An initramfs with QEMU, the libraries it is linked with, its firmware, KVM's modules and the guest.
fn archive(guest: &Path) -> Result<Vec<u8>> {
    let root = guest_packages::peer().folder()?.join("root");
    let mut archive = Archive::default();
    for folder in ["bin", "dev", "proc", "sys", "tmp", "modules", "lib", "lib64", "firmware"] {
        archive.folder(folder);
    }
    archive.device("dev/console", 5, 1);
    archive.file("bin/busybox", &places::read(&guest_packages::busybox()?)?);
    for module in guest_packages::kvm_modules()? {
        archive.file(&format!("modules/{}", name(&module)), &places::read(&module)?);
    }
    let qemu = root.join("usr/bin/qemu-system-x86_64");
    archive.file("bin/qemu", &places::read(&qemu)?);
    for library in libraries(&root, &qemu)? {
        archive.file(&format!("lib/{}", name(&library)), &places::read(&library)?);
    }
    for file in FIRMWARE {
        let path = ["usr/share/qemu", "usr/share/seabios"].map(|dir| root.join(dir).join(file));
        let path = path.iter().find(|path| path.is_file()).with_context(|| format!("Debian's QEMU has no {file}"))?;
        archive.file(&format!("firmware/{file}"), &places::read(path)?);
    }
    archive.file("guest", &places::read(guest)?);
    archive.file("init", include_bytes!("kvm.sh"));
    Ok(archive.finish())
}

/// What the dynamic linker of that QEMU would load, itself included.
fn libraries(root: &Path, program: &Path) -> Result<Vec<PathBuf>> {
    let folder = root.join("usr/lib/x86_64-linux-gnu");
    let linker = folder.join("ld-linux-x86-64.so.2");
    let text = Tool::new(&linker)
        .args(["--library-path".as_ref(), folder.as_os_str(), "--list".as_ref(), program.as_os_str()])
        .output()
        .context("cannot list the libraries of Debian's QEMU")?;
    let mut files: Vec<PathBuf> = text
        .lines()
        .filter_map(|line| line.split_once("=> ")?.1.split(' ').next().map(PathBuf::from))
        .filter(|path| path.is_file())
        .collect();
    files.push(linker);
    files.sort();
    files.dedup();
    Ok(files)
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
