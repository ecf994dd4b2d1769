//! How the execution of an instruction ends.

use arch::Fault;

use crate::decode::MAX_LENGTH;

/// What has been done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Done {
    /// The instruction is complete and RIP is behind it.
    Complete,
    /// Some iterations of an instruction with REP are done; RIP is still at it, and the guest can be interrupted here, or
    /// simply go on. With RFLAGS.TF set it was one iteration, and the caller owes the trap after it.
    Repeating,
}

/// Why the instruction was not completed. RIP is still at it. The effects of completed iterations of REP stay, as on the
/// processor; apart from them nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Failure {
    /// The guest gets this fault.
    Fault(Fault),
    /// An instruction outside the decoder's subset, or one that is not in RAM.
    Unsupported {
        /// The instruction's bytes as far as they could be fetched, then zeros.
        bytes: [u8; MAX_LENGTH],
        /// How many could be fetched, 0 to 15.
        length: u8,
    },
    /// The instruction, as it is in memory by now, touches RAM only: another vCPU has changed it or a page table. Let the
    /// guest execute it again.
    NotDevice,
}

impl From<Fault> for Failure {
    #[inline]
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}
