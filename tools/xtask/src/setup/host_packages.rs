//! Tools that the host itself must have. As root or by sudo they are installed; otherwise one sentence says what to install.

use super::Need;
use crate::command::Tool;
use crate::console::Step;
use crate::places;
use anyhow::{Context, Result, bail};
use std::path::Path;

/// A host package and how to see that it is there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct HostPackage {
    name: &'static str,
    /// A program on PATH, or an absolute path.
    sign: &'static str,
}

const BOOT_TOOLS: [HostPackage; 7] = [
    HostPackage { name: "grub-common", sign: "grub-mkrescue" },
    HostPackage { name: "grub-pc-bin", sign: "/usr/lib/grub/i386-pc/multiboot2.mod" },
    HostPackage { name: "grub-efi-amd64-bin", sign: "/usr/lib/grub/x86_64-efi/multiboot2.mod" },
    HostPackage { name: "ipxe-qemu", sign: crate::bochs::BOOT_ROM },
    HostPackage { name: "xorriso", sign: "xorriso" },
    HostPackage { name: "mtools", sign: "mformat" },
    HostPackage { name: "util-linux", sign: "setpriv" },
];
const QEMU: [HostPackage; 3] = [
    HostPackage { name: "ovmf", sign: "/usr/share/OVMF/OVMF_CODE_4M.fd" },
    HostPackage { name: "qemu-system-x86", sign: "qemu-system-x86_64" },
    HostPackage { name: "seabios", sign: "/usr/share/seabios/bios-256k.bin" },
];
const NETBOOT_SERVER: [HostPackage; 2] =
    [HostPackage { name: "dnsmasq-base", sign: "dnsmasq" }, HostPackage { name: "iproute2", sign: "ip" }];
const VALGRIND: [HostPackage; 1] = [HostPackage { name: "valgrind", sign: "valgrind" }];
const GUESTS: [HostPackage; 2] =
    [HostPackage { name: "xz-utils", sign: "xz" }, HostPackage { name: "tar", sign: "tar" }];

/// The packages that a need still misses.
pub(crate) fn missing(need: Need) -> Vec<HostPackage> {
    let wanted: &[HostPackage] = match need {
        Need::BootTools => &BOOT_TOOLS,
        Need::Qemu => &QEMU,
        Need::LinuxGuest | Need::GuestQemu => &GUESTS,
        Need::NetbootServer => &NETBOOT_SERVER,
        Need::Valgrind => &VALGRIND,
        Need::RustTarget | Need::Bochs | Need::XenGuest => &[],
    };
    wanted.iter().copied().filter(|package| !package.is_installed()).collect()
}

/// Installs packages with the machine's own apt.
pub(crate) fn install(packages: &[HostPackage]) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = packages.iter().map(|package| package.name).collect();
    let list = names.join(" ");
    if places::program("apt-get").is_none() {
        bail!("these tools are missing and there is no apt-get here to install them: {list}");
    }
    let Some(rights) = Rights::of_this_user()? else {
        bail!(
            "Debian packages are missing; install them once with: sudo apt-get install --no-install-recommends {list}"
        );
    };
    let step = Step::start(format!("installing {list}"));
    if rights.install(&names).is_err() {
        // The lists are missing (a fresh container) or older than the mirror: fetch them and try once more.
        rights.apt_get().args(["-qq", "update"]).output().context("cannot update apt's package lists")?;
        rights.install(&names)?;
    }
    step.done("");
    if let Some(package) = packages.iter().find(|package| !package.is_installed()) {
        bail!("{} is installed but {} is not there", package.name, package.sign);
    }
    Ok(())
}

/// How this user may install packages.
#[derive(Clone, Copy)]
enum Rights {
    Root,
    /// sudo lets him without asking for a password: nobody may be there to type one.
    Sudo,
}

impl Rights {
    fn of_this_user() -> Result<Option<Self>> {
        if Tool::new("id").args(["-u"]).output()?.trim() == "0" {
            return Ok(Some(Rights::Root));
        }
        let sudo = places::program("sudo").and_then(|sudo| Tool::new(sudo).args(["-n", "true"]).output().ok());
        Ok(sudo.map(|_| Rights::Sudo))
    }

    fn apt_get(self) -> Tool {
        match self {
            // An environment that sudo would not pass on.
            Rights::Root => Tool::new("env"),
            Rights::Sudo => Tool::new("sudo").args(["-n", "env"]),
        }
        .args(["DEBIAN_FRONTEND=noninteractive", "apt-get"])
    }

    fn install(self, names: &[&str]) -> Result<()> {
        self.apt_get()
            .args(["-qq", "-y", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=300", "install"])
            .args(names)
            .output()
            .map(drop)
    }
}

impl HostPackage {
    fn is_installed(self) -> bool {
        if self.sign.starts_with('/') { Path::new(self.sign).exists() } else { places::program(self.sign).is_some() }
    }
}
