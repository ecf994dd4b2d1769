//! What the boot loader says, whichever protocol it speaks.

use core::fmt;

use arch::HostPhys;
use heapless::{String, Vec};

use crate::memory::{MAX_RANGES, MemoryRange};
use crate::phys_memory::{PhysMemory, Unreadable};
use crate::{multiboot1, multiboot2};

/// Modules that a boot loader may bring.
pub const MAX_MODULES: usize = 32;
/// Bytes of a module's name.
pub const MAX_NAME: usize = 64;
/// Bytes of L0's own command line.
pub const MAX_COMMAND_LINE: usize = 1024;

/// What the boot loader told, owned: the loader's memory may be reused.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct BootInfo {
    /// The machine's memory as the firmware names it: unsorted, perhaps overlapping. See [`crate::MemoryMap`].
    pub memory: Vec<MemoryRange, MAX_RANGES>,
    /// Files that the loader put into memory, in the loader's order.
    pub modules: Vec<Module, MAX_MODULES>,
    /// L0's own command line.
    pub command_line: String<MAX_COMMAND_LINE>,
    /// A copy of the RSDP, 20 or 36 bytes, unchecked: from multiboot2 loaders; with the others it must be searched.
    pub rsdp: Option<Vec<u8, 36>>,
    /// The screen, if the loader set one up.
    pub framebuffer: Option<Framebuffer>,
    /// The loader's name; empty when it told none.
    pub boot_loader_name: String<MAX_NAME>,
}

/// A file that the loader put into memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// First byte.
    pub start: HostPhys,
    /// Length in bytes.
    pub len: u64,
    /// First word of the module's string, without folders before the file name. Loaders differ in whether the string
    /// starts with the file's path or with what the user wrote behind it; both may name the file.
    pub name: String<MAX_NAME>,
}

/// A linear framebuffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Framebuffer {
    /// Its first byte.
    pub address: HostPhys,
    /// Bytes from one line to the next.
    pub pitch: u32,
    /// Pixels in a line (characters in text mode).
    pub width: u32,
    /// Lines.
    pub height: u32,
    /// Bits of a pixel (16 in text mode).
    pub bits_per_pixel: u8,
    /// What a pixel means.
    pub kind: FramebufferKind,
}

/// How a framebuffer's contents are to be read: the numbers are the same in both multiboot versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum FramebufferKind {
    /// 0: pixels are numbers of colours in a palette.
    Indexed,
    /// 1: pixels are colours.
    Direct,
    /// 2: EGA text, two bytes a character.
    Text,
    /// Any other number.
    Other(u8),
}

impl FramebufferKind {
    pub(crate) const fn from_number(number: u8) -> Self {
        match number {
            0 => Self::Indexed,
            1 => Self::Direct,
            2 => Self::Text,
            other => Self::Other(other),
        }
    }
}

/// Why the boot loader's information cannot be used. `Display` is one sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum BootError {
    /// A structure ends before its last field, or an address in it cannot be read.
    Truncated {
        /// The structure.
        what: &'static str,
    },
    /// A size or range contradicts itself.
    Malformed {
        /// The structure.
        what: &'static str,
    },
    /// More of something than there is room for.
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there may be.
        limit: usize,
    },
    /// A text is too long.
    TextTooLong {
        /// Which.
        what: &'static str,
        /// Bytes it may have.
        limit: usize,
    },
    /// A text is not UTF-8.
    TextNotUtf8 {
        /// Which.
        what: &'static str,
    },
    /// The loader gave no memory map.
    NoMemoryMap,
}

impl fmt::Display for BootError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Truncated { what } => write!(f, "the boot loader's {what} is cut off: use another boot loader"),
            Self::Malformed { what } => write!(f, "the boot loader's {what} makes no sense: use another boot loader"),
            Self::TooMany { what, limit } => write!(f, "the boot loader gave more than {limit} {what}: give fewer"),
            Self::TextTooLong { what, limit } => write!(f, "the {what} is longer than {limit} bytes: shorten it"),
            Self::TextNotUtf8 { what } => write!(f, "the {what} is not UTF-8: write it in ASCII"),
            Self::NoMemoryMap => write!(f, "the boot loader gave no memory map: use another boot loader"),
        }
    }
}

impl core::error::Error for BootError {}

impl BootInfo {
    /// Reads a multiboot2 information structure. `bytes` starts with it and may go on behind it.
    ///
    /// # Errors
    /// A [`BootError`] when it is truncated or malformed, or does not fit.
    #[inline(never)]
    pub fn from_multiboot2(bytes: &[u8]) -> Result<Self, BootError> {
        multiboot2::parse(bytes)
    }

    /// Reads the multiboot1 information structure at `info_addr` with all it points to.
    ///
    /// # Errors
    /// A [`BootError`] when it is truncated or malformed, or does not fit.
    pub fn from_multiboot1(read: &impl PhysMemory, info_addr: HostPhys) -> Result<Self, BootError> {
        multiboot1::parse(read, info_addr)
    }

    /// The first module with this name; folders before the name count on neither side.
    pub fn module(&self, name: &str) -> Option<&Module> {
        self.modules.iter().find(|module| module.name.as_bytes() == file_name(name.as_bytes()))
    }

    /// Appends a module whose string is `string`.
    pub(crate) fn add_module(&mut self, start: u64, end: u64, string: &[u8]) -> Result<(), BootError> {
        let len = end.checked_sub(start).ok_or(BootError::Malformed { what: "module list" })?;
        let word = string.split(u8::is_ascii_whitespace).find(|word| !word.is_empty()).unwrap_or_default();
        let name = text(file_name(word), "name of a boot module")?;
        self.modules
            .push(Module { start: HostPhys(start), len, name })
            .map_err(|_| BootError::TooMany { what: "modules", limit: MAX_MODULES })
    }

    /// Appends a range of the memory map.
    pub(crate) fn add_memory(&mut self, range: MemoryRange) -> Result<(), BootError> {
        self.memory.push(range).map_err(|_| BootError::TooMany { what: "memory ranges", limit: MAX_RANGES })
    }

    /// Last step of both parsers: without memory there is nothing to do.
    pub(crate) fn finish(self) -> Result<Self, BootError> {
        if self.memory.is_empty() { Err(BootError::NoMemoryMap) } else { Ok(self) }
    }
}

/// `path` without the folders before the last slash.
fn file_name(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or(path)
}

/// The bytes up to the first NUL, as an owned string.
pub(crate) fn text<const N: usize>(bytes: &[u8], what: &'static str) -> Result<String<N>, BootError> {
    let text = core::str::from_utf8(until_nul(bytes)).map_err(|_| BootError::TextNotUtf8 { what })?;
    String::try_from(text).map_err(|_| BootError::TextTooLong { what, limit: N })
}

/// The bytes up to the first NUL.
pub(crate) fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// An address in a structure that cannot be read.
pub(crate) fn truncated(what: &'static str) -> impl Fn(Unreadable) -> BootError {
    move |Unreadable| BootError::Truncated { what }
}
