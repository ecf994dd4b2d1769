//! `image`: the bootable ISO and the ELF, and what they weigh.

use crate::board::{self, Board};
use crate::build;
use crate::medium;
use crate::places;
use crate::setup::{self, Need};
use crate::spec::Spec;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};

/// The most that Nestling may load into a machine's memory.
const LIMIT: u64 = 400 << 10;

/// Build the ISO and the ELF into target/nestling, with a size report.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cargo xtask image                       for the default board
  cargo xtask image --board pc-serial     for a PC: write target/nestling/pc-serial.iso to a USB stick or CD")]
pub(crate) struct Options {
    /// The machine to boot: a folder of boards/
    #[arg(long, value_name = "NAME", default_value = board::DEFAULT)]
    board: String,
}

/// The `image` command.
pub(crate) fn command(options: &Options) -> Result<()> {
    let board = Board::load(&options.board)?;
    setup::ensure(&[Need::RustTarget, Need::BootTools])?;
    let built = build::all()?;
    let output = places::output()?;
    let elf = output.join("nestling.elf");
    std::fs::copy(built.image()?, &elf).with_context(|| format!("cannot write {}", elf.display()))?;
    let iso = output.join(format!("{}.iso", options.board));
    medium::iso::write(&Spec::new(board).nestling_menu(&built)?, &iso)?;
    let segments = segments(&places::read(&elf)?)?;
    println!("{}", report(&segments));
    show(&iso)?;
    show(&elf)?;
    check_loaded(&segments)
}

/// Whether the image is as small as it must be.
pub(crate) fn check_size(elf: &Path) -> Result<()> {
    check_loaded(&segments(&places::read(elf)?)?)
}

fn check_loaded(segments: &[Segment]) -> Result<()> {
    let loaded: u64 = segments.iter().map(|segment| segment.in_file).sum();
    if loaded > LIMIT {
        bail!("the image loads {loaded} bytes, more than the {LIMIT} it may");
    }
    Ok(())
}

fn show(path: &Path) -> Result<()> {
    let path: PathBuf = path.strip_prefix(places::workspace()).unwrap_or(path).to_owned();
    let size = std::fs::metadata(places::workspace().join(&path))?.len();
    println!("{}  {size} bytes", path.display());
    Ok(())
}

/// A part of the ELF that is loaded.
struct Segment {
    offset: u64,
    address: u64,
    flags: u32,
    in_file: u64,
    in_memory: u64,
}

/// The PT_LOAD program headers of an ELF64 file; System V ABI, "Program Header".
fn segments(elf: &[u8]) -> Result<Vec<Segment>> {
    let bytes = |at: usize, n: usize| elf.get(at..at + n).context("the image's ELF is truncated");
    let word = |at: usize| -> Result<u64> { Ok(u64::from_le_bytes(bytes(at, 8)?.try_into()?)) };
    let short = |at: usize| -> Result<usize> { Ok(usize::from(u16::from_le_bytes(bytes(at, 2)?.try_into()?))) };
    let half = |at: usize| -> Result<u32> { Ok(u32::from_le_bytes(bytes(at, 4)?.try_into()?)) };
    if bytes(0, 5)? != b"\x7fELF\x02" {
        bail!("the image is not an ELF64 file");
    }
    let (table, size, count) = (usize::try_from(word(0x20)?)?, short(0x36)?, short(0x38)?);
    let mut segments = Vec::new();
    for header in (0..count).map(|index| table + index * size) {
        let is_loaded = half(header)? == 1;
        let segment = Segment {
            flags: half(header + 4)?,
            offset: word(header + 8)?,
            address: word(header + 0x10)?,
            in_file: word(header + 0x20)?,
            in_memory: word(header + 0x28)?,
        };
        if is_loaded {
            segments.push(segment);
        }
    }
    Ok(segments)
}

/// The image as it goes onto a medium: what is loaded and nothing behind it, for a network carries the rest for nothing. The
/// section headers, which lie at the end, are not there for its loaders (System V ABI, "ELF Header").
pub(crate) fn loadable(mut elf: Vec<u8>) -> Result<Vec<u8>> {
    const SECTION_HEADERS: std::ops::Range<usize> = 0x28..0x30;
    const THEIR_NUMBER_AND_NAMES: std::ops::Range<usize> = 0x3c..0x40;
    let end = segments(&elf)?.iter().map(|segment| segment.offset + segment.in_file).max().unwrap_or(0);
    elf.truncate(usize::try_from(end)?);
    elf[SECTION_HEADERS].fill(0);
    elf[THEIR_NUMBER_AND_NAMES].fill(0);
    Ok(elf)
}

fn report(segments: &[Segment]) -> String {
    let mut text = format!("{:>18}  {:4}  {:>9}  {:>9}\n", "address", "flags", "loaded", "in memory");
    let (mut loaded, mut memory) = (0, 0);
    for segment in segments {
        let flag = |bit: u32, name: char| if segment.flags & bit != 0 { name } else { '-' };
        let flags: String = [flag(4, 'r'), flag(2, 'w'), flag(1, 'x')].iter().collect();
        text += &format!("{:>#18x}  {flags:5}  {:>9}  {:>9}\n", segment.address, segment.in_file, segment.in_memory);
        loaded += segment.in_file;
        memory += segment.in_memory;
    }
    text + &format!("{:>18}  {:5}  {loaded:>9}  {memory:>9}  (loaded: at most {LIMIT} bytes)", "all", "")
}
