//! Debian's kernel and busybox, which stock Linux guests are made of, and QEMU to run inside such a guest.

use super::component::Component;
use super::debian::{self, Packages};
use crate::command::Tool;
use crate::places;
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};

/// `vmlinuz`, `busybox` and `modules/`.
pub(crate) const fn linux() -> Component {
    Component {
        name: "linux-guest",
        what: "fetching Debian's kernel and busybox",
        recipe: "linux recipe 1",
        make: make_linux,
    }
}

/// `root/`: QEMU, its firmware and every library that the packages bring.
pub(crate) const fn qemu() -> Component {
    Component {
        name: "qemu-guest",
        what: "fetching Debian's QEMU, for guests that are hypervisors",
        recipe: "qemu recipe 1",
        make: make_qemu,
    }
}

/// `xen`: a multiboot1 kernel that is not ours.
pub(crate) const fn xen() -> Component {
    Component { name: "xen-guest", what: "fetching Debian's Xen", recipe: "xen recipe 1", make: make_xen }
}

/// Debian's stock kernel, a bzImage.
pub(crate) fn kernel() -> Result<PathBuf> {
    Ok(linux().folder()?.join("vmlinuz"))
}

/// A statically linked busybox.
pub(crate) fn busybox() -> Result<PathBuf> {
    Ok(linux().folder()?.join("busybox"))
}

/// The kernel modules that KVM needs, unpacked, in the order to load them.
pub(crate) fn kvm_modules() -> Result<Vec<PathBuf>> {
    let dir = linux().folder()?.join("modules");
    Ok(MODULES.iter().map(|name| dir.join(format!("{name}.ko"))).collect())
}

const MODULES: [&str; 3] = ["irqbypass", "kvm", "kvm-intel"];

fn make_linux(dir: &Path) -> Result<Vec<String>> {
    let packages = Packages::open(dir)?;
    let image = packages.depends("linux-image-amd64")?;
    let debs = packages.download(&["busybox-static".to_owned(), image])?;
    let root = dir.join("unpacked");
    for deb in &debs {
        let is_kernel = deb.file_name().is_some_and(|name| name.to_string_lossy().starts_with("linux-image"));
        if is_kernel { unpack_kernel(deb, &root)? } else { debian::unpack(deb, &root)? }
    }
    std::fs::rename(find(&root, "boot", |name| name.starts_with("vmlinuz-"))?, dir.join("vmlinuz"))?;
    std::fs::rename(root.join("usr/bin/busybox"), dir.join("busybox")).context("the package has no usr/bin/busybox")?;
    let modules = dir.join("modules");
    places::make_folder(&modules)?;
    for name in MODULES {
        let packed = find(&root, "", |found| found == format!("{name}.ko.xz"))?;
        Tool::new("xz").args(["-d".as_ref(), packed.as_os_str()]).output()?;
        std::fs::rename(packed.with_extension(""), modules.join(format!("{name}.ko")))?;
    }
    places::remove(&root)?;
    Ok(debian::origin(&debs))
}

/// The kernel package is 100 MB packed and half a gigabyte unpacked: take the few files that guests use.
fn unpack_kernel(deb: &Path, root: &Path) -> Result<()> {
    places::make_folder(root)?;
    let wanted = std::iter::once("./boot/vmlinuz-*".to_owned()).chain(MODULES.iter().map(|m| format!("*/{m}.ko.xz")));
    Tool::new("sh")
        .args(["-ec", "dpkg-deb --fsys-tarfile \"$1\" > \"$2/package.tar\"; shift 2; tar -x -f \"$0/package.tar\" -C \"$0\" --wildcards \"$@\"; rm \"$0/package.tar\""])
        .args([root.as_os_str(), deb.as_os_str(), root.as_os_str()])
        .args(wanted)
        .output()
        .map(drop)
}

fn make_xen(dir: &Path) -> Result<Vec<String>> {
    let packages = Packages::open(dir)?;
    let hypervisor = packages.depends("xen-system-amd64")?;
    let debs = packages.download(&[hypervisor])?;
    let root = dir.join("unpacked");
    for deb in &debs {
        debian::unpack(deb, &root)?;
    }
    let packed = find(&root, "boot", |name| name.starts_with("xen-") && name.ends_with(".gz"))?;
    Tool::new("gzip").args(["-d".as_ref(), packed.as_os_str()]).output()?;
    std::fs::rename(packed.with_extension(""), dir.join("xen"))?;
    places::remove(&root)?;
    Ok(debian::origin(&debs))
}

fn make_qemu(dir: &Path) -> Result<Vec<String>> {
    let packages = Packages::open(dir)?;
    let names: Vec<String> = packages
        .closure(&["qemu-system-x86", "seabios"])?
        .into_iter()
        .filter(|name| {
            ["lib", "qemu-system", "seabios", "zlib1g", "gcc-", "ipxe"].iter().any(|start| name.starts_with(start))
        })
        .collect();
    let debs = packages.download(&names)?;
    for deb in &debs {
        debian::unpack(deb, &dir.join("root"))?;
    }
    Ok(debian::origin(&debs))
}

/// The first file under `root/sub` whose name is wanted.
fn find(root: &Path, sub: &str, is_wanted: impl Fn(&str) -> bool) -> Result<PathBuf> {
    let mut folders = vec![root.join(sub)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else if is_wanted(&entry.file_name().to_string_lossy()) {
                return Ok(entry.path());
            }
        }
    }
    anyhow::bail!("a Debian package lacks the file that was looked for in {}", root.join(sub).display())
}
