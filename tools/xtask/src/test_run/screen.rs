//! The screen of a machine without a serial port, read back from the emulator's picture of it.

use crate::board::{Board, Boot, Firmware};
use crate::build;
use crate::emulator;
use crate::medium;
use crate::places;
use crate::qemu;
use crate::setup::{self, Need};
use crate::spec::Spec;
use anyhow::{Context, Result, bail, ensure};
use font8x8::legacy::BASIC_LEGACY;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(90);
const SENTENCE: &str = "end of run: status 125: this processor has no VMX";

/// BIOS leaves a text mode, UEFI a graphics mode; on both the refusal can be read.
pub(super) fn readable() -> Result<()> {
    setup::ensure(&[Need::BootTools, Need::Qemu])?;
    let built = build::all()?;
    for firmware in [Firmware::Bios, Firmware::Uefi] {
        let dir = emulator::run_folder(&format!("screen-{firmware:?}").to_lowercase())?;
        let mut spec = Spec::new(Board::load("qemu-q35")?);
        spec.board.firmware = firmware;
        spec.image_words = vec!["console=none", "log=none", "end=halt"];
        medium::write(&spec.nestling_menu(&built)?, spec.board.boot, &dir)?;
        let mut command = qemu::command(&qemu::Machine::small(Boot::GrubIso, firmware), &dir)?;
        let mut child = command.args(["-qmp", "unix:qmp,server=on,wait=off"]).spawn().context("cannot start QEMU")?;
        let started = Instant::now();
        let read = loop {
            std::thread::sleep(Duration::from_millis(500));
            let text = read_screen(&dir, firmware);
            match text {
                Ok(text) if text.contains(SENTENCE) => break Ok(()),
                Ok(text) if started.elapsed() > PATIENCE => {
                    break Err(anyhow::anyhow!("{firmware:?}: the screen shows:\n{text}"));
                }
                Err(error) if started.elapsed() > PATIENCE => break Err(error),
                _ => {}
            }
        };
        let _ = child.kill();
        let _ = child.wait();
        medium::remove(&dir);
        read?;
    }
    Ok(())
}

/// What is on the screen now.
fn read_screen(dir: &Path, firmware: Firmware) -> Result<String> {
    match firmware {
        Firmware::Bios => {
            let path = dir.join("text");
            monitor(dir, &format!("pmemsave 0xb8000 4000 \"{}\"", path.display()))?;
            let cells = places::read(&path)?;
            Ok(cells
                .chunks(160)
                .map(|line| line.iter().step_by(2).map(|byte| char::from(*byte)).collect::<String>() + "\n")
                .collect())
        }
        Firmware::Uefi => {
            let path = dir.join("picture");
            monitor(dir, &format!("screendump \"{}\"", path.display()))?;
            text_of(&places::read(&path)?)
        }
    }
}

/// Gives QEMU a command of its monitor, and waits until it is done (QEMU Machine Protocol).
fn monitor(dir: &Path, command: &str) -> Result<()> {
    let mut stream = UnixStream::connect(dir.join("qmp")).context("QEMU's monitor does not answer")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let human = serde_json::json!({
        "execute": "human-monitor-command",
        "arguments": { "command-line": command },
    });
    for request in [serde_json::json!({ "execute": "qmp_capabilities" }), human] {
        writeln!(stream, "{request}")?;
        loop {
            let line = lines.next().context("QEMU has gone")??;
            // A complaint of the monitor comes as the result.
            if line.contains("\"error\"") || line.contains("rror:") {
                bail!("{command}: {line}");
            }
            if line.contains("\"return\"") {
                break;
            }
        }
    }
    Ok(())
}

/// The characters of a picture (PPM, binary) in cells of 8 by 16, by the public-domain font that they were drawn with.
fn text_of(picture: &[u8]) -> Result<String> {
    let mut parts = picture.splitn(4, |byte| *byte == b'\n');
    let (kind, size, _, pixels) = (parts.next(), parts.next(), parts.next(), parts.next());
    ensure!(kind == Some(b"P6"), "the picture is not a PPM file");
    let size = String::from_utf8_lossy(size.unwrap_or_default()).into_owned();
    let (width, height) = size.split_once(' ').context("the picture has no size")?;
    let (width, height): (usize, usize) = (width.parse()?, height.parse()?);
    let pixels = pixels.unwrap_or_default();
    ensure!(pixels.len() == width * height * 3, "the picture is cut off");
    let is_set = |x: usize, y: usize| pixels[(y * width + x) * 3] > 127;
    let mut text = String::new();
    for row in 0..height / 16 {
        for column in 0..width / 8 {
            let line =
                |y: usize| (0..8).fold(0u8, |bits, x| bits | u8::from(is_set(column * 8 + x, row * 16 + 2 * y)) << x);
            let glyph: [u8; 8] = std::array::from_fn(line);
            let found = (b' '..=b'~').find(|character| BASIC_LEGACY[usize::from(*character)] == glyph);
            text.push(found.map_or('\u{fffd}', char::from));
        }
        text.push('\n');
    }
    Ok(text)
}
