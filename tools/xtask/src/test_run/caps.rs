//! What `caps` wrote beside each board of Bochs is what it writes today.

use super::machines::Record;
use crate::board::{self, Board, Emulator};
use crate::build;
use crate::caps;
use crate::emulator;
use crate::places;
use crate::setup::{self, Need};
use anyhow::{Context, Result, ensure};

/// Boots every emulated board with VT-x and compares its report with its file, byte by byte.
pub(super) fn reproduced() -> Result<()> {
    setup::ensure(&[Need::BootTools, Need::Bochs])?;
    let built = build::all()?;
    for name in board::names()? {
        let board = Board::load(&name)?;
        if board.emulator != Emulator::Bochs {
            continue;
        }
        let path = caps::path(&board);
        let written = std::fs::read_to_string(&path)
            .with_context(|| format!("{} is not there: run cargo xtask caps --board {name}", path.display()))?;
        let reported = caps::boot(&caps::spec(board)?, &built, &emulator::run_folder(&format!("caps-{name}"))?)?;
        let difference = written.lines().zip(reported.lines()).find(|(old, new)| old != new);
        ensure!(written == reported, "{name}: the report differs from {}: {difference:?}", path.display());
    }
    // As a real machine with one serial port sends it, between frames of the log.
    let mut spec = caps::spec(Board::load(board::DEFAULT)?)?;
    let path = caps::path(&spec.board);
    spec.image_words.push("console=com2");
    let dir = emulator::run_folder("caps-one-port")?;
    let outcome = spec.run(&built, &dir, &mut Record::default())?;
    let line = places::read(&dir.join("com2"))?;
    let reported = caps::report(&String::from_utf8_lossy(&line));
    ensure!(
        outcome.status == 0 && reported == std::fs::read_to_string(path).ok(),
        "over one port: status {}: {}",
        outcome.status,
        outcome.reason
    );
    Ok(())
}
