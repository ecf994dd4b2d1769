//! Model-specific registers.

use arch::msr::Msr;

/// Reads `msr`; an MSR that is not there faults.
#[inline]
pub fn read(msr: Msr) -> u64 {
    // SAFETY: the machine is ours.
    unsafe { x86::msr::rdmsr(msr.0) }
}

/// Writes `msr`.
#[inline]
pub fn write(msr: Msr, value: u64) {
    // SAFETY: the machine is ours.
    unsafe { x86::msr::wrmsr(msr.0, value) }
}
