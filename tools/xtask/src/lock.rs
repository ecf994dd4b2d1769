//! One xtask at a time in a folder: two that set up or build at once would tread on each other's files.

use crate::console::say;
use anyhow::{Context, Result};
use std::fs::{File, TryLockError};
use std::path::Path;

/// Holds the folder until it is dropped; the kernel lets go of it even if this process is killed.
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Waits for the folder, saying so if another xtask has it.
    pub(crate) fn take(dir: &Path) -> Result<Self> {
        let path = dir.join(".lock");
        let file = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                say(&format!("waiting for another xtask that works in {}", dir.display()));
                file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", path.display()));
            }
        }
        Ok(Lock { _file: file })
    }
}
