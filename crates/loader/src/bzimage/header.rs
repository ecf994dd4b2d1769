//! The setup header of a Linux bzImage (Linux Documentation/arch/x86/boot.rst "The Real-Mode Kernel Header").

use core::ops::Range;

use crate::bytes::{u16_at, u32_at, u64_at};
use crate::error::LoadError;

/// The setup header begins here, in the file and in the zero page.
pub const START: usize = 0x1f1;
/// The setup header ends here at the latest: the zero page has something else behind.
pub const END_LIMIT: usize = 0x290;
/// Offset of the magic "HdrS".
const MAGIC: usize = 0x202;
/// Oldest boot protocol that can be loaded: the first to say how long a command line may be.
const OLDEST: u16 = 0x0206;
/// Unit of the code's size.
const PARAGRAPH: u64 = 16;
/// loadflags: the protected-mode code is loaded at 1 MiB (bzImage).
const LOADED_HIGH: u8 = 1 << 0;

/// Whether `file` is a Linux kernel image of the x86 boot protocol, of any version.
pub fn is_linux(file: &[u8]) -> bool {
    u16_at(file, 0x1fe) == Some(0xaa55) && file.get(MAGIC..MAGIC + 4) == Some(b"HdrS")
}

/// What the loader needs of a bzImage's setup header, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetupHeader {
    /// Boot protocol version, major in the high byte.
    pub version: u16,
    /// Where the setup header lies in the file: it is copied into the zero page at the same offset.
    pub header: Range<usize>,
    /// Where the protected-mode code lies in the file.
    pub code: Range<usize>,
    /// Highest address that the initrd's last byte may have.
    pub initrd_addr_max: u32,
    /// Longest command line in bytes, without its NUL.
    pub command_line_max: u32,
    /// Address to load the code at.
    pub load_addr: u64,
    /// Address after the last byte that the kernel needs before it looks at the memory map.
    pub run_end: u64,
}

impl SetupHeader {
    /// Reads the header of `file`.
    ///
    /// # Errors
    /// [`LoadError::LinuxTooOld`], [`LoadError::KernelTruncated`], [`LoadError::KernelHeader`].
    pub fn of(file: &[u8]) -> Result<Self, LoadError> {
        // Every field below lies before END_LIMIT: a file that is long enough for it has them all.
        let cut = LoadError::KernelTruncated { announced: END_LIMIT as u64, found: file.len() as u64 };
        if file.len() < END_LIMIT {
            return Err(cut);
        }
        let byte = |offset: usize| file[offset];
        let dword = |offset| u32_at(file, offset).ok_or(cut);
        let version = u16_at(file, 0x206).ok_or(cut)?;
        if version < OLDEST || byte(0x211) & LOADED_HIGH == 0 {
            return Err(LoadError::LinuxTooOld { version });
        }

        // "setup_sects ... if this field contains 0, the real value is 4"; the boot sector counts extra.
        let setup_sects = if byte(START) == 0 { 4 } else { usize::from(byte(START)) };
        let code_start = (setup_sects + 1) * 512;
        let code_len = u64::from(dword(0x1f4)?) * PARAGRAPH;
        let announced = code_start as u64 + code_len;
        // The size counts 16-byte paragraphs, and not every build pads the file to a whole one.
        if file.len() as u64 + PARAGRAPH <= announced {
            return Err(LoadError::KernelTruncated { announced, found: file.len() as u64 });
        }
        let code_end = usize::try_from(announced).map_or(file.len(), |end| end.min(file.len()));
        if code_len == 0 {
            return Err(LoadError::KernelHeader { what: "setup header announces no code" });
        }
        // The byte before the magic is the offset of a short jump over the header.
        let header_end = MAGIC + usize::from(byte(0x201));
        let header = START..header_end.min(END_LIMIT);

        // Before 2.10 there is no preferred address and no size; the code then runs where it was loaded.
        let (preferred, init_size) = if version >= 0x020a {
            (u64_at(file, 0x258).ok_or(cut)?, u64::from(dword(0x260)?))
        } else {
            (0x10_0000, 0)
        };
        if !(0x10_0000..1 << 32).contains(&preferred) {
            return Err(LoadError::KernelHeader { what: "setup header prefers an address outside of 1 MiB to 4 GiB" });
        }
        let relocatable = byte(0x234) != 0;
        let load_addr = if relocatable { preferred } else { 0x10_0000 };
        // The code may unpack itself where it prefers to be although it was loaded at 1 MiB.
        let run_end = (load_addr + code_len).max(preferred + init_size);
        Ok(Self {
            version,
            header,
            code: code_start..code_end,
            initrd_addr_max: dword(0x22c)?,
            command_line_max: dword(0x238)?,
            load_addr,
            run_end,
        })
    }
}
