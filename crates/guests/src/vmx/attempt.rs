//! Something that may succeed, fail as VMX instructions fail, or fault.

use core::fmt;

use super::instructions::{VmFail, VmResult};
use crate::{Fault, expect_fault};

/// How an attempt ended.
#[derive(Clone, Copy, Debug)]
pub enum Attempt {
    /// As it should.
    Done,
    /// By VMfail.
    Failed(VmFail),
    /// By an exception.
    Faulted(Fault),
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("done"),
            Self::Failed(failure) => failure.fmt(f),
            Self::Faulted(fault) => fault.fmt(f),
        }
    }
}

impl From<VmResult> for Attempt {
    fn from(result: VmResult) -> Self {
        result.map_or_else(Self::Failed, |()| Self::Done)
    }
}

/// Runs `action`, which may fault.
pub fn attempt<T>(mut action: impl FnMut() -> VmResult<T>) -> Attempt {
    let mut result = Ok(());
    match expect_fault(|| result = action().map(|_| ())) {
        Some(fault) => Attempt::Faulted(fault),
        None => result.into(),
    }
}

/// Prints what came of `action`.
pub fn show<T>(what: &str, action: impl FnMut() -> VmResult<T>) {
    crate::println!(" {what}: {}", attempt(action));
}

/// Prints whether `is` is `wanted`.
pub fn equal(what: &str, is: u64, wanted: u64) {
    if is == wanted {
        crate::println!(" {what}: ok");
    } else {
        crate::println!(" {what}: {is:#x} instead of {wanted:#x}");
    }
}
