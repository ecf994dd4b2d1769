//! Stock Debian Linux as an L1 that is a hypervisor: an initramfs with KVM, QEMU and the L2s that it can run.

use super::{INIT_EXERCISE, exit_port, load};
use crate::build::Built;
use crate::command::Tool;
use crate::cpio::Archive;
use crate::places;
use crate::setup::guest_packages;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};

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
/// Where Debian's dynamic linker looks by itself.
const LIBRARIES: &str = "lib/x86_64-linux-gnu";
const LINKER: &str = "ld-linux-x86-64.so.2";

/// For both Linuxes: their start is a third quicker without the self-tests of their cryptography and without the
/// certificate that modules are signed with. Modules without a valid signature are loaded all the same.
const QUICK: &str = "cryptomgr.notests initcall_blacklist=jent_mod_init,load_system_certificate_list";

/// MiB of memory: room for the initramfs, unpacked, beside Linux and its L2.
pub(crate) const MEMORY: u32 = 1024;

/// Seconds for which the L2 `load` makes its load, unless it is told otherwise.
const LOAD_SECONDS: u32 = 4;

/// A guest for the guest.
pub(crate) struct L2 {
    /// `l2=NAME` on L1's command line chooses it.
    pub(crate) name: &'static str,
    kernel: PathBuf,
    initrd: Option<Vec<u8>>,
    cmdline: String,
    cpus: u32,
}

impl L2 {
    /// One that comes with the project: `linux` is the Linux that L1 is, with the /init that exercises its machine; `load`
    /// the same under a load of interrupts, on two processors; `small` needs next to nothing of its machine, for a hypervisor
    /// that is slow. `mips`: as for the machine.
    pub(crate) fn of_ours(name: &'static str, built: &Built, mips: u32) -> Result<Self> {
        Ok(match name {
            "linux" => L2 {
                name,
                kernel: guest_packages::kernel()?,
                initrd: Some(super::initramfs(INIT_EXERCISE)?),
                cmdline: format!("{} {QUICK}", super::cmdline(mips)),
                cpus: 1,
            },
            "load" => L2 {
                name,
                kernel: guest_packages::kernel()?,
                initrd: Some(load::initramfs()?),
                cmdline: format!("{} {QUICK}", load::cmdline(mips, LOAD_SECONDS)),
                cpus: load::CPUS,
            },
            "small" => L2::multiboot(name, built.guest("hello"), "exit=21"),
            _ => bail!("there is no L2 {name:?}"),
        })
    }

    /// A multiboot kernel.
    pub(crate) fn multiboot(name: &'static str, kernel: PathBuf, cmdline: &str) -> Self {
        L2 { name, kernel, initrd: None, cmdline: cmdline.to_owned(), cpus: 1 }
    }
}

/// L1's command line: which L2, parameters of kvm-intel as `kvm_intel.NAME=VALUE`, and more words for L2 as `l2.WORD`.
pub(crate) fn cmdline(mips: u32, l2: &str, words: &str) -> String {
    format!("{} {QUICK} l2={l2} {words}", super::cmdline(mips)).trim_end().to_owned()
}

/// Writes the initramfs to this file.
pub(crate) fn initramfs(l2s: &[L2], path: &Path) -> Result<()> {
    places::write(path, archive(l2s)?)
}

fn archive(l2s: &[L2]) -> Result<Vec<u8>> {
    let root = guest_packages::qemu().folder()?.join("root");
    let mut archive = Archive::default();
    for folder in ["bin", "dev", "proc", "sys", "tmp", "modules", "lib", LIBRARIES, "lib64", "firmware", "l2"] {
        archive.folder(folder);
    }
    archive.device("dev/console", 5, 1);
    archive.file("bin/busybox", &places::read(&guest_packages::busybox()?)?);
    archive.file("bin/exit-port", &exit_port::program());
    for module in guest_packages::kvm_modules()? {
        archive.file(&format!("modules/{}", name(&module)), &places::read(&module)?);
    }
    let qemu = root.join("usr/bin/qemu-system-x86_64");
    archive.file("bin/qemu", &places::read(&qemu)?);
    for library in libraries(&root, &qemu)? {
        let folder = if name(&library) == LINKER { "lib64" } else { LIBRARIES };
        archive.file(&format!("{folder}/{}", name(&library)), &places::read(&library)?);
    }
    for file in FIRMWARE {
        let path = ["usr/share/qemu", "usr/share/seabios"].map(|dir| root.join(dir).join(file));
        let path = path.iter().find(|path| path.is_file()).with_context(|| format!("Debian's QEMU has no {file}"))?;
        archive.file(&format!("firmware/{file}"), &places::read(path)?);
    }
    for l2 in l2s {
        let folder = format!("l2/{}", l2.name);
        archive.folder(&folder);
        archive.file(&format!("{folder}/kernel"), &places::read(&l2.kernel)?);
        archive.file(&format!("{folder}/cmdline"), l2.cmdline.as_bytes());
        archive.file(&format!("{folder}/cpus"), l2.cpus.to_string().as_bytes());
        if let Some(initrd) = &l2.initrd {
            archive.file(&format!("{folder}/initrd"), initrd);
        }
    }
    archive.file("init", include_bytes!("kvm.sh"));
    Ok(archive.finish())
}

/// What the dynamic linker of that QEMU would load, itself included.
fn libraries(root: &Path, program: &Path) -> Result<Vec<PathBuf>> {
    let folder = root.join("usr/lib/x86_64-linux-gnu");
    let linker = folder.join(LINKER);
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
