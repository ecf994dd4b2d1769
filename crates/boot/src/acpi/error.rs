//! Why the ACPI tables cannot be used.

use core::fmt;

/// Why the ACPI tables cannot be used. `Display` is one sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum AcpiError {
    /// No RSDP from the boot loader, and none where BIOS firmware has it.
    NoRsdp,
    /// A table that must be there is not.
    Missing {
        /// Its signature.
        table: [u8; 4],
    },
    /// A table lies where there is no memory, or is longer than any that makes sense.
    Unreadable {
        /// Its signature.
        table: [u8; 4],
    },
    /// The sum of a table's bytes is not zero, or it has another signature than it should.
    Checksum {
        /// The signature it should have.
        table: [u8; 4],
    },
    /// A table contradicts itself.
    Malformed {
        /// Its signature.
        table: [u8; 4],
    },
    /// More of something than there is room for.
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there may be.
        limit: usize,
    },
}

impl fmt::Display for AcpiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |table: &[u8; 4]| table.map(|byte| if byte.is_ascii_graphic() { char::from(byte) } else { '?' });
        let (table, what) = match self {
            Self::NoRsdp => {
                return write!(
                    f,
                    "the machine has no ACPI tables: enable ACPI in the firmware, or use a newer machine"
                );
            }
            Self::TooMany { what, limit } => {
                return write!(f, "the machine has more than {limit} {what}: Nestling cannot run on it");
            }
            Self::Missing { table } => (table, "is missing"),
            Self::Unreadable { table } => (table, "lies outside of memory"),
            Self::Checksum { table } => (table, "has a wrong checksum or signature"),
            Self::Malformed { table } => (table, "contradicts itself"),
        };
        write!(f, "the firmware's ACPI table ")?;
        name(table).iter().try_for_each(|letter| write!(f, "{letter}"))?;
        write!(f, " {what}: update the firmware")
    }
}

impl core::error::Error for AcpiError {}
