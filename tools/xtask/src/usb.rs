//! `usb`: a stick that boots Nestling, as an image file, and onto a device only after asking.

use crate::build;
use crate::carried::Carried;
use crate::command::Tool;
use crate::console::{Step, say};
use crate::medium::usb;
use crate::places;
use crate::setup::{self, Need};
use anyhow::{Context, Result, bail};
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Write the image of a USB stick that boots Nestling on BIOS and UEFI machines.
///
/// The image is target/nestling/BOARD.img: one FAT partition, in which nestling.toml says what runs.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cargo xtask usb pc-serial                           write target/nestling/pc-serial.img
  cargo xtask usb pc-serial --device /dev/sdb         also write it to the stick: asks first, and refuses what is no stick
  cargo xtask usb pc-serial --guest vmlinuz --guest initrd.img --config my.toml")]
pub(crate) struct Options {
    #[command(flatten)]
    carried: Carried,
    /// Also write it to this device, which is erased: a removable disk, not mounted
    #[arg(long, value_name = "DEVICE")]
    device: Option<PathBuf>,
}

/// The `usb` command.
pub(crate) fn command(options: &Options) -> Result<()> {
    let files = options.carried.read(None)?;
    if let Some(device) = &options.device {
        Facts::of(device)?.check(device)?;
    }
    setup::ensure(&[Need::RustTarget, Need::BootTools])?;
    let menu = files.menu(&build::all()?)?;
    let image = places::output()?.join(format!("{}.img", options.carried.board));
    usb::write(&menu, &image)?;
    println!("{}", image.display());
    match &options.device {
        Some(device) => write_device(&image, device),
        None => Ok(()),
    }
}

/// What must be known of a device before it is erased.
#[derive(Clone, Debug)]
struct Facts {
    is_block_device: bool,
    is_whole_disk: bool,
    is_removable: bool,
    /// Where it or a partition of it is mounted or otherwise in use.
    used: Option<String>,
    bytes: u64,
    what: String,
}

impl Facts {
    fn of(device: &Path) -> Result<Self> {
        let device = device.canonicalize().with_context(|| format!("there is no device {}", device.display()))?;
        let kind = std::fs::metadata(&device)?.file_type();
        let name = device.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let folder = Path::new("/sys/block").join(&name);
        let read = |file: &str| std::fs::read_to_string(folder.join(file)).unwrap_or_default().trim().to_owned();
        let mut used = None;
        for list in ["/proc/mounts", "/proc/swaps"] {
            let text = std::fs::read_to_string(list).with_context(|| format!("cannot read {list}"))?;
            let shown = device.display().to_string();
            // /dev/sdb, and its partitions /dev/sdb1 or /dev/mmcblk0p1.
            used = used.or(text.lines().find(|line| line.starts_with(&shown)).map(str::to_owned));
        }
        // A partition may also be part of a RAID, an encrypted volume or a logical one.
        let mut folders = vec![folder.clone()];
        folders.extend(std::fs::read_dir(&folder).into_iter().flatten().flatten().map(|entry| entry.path()));
        for holders in folders.iter().map(|folder| folder.join("holders")) {
            let first = std::fs::read_dir(&holders).into_iter().flatten().flatten().next();
            used = used.or(first.map(|holder| format!("{} {}", name, holder.file_name().display())));
        }
        Ok(Facts {
            is_block_device: kind.is_block_device(),
            is_whole_disk: folder.is_dir(),
            is_removable: read("removable") == "1",
            used,
            bytes: read("size").parse::<u64>().unwrap_or(0) * 512,
            what: format!("{} {}", read("device/vendor"), read("device/model")).trim().to_owned(),
        })
    }

    /// Refuses what is not certainly a stick that nobody uses.
    fn check(&self, device: &Path) -> Result<()> {
        let device = device.display();
        if !self.is_block_device {
            bail!("{device} is not a disk: give the stick's device, such as /dev/sdb");
        }
        if !self.is_whole_disk {
            bail!("{device} is a partition: give the whole stick, such as /dev/sdb");
        }
        if !self.is_removable {
            bail!("{device} is not removable: only a removable disk is written to");
        }
        if let Some(used) = &self.used {
            bail!("{device} is in use ({used}): unmount it first");
        }
        Ok(())
    }
}

/// Asks, writes, and reads back what was written.
fn write_device(image: &Path, device: &Path) -> Result<()> {
    let bytes = places::read(image)?;
    let facts = Facts::of(device)?;
    facts.check(device)?;
    if facts.bytes < bytes.len() as u64 {
        bail!("{} has {} bytes, and the image {}: take a larger stick", device.display(), facts.bytes, bytes.len());
    }
    // With this flag Linux opens no block device that is mounted or otherwise in use (open(2), "O_EXCL").
    const EXCLUSIVE: i32 = 0o200;
    let mut file = File::options().write(true).custom_flags(EXCLUSIVE).open(device).with_context(|| {
        let (image, device) = (image.display(), device.display());
        format!("this user may not write to {device}; as root it is: dd if={image} of={device} bs=4M conv=fsync")
    })?;
    say(&format!(
        "{} ({}, {} MB) will be erased. Type its name to go on:",
        device.display(),
        facts.what,
        facts.bytes / 1_000_000
    ));
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).context("cannot read the answer")?;
    if Path::new(answer.trim()) != device {
        bail!("not confirmed: nothing was written to {}", device.display());
    }
    // Asking took time: it may have been mounted meanwhile.
    Facts::of(device)?.check(device)?;
    let step = Step::start(format!("writing {}", device.display()));
    file.write_all(&bytes)
        .and_then(|()| file.sync_all())
        .with_context(|| format!("{} was not written completely", device.display()))?;
    drop(file);
    // Read from the stick itself, not from memory.
    Tool::new("blockdev").arg("--flushbufs").arg(device).output()?;
    let mut written = vec![0; bytes.len()];
    File::open(device)?.read_exact(&mut written).context("the stick cannot be read back")?;
    if written != bytes {
        bail!("{} does not hold what was written to it: take another stick", device.display());
    }
    step.done("");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Only a whole, removable, unused disk is written to, and each refusal says what is wrong.
    #[test]
    fn only_an_unused_stick_is_erased() {
        let stick = Facts {
            is_block_device: true,
            is_whole_disk: true,
            is_removable: true,
            used: None,
            bytes: 1 << 30,
            what: String::new(),
        };
        let device = Path::new("/dev/sdz");
        stick.check(device).unwrap();
        for (facts, sentence) in [
            (Facts { is_block_device: false, ..stick.clone() }, "not a disk"),
            (Facts { is_whole_disk: false, ..stick.clone() }, "partition"),
            (Facts { is_removable: false, ..stick.clone() }, "not removable"),
            (Facts { used: Some("/dev/sdz1 /mnt ext4".to_owned()), ..stick.clone() }, "/mnt"),
        ] {
            let error = facts.check(device).unwrap_err().to_string();
            assert!(error.contains("/dev/sdz") && error.contains(sentence), "{error}");
        }
    }

    /// Of a file that is no device, and of one that is not there.
    #[test]
    fn a_file_is_no_stick() {
        assert!(!Facts::of(Path::new("/etc/passwd")).unwrap().is_block_device);
        let error = Facts::of(Path::new("/dev/no-such-device")).unwrap_err().to_string();
        assert!(error.contains("/dev/no-such-device"), "{error}");
    }
}
