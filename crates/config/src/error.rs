//! What is wrong in a machine description, and where.

use core::fmt;

use heapless::String;

/// Bytes of a key that an error repeats; a longer one is cut.
pub const MAX_KEY: usize = 32;

/// A mistake in a machine description. `Display` is one sentence that names line and key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct ConfigError {
    /// Line of the text, from 1.
    pub line: u32,
    /// The key whose value is wrong, or empty when there is none.
    pub key: String<MAX_KEY>,
    /// What is wrong.
    pub kind: ErrorKind,
}

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum ErrorKind {
    /// The text is not as TOML, or the part of it that is taken, wants it.
    Expected(&'static str),
    /// A table that is not `[[vm]]`.
    UnknownTable,
    /// A key before the first `[[vm]]`.
    OutsideVm,
    /// A key that there is not.
    UnknownKey,
    /// A key that its table has already.
    DuplicateKey,
    /// A key that must be there is not.
    MissingKey,
    /// An escape in a string that TOML does not know, or that is no character.
    BadEscape,
    /// A string with a character that must be escaped, or with NUL.
    BadCharacter,
    /// A string that must not be empty is.
    Empty,
    /// A string is too long.
    TooLong {
        /// Bytes it may have.
        limit: usize,
    },
    /// A number is out of its range.
    OutOfRange {
        /// Least value.
        min: u32,
        /// Greatest value.
        max: u32,
    },
    /// More elements than there is room for.
    TooMany {
        /// How many there may be.
        limit: usize,
    },
    /// Two virtual machines have one name.
    DuplicateName,
    /// No `[[vm]]` at all.
    NoVm,
    /// `exclusive` without `pin`.
    NotPinned,
    /// A processor that the machine does not have.
    NoProcessor {
        /// Its number.
        number: u32,
        /// How many there are.
        processors: u32,
    },
    /// Other machines have all processors for themselves on which this one could run.
    NowhereToRun,
    /// A processor that two machines want for themselves.
    NotExclusive {
        /// Its number.
        number: u32,
    },
    /// All machines up to this one have more virtual processors than Nestling runs.
    TooManyCpus {
        /// How many it runs.
        limit: u32,
    },
    /// All machines up to this one want more memory than there is.
    TooMuchMemory {
        /// What there is for them, in MiB.
        mib: u64,
    },
    /// A port that another machine has, or the image itself.
    PortTaken,
    /// A file that is not on the boot medium.
    NoFile,
}

impl ConfigError {
    /// An error at `line` about `key`, which may be empty.
    pub(crate) fn new(line: u32, key: &str, kind: ErrorKind) -> Self {
        let mut short = String::new();
        for character in key.chars() {
            if short.push(character).is_err() {
                break;
            }
        }
        Self { line, key: short, kind }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}", self.line)?;
        if !self.key.is_empty() {
            write!(f, ", key {}", self.key)?;
        }
        match self.kind {
            ErrorKind::Expected(what) => write!(f, ": {what} is expected here"),
            ErrorKind::UnknownTable => write!(f, ": the only table is [[vm]]"),
            ErrorKind::OutsideVm => write!(f, ": put it below a line [[vm]]"),
            ErrorKind::UnknownKey => write!(f, ": there is no such key here, correct or remove it"),
            ErrorKind::DuplicateKey => write!(f, ": it is there twice, remove one"),
            ErrorKind::MissingKey => write!(f, ": it is missing in the table that begins here, add it"),
            ErrorKind::BadEscape => {
                write!(f, ": the string has an unknown escape, write \\\\ for a backslash")
            }
            ErrorKind::BadCharacter => write!(f, ": the string has a control character, escape it; NUL cannot be had"),
            ErrorKind::Empty => write!(f, ": the string is empty, give a name"),
            ErrorKind::TooLong { limit } => write!(f, ": the string is longer than {limit} bytes, shorten it"),
            ErrorKind::OutOfRange { min, max } => write!(f, ": the number must be from {min} to {max}"),
            ErrorKind::TooMany { limit } => write!(f, ": there may be at most {limit}"),
            ErrorKind::DuplicateName => write!(f, ": another virtual machine has this name, give a new one"),
            ErrorKind::NotPinned => write!(f, ": say by pin which processors it shall have for itself"),
            ErrorKind::NoProcessor { number, processors } => {
                write!(f, ": there is no processor {number}, the machine has {processors}, the first is 0")
            }
            ErrorKind::NowhereToRun => {
                write!(f, ": others have all processors for themselves on which it could run, leave it one")
            }
            ErrorKind::NotExclusive { number } => {
                write!(f, ": another virtual machine has processor {number} for itself, give each its own")
            }
            ErrorKind::TooManyCpus { limit } => {
                write!(f, ": with the machines before it these are more than {limit} processors, give it fewer")
            }
            ErrorKind::TooMuchMemory { mib } => {
                write!(f, ": with the machines before it this is more than the {mib} MiB that there are, give it less")
            }
            ErrorKind::PortTaken => write!(f, ": this serial port has another use already, choose another one"),
            ErrorKind::NoFile => write!(f, ": the boot medium has no such file"),
            ErrorKind::NoVm => write!(f, ": the description has no [[vm]], add one"),
        }
    }
}

impl core::error::Error for ConfigError {}
