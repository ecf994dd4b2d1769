//! What kind of kernel a file is.

use crate::bzimage::header as linux;
use crate::error::LoadError;
use crate::multiboot1::header as multiboot;

/// Kinds of kernel files that [`crate::load`] takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum KernelKind {
    /// A Linux bzImage.
    BzImage,
    /// A multiboot1 kernel: ELF, or any file whose header has the address fields.
    Multiboot1,
}

/// First bytes of files that a user may take for a kernel, and the program that unpacks them.
const COMPRESSED: [(&[u8], &str); 4] =
    [(b"\x1f\x8b", "gzip"), (b"\xfd7zXZ\0", "xz"), (b"\x28\xb5\x2f\xfd", "zstd"), (b"BZh", "bzip2")];

impl KernelKind {
    /// The kind of `file`.
    ///
    /// # Errors
    /// [`LoadError::KernelEmpty`], [`LoadError::KernelCompressed`], [`LoadError::ElfWithoutMultiboot`] or
    /// [`LoadError::KernelUnknown`].
    pub fn of(file: &[u8]) -> Result<Self, LoadError> {
        if linux::is_linux(file) {
            return Ok(Self::BzImage);
        }
        if multiboot::find(file).is_some() {
            return Ok(Self::Multiboot1);
        }
        if file.is_empty() {
            return Err(LoadError::KernelEmpty);
        }
        if let Some((_, with)) = COMPRESSED.iter().find(|(magic, _)| file.starts_with(magic)) {
            return Err(LoadError::KernelCompressed { with });
        }
        Err(if file.starts_with(&elf::abi::ELFMAGIC) {
            LoadError::ElfWithoutMultiboot
        } else {
            LoadError::KernelUnknown
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A user who gives the wrong file is told which wrong file it is.
    #[test]
    fn files_that_are_no_kernel() {
        let cases: [(&[u8], LoadError); 5] = [
            (b"", LoadError::KernelEmpty),
            (b"\x1f\x8b\x08rest", LoadError::KernelCompressed { with: "gzip" }),
            (b"\x7fELF\x02\x01\x01", LoadError::ElfWithoutMultiboot),
            (b"#!/bin/sh\n", LoadError::KernelUnknown),
            (&[0; 10000], LoadError::KernelUnknown),
        ];
        for (file, expected) in cases {
            assert_eq!(KernelKind::of(file), Err(expected));
        }
    }
}
