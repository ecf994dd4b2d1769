//! Which vCPU next on this processor, and for how long.
//!
//! Each pCPU has one [`RunQueue`] of the vCPUs that live on it. The queue knows no clock and no VM: the caller brings the time,
//! says what became of the vCPU that ran and who was woken, and asks [`RunQueue::next`].
//!
//! Those who could run take turns, a slice each; whoever becomes ready goes to the end of the line. So nobody who is
//! ready waits longer than a slice for each of the others. A vCPU that nobody waits for runs without end.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

mod run_queue;

pub use run_queue::{Decision, Full, RunQueue, State};

#[cfg(test)]
mod tests;
