//! How often what happened between L1 and L2.

/// Counts of one vCPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Transitions {
    /// Entries of L1 into L2 that passed the checks.
    pub entries: u64,
    /// Entries that L1 tried and that failed as an instruction.
    pub failed_instructions: u64,
    /// Entries that failed after the checks of controls and host state: exits 33 and 34.
    pub failed_entries: u64,
    /// Exits of L2 that L1 was given.
    pub exits_to_l1: u64,
    /// Exits of L2 that L0 handled by itself.
    pub exits_to_l0: u64,
    /// Times that L0, not the processor, gave L2 what L1 had posted.
    pub posted: u64,
    /// VM exits of L1 for VMX instructions.
    pub instructions: u64,
}
