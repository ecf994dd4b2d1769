//! What a guest did that its author may want to know: each thing once in the log, then counted.

use arch::Width;
use heapless::Vec;
use vcpu::Report;

/// Different things that are told apart; beyond that, they are only counted.
const DISTINCT: usize = 32;

/// What was said already.
pub(crate) struct Reports {
    said: Vec<Said, DISTINCT>,
    unsaid: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Said {
    Vcpu(Report),
    Port { port: u16, write: bool },
}

impl Reports {
    /// Nothing yet.
    pub(crate) const fn new() -> Self {
        Self { said: Vec::new(), unsaid: 0 }
    }

    /// A report of a vCPU.
    pub(crate) fn add(&mut self, report: Report) {
        let report = match report {
            // A whole region of nothing is one thing to say.
            Report::NothingThere { at, write } => Report::NothingThere { at: at.page(), write },
            other => other,
        };
        if self.is_new(Said::Vcpu(report)) {
            match report {
                Report::UnknownMsr { msr, write: false } => {
                    defmt::info!("L1 reads {}, which its machine does not have: #GP", msr)
                }
                Report::UnknownMsr { msr, write: true } => {
                    defmt::info!(
                        "L1 writes {}, which its machine does not have or which does not take the value: #GP",
                        msr
                    );
                }
                Report::FetchFromNothing { at } => {
                    defmt::warn!("L1 jumps to {}, where its machine has no memory: #UD", at);
                }
                Report::EntryOfL1Failed(failure) => {
                    for line in failure.lines() {
                        defmt::warn!("{}", defmt::Display2Format(&line));
                    }
                }
                Report::LostRip => defmt::info!("the machine stored a wrong RIP at a VM exit: put right"),
                Report::NothingThere { at, write: false } => {
                    defmt::info!("L1 reads page {}, where its machine has nothing: all ones", at);
                }
                Report::NothingThere { at, write: true } => {
                    defmt::info!("L1 writes page {}, where its machine has nothing: lost", at);
                }
            }
        }
    }

    /// An access to a port that no device answers.
    pub(crate) fn port(&mut self, port: u16, width: Width, write: bool) {
        if self.is_new(Said::Port { port, write }) {
            if write {
                defmt::debug!("L1 writes port {=u16:#x} ({}), which nobody answers: lost", port, width);
            } else {
                defmt::debug!("L1 reads port {=u16:#x} ({}), which nobody answers: all ones", port, width);
            }
        }
    }

    /// How many reports are not in the log, because they repeat or because there were too many.
    pub(crate) const fn unsaid(&self) -> u64 {
        self.unsaid
    }

    fn is_new(&mut self, report: Said) -> bool {
        let new = !self.said.contains(&report) && self.said.push(report).is_ok();
        self.unsaid += u64::from(!new);
        new
    }
}
