//! What an entry came to, as a line of the guest's log.

use core::fmt;

use vmcs::{ExitReason, InstructionError};

/// What VMLAUNCH came to. Its text is short because the serial line is what takes the time of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// `v7`: VMfailValid with this error number.
    VmFail(InstructionError),
    /// `f33 4`: the entry failed after the checks of controls and host state; basic exit reason and qualification.
    EntryFailure(ExitReason, u64),
    /// `e0 3`: L2 ran and exited; basic exit reason and qualification, of [`ExitReason::EXCEPTION_OR_NMI`] the vector.
    Exit(ExitReason, u64),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::VmFail(error) => write!(f, "v{}", error.0),
            Self::EntryFailure(reason, qualification) => write!(f, "f{} {qualification:x}", reason.0),
            Self::Exit(reason, qualification) => write!(f, "e{} {qualification:x}", reason.0),
        }
    }
}

impl core::str::FromStr for Outcome {
    type Err = ();

    fn from_str(line: &str) -> Result<Self, ()> {
        let exit = |rest: &str| -> Result<(ExitReason, u64), ()> {
            let (reason, qualification) = rest.split_once(' ').ok_or(())?;
            let reason = ExitReason(reason.parse().map_err(drop)?);
            Ok((reason, u64::from_str_radix(qualification, 16).map_err(drop)?))
        };
        if let Some(error) = line.strip_prefix('v') {
            Ok(Self::VmFail(InstructionError(error.parse().map_err(drop)?)))
        } else if let Some(rest) = line.strip_prefix('f') {
            exit(rest).map(|(reason, qualification)| Self::EntryFailure(reason, qualification))
        } else {
            let (reason, qualification) = exit(line.strip_prefix('e').ok_or(())?)?;
            Ok(Self::Exit(reason, qualification))
        }
    }
}
