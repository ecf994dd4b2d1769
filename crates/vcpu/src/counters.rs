//! How often each exit happened.

use vmcs::ExitReason;

/// Exits of one vCPU by basic exit reason (SDM 3C appendix C "VMX Basic Exit Reasons"), and entries.
#[derive(Clone, Debug)]
pub struct Counters {
    by_reason: [u64; Self::REASONS],
}

impl Counters {
    /// Room for every basic exit reason of the manual's edition, and some.
    const REASONS: usize = 128;

    /// All zero.
    pub const fn new() -> Self {
        Self { by_reason: [0; Self::REASONS] }
    }

    /// Counts one exit. No reason is beyond the table; one that was would be counted somewhere in it.
    #[inline(always)]
    pub const fn count(&mut self, reason: ExitReason) {
        self.by_reason[reason.0 as usize % Self::REASONS] += 1;
    }

    /// Each reason that happened, with how often.
    pub fn iter(&self) -> impl Iterator<Item = (ExitReason, u64)> {
        (0u16..).map(ExitReason).zip(self.by_reason.iter().copied()).filter(|&(_, count)| count > 0)
    }

    /// All exits.
    pub fn total(&self) -> u64 {
        self.by_reason.iter().sum()
    }
}

impl Default for Counters {
    fn default() -> Self {
        Self::new()
    }
}
