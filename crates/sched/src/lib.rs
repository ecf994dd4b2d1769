//! Which vCPU next on this processor, and for how long.
//!
//! One [`RunQueue`] for each processor of the machine. It knows neither vCPUs nor clocks: vCPUs are numbers, time is an
//! argument in whatever unit the slice has.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

mod run_queue;

pub use run_queue::{AddError, Decision, RunQueue, State};
