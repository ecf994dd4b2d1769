//! The image of a USB stick: a disk with one FAT partition, which BIOS and UEFI boot from and any computer can edit.
//!
//! It is put together as a file, so that making it needs no rights: boot sector, GRUB behind it, and the partition's files
//! by mtools.

use crate::command::Tool;
use crate::grub::{Core, Menu, SCRIPT};
use crate::places;
use anyhow::{Context, Result};
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

const SECTOR: u64 = 512;
/// Where the partition begins: GRUB lies between the boot sector and it.
const PARTITION_START: u64 = 1 << 20;
/// GRUB's boot sector as Debian ships it.
const BOOT_SECTOR: &str = "/usr/lib/grub/i386-pc/boot.img";
/// The boot sector's code ends where the partition table begins.
const CODE: usize = 440;
const TABLE: u64 = 446;
/// Room for a user's own guests.
const SPARE: u64 = 64 << 20;

/// Makes the image `file`.
pub(crate) fn write(menu: &Menu, file: &Path) -> Result<()> {
    let tree = file.with_extension("d");
    places::fresh_folder(&tree)?;
    let result = write_from(menu, file, &tree);
    places::remove(&tree)?;
    result
}

fn write_from(menu: &Menu, file: &Path, tree: &Path) -> Result<()> {
    super::files(menu, tree)?;
    for folder in ["EFI/BOOT", "boot/grub", crate::grub::GUESTS] {
        places::make_folder(&tree.join(folder))?;
    }
    places::write(&tree.join(SCRIPT), menu.grub_script(true))?;
    Core::UefiDisk.write(&tree.join("EFI/BOOT/BOOTX64.EFI"), None)?;
    let core = tree.with_extension("core");
    Core::BiosDisk.write(&core, None)?;
    let code = places::read(&core)?;
    std::fs::remove_file(&core)?;
    let size = (PARTITION_START + menu.size() + SPARE).next_multiple_of(PARTITION_START);
    write_disk(file, &code, size).with_context(|| format!("cannot write {}", file.display()))?;

    // FAT16: with FAT32 a partition of this size would have too few clusters for its name.
    let partition = format!("{}@@{PARTITION_START}", file.display());
    let sectors = ((size - PARTITION_START) / SECTOR).to_string();
    let mtools = |program: &str| Tool::new(program).env("MTOOLS_SKIP_CHECK", "1").args(["-i", &partition]);
    mtools("mformat").args(["-T", &sectors, "-h", "64", "-s", "32", "-v", "NESTLING", "::"]).output()?;
    let mut entries: Vec<_> =
        std::fs::read_dir(tree)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    entries.sort();
    mtools("mcopy").args(["-s"]).args(entries).arg("::/").output().context("cannot fill the USB image")?;
    Ok(())
}

/// The disk around its partition.
fn write_disk(file: &Path, core: &[u8], size: u64) -> Result<()> {
    let boot_sector = places::read(Path::new(BOOT_SECTOR))?;
    anyhow::ensure!(core.len() as u64 + SECTOR <= PARTITION_START, "GRUB does not fit before the partition");
    let mut disk = File::create(file)?;
    disk.set_len(size)?;
    // GRUB's boot sector reads on from sector 1, and what it finds there from sector 2, until told otherwise.
    disk.write_all(&boot_sector[..CODE])?;
    disk.seek(SeekFrom::Start(TABLE))?;
    disk.write_all(&partition_entry(PARTITION_START / SECTOR, (size - PARTITION_START) / SECTOR)?)?;
    disk.seek(SeekFrom::Start(SECTOR - 2))?;
    disk.write_all(&[0x55, 0xAA])?;
    disk.write_all(core)?;
    Ok(())
}

/// An active partition for UEFI, by its first sector and number of sectors (UEFI 2.10, 5.2.1 "Legacy Master Boot Record").
fn partition_entry(start: u64, sectors: u64) -> Result<[u8; 16]> {
    const BEYOND_CYLINDERS: [u8; 3] = [0xFE, 0xFF, 0xFF];
    const EFI_SYSTEM: u8 = 0xEF;
    let mut entry = [0; 16];
    entry[0] = 0x80;
    entry[1..4].copy_from_slice(&BEYOND_CYLINDERS);
    entry[4] = EFI_SYSTEM;
    entry[5..8].copy_from_slice(&BEYOND_CYLINDERS);
    entry[8..12].copy_from_slice(&u32::try_from(start)?.to_le_bytes());
    entry[12..16].copy_from_slice(&u32::try_from(sectors)?.to_le_bytes());
    Ok(entry)
}
