//! A machine whose L0 stands still: its watchdog resets it, and the next run shows the log of the one before.

use super::machines::Record;
use crate::board::{Board, Firmware};
use crate::build;
use crate::emulator;
use crate::setup::{self, Need};
use crate::spec::Spec;
use anyhow::{Result, ensure};
use config::STATUS_REFUSED;
use std::time::Duration;

/// On QEMU, whose chipset has the watchdog; without VT-x the second run ends at the refusal.
pub(super) fn watchdog_and_log() -> Result<()> {
    setup::ensure(&[Need::BootTools, Need::Qemu])?;
    let built = build::all()?;
    for firmware in [Firmware::Bios, Firmware::Uefi] {
        let dir = emulator::run_folder(&format!("watchdog-{firmware:?}").to_lowercase())?;
        let mut spec = Spec::new(Board::load("qemu-q35")?);
        spec.board.firmware = firmware;
        spec.image_words = vec!["watchdog=on", "selftest=hang"];
        spec.restarts = true;
        spec.timeout = Some(Duration::from_secs(120));
        let mut record = Record::default();
        let outcome = spec.run(&built, &dir, &mut record)?;
        let log = record.log.join("\n");
        let said = format!("{firmware:?}: status {}: {}\n{log}", outcome.status, outcome.reason);
        ensure!(outcome.status == STATUS_REFUSED && outcome.reason.contains("no VMX"), "{said}");
        // Once as it was logged, once again from memory, and once by the run that ended.
        ensure!(log.matches("booted by").count() == 3, "the log was not kept; {said}");
        ensure!(log.matches("standing still").count() == 2, "the log was not kept whole; {said}");
        ensure!(log.contains("the run before this one did not end"), "{said}");
    }
    Ok(())
}
