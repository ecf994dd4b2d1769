//! Which loader a kernel file is for. Only `--bare` asks: under Nestling the image itself judges what it is given.

use anyhow::{Result, bail};
use std::path::Path;

/// The kinds of kernel that GRUB is asked to load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A Linux bzImage.
    Linux,
    /// A multiboot1 kernel.
    Multiboot,
}

/// Looks at the first bytes of a kernel.
pub(crate) fn kind(path: &Path, bytes: &[u8]) -> Result<Kind> {
    // Linux boot protocol, "The Real-Mode Kernel Header": boot flag at 0x1FE, "HdrS" at 0x202.
    if bytes.get(0x1FE..0x200) == Some(&[0x55, 0xAA]) && bytes.get(0x202..0x206) == Some(b"HdrS") {
        return Ok(Kind::Linux);
    }
    // Multiboot 0.6.96, 3.1 "OS image format": the header is 4-byte aligned in the first 8192 bytes; magic, flags and
    // checksum add up to zero.
    let head = &bytes[..bytes.len().min(8192)];
    let is_header = |window: &[u8]| {
        let word = |at: usize| u32::from_le_bytes([window[at], window[at + 1], window[at + 2], window[at + 3]]);
        word(0) == 0x1BAD_B002 && word(0).wrapping_add(word(4)).wrapping_add(word(8)) == 0
    };
    if head.chunks_exact(4).enumerate().any(|(i, _)| head.get(4 * i..4 * i + 12).is_some_and(is_header)) {
        return Ok(Kind::Multiboot);
    }
    bail!("{} is neither a Linux bzImage nor a multiboot kernel", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each kind is told by its header alone, and a file with neither is refused with its name.
    #[test]
    fn kinds() {
        let path = Path::new("a/file");
        let mut linux = vec![0; 0x300];
        linux[0x1FE..0x200].copy_from_slice(&[0x55, 0xAA]);
        linux[0x202..0x206].copy_from_slice(b"HdrS");
        assert_eq!(kind(path, &linux).unwrap(), Kind::Linux);

        let mut multiboot = vec![0; 64];
        multiboot[16..20].copy_from_slice(&0x1BAD_B002u32.to_le_bytes());
        multiboot[20..24].copy_from_slice(&3u32.to_le_bytes());
        multiboot[24..28].copy_from_slice(&0x1BAD_B005u32.wrapping_neg().to_le_bytes());
        assert_eq!(kind(path, &multiboot).unwrap(), Kind::Multiboot);

        multiboot[20] = 7;
        assert!(kind(path, &multiboot).unwrap_err().to_string().contains("a/file"));
        assert!(kind(path, b"").is_err());
    }
}
