//! Why a guest could not be loaded: for the user, one sentence that says what to do.

use core::fmt;

use arch::OutsideMemory;

const MIB: u64 = 1 << 20;

/// Why a guest could not be loaded. `Display` is one sentence for the user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum LoadError {
    /// The kernel file has no bytes.
    KernelEmpty,
    /// The kernel file is compressed as a whole.
    KernelCompressed {
        /// The program that compressed it.
        with: &'static str,
    },
    /// Neither a bzImage nor a multiboot1 kernel.
    KernelUnknown,
    /// An ELF file without a multiboot1 header.
    ElfWithoutMultiboot,
    /// The file ends before what its header announces.
    KernelTruncated {
        /// Bytes that the header announces.
        announced: u64,
        /// Bytes that the file has.
        found: u64,
    },
    /// A field of the kernel's header contradicts another, or the format.
    KernelHeader {
        /// What is wrong, as the end of a sentence "the kernel's ...".
        what: &'static str,
    },
    /// A bzImage older than boot protocol 2.06, or one that does not load at 1 MiB (zImage).
    LinuxTooOld {
        /// The protocol version: major in the high byte.
        version: u16,
    },
    /// The multiboot header requires something that this loader does not have.
    MultibootFlags {
        /// The bits of the header's flags that are not understood.
        unknown: u32,
    },
    /// A part of the kernel wants to be where the guest has no RAM.
    KernelOutsideRam {
        /// First byte of the part.
        start: u64,
        /// Byte after its last.
        end: u64,
    },
    /// More loadable segments than the loader keeps.
    TooManySegments,
    /// The guest's RAM below 4 GiB does not hold the kernel.
    TooLittleMemory {
        /// Bytes of RAM below 4 GiB that are needed, counted from 0.
        needed: u64,
        /// Bytes there are.
        available: u64,
    },
    /// The initrd does not fit between the kernel and the top of RAM that it may use.
    InitrdDoesNotFit {
        /// Its length in bytes.
        len: u64,
        /// Bytes there are for it.
        available: u64,
    },
    /// A module does not fit behind the kernel and the modules before it.
    ModuleDoesNotFit {
        /// Its number, from 0.
        index: u32,
        /// Its length in bytes.
        len: u64,
        /// Bytes there are for it.
        available: u64,
    },
    /// The command line is longer than the kernel takes.
    CommandLineTooLong {
        /// Its length in bytes.
        len: u64,
        /// What the kernel, or the room for boot information, takes.
        limit: u64,
    },
    /// A NUL in a command line would end it.
    NulInCommandLine,
    /// An initrd was given for a multiboot kernel.
    InitrdForMultiboot,
    /// Modules were given for Linux.
    ModulesForLinux,
    /// The memory layout is not one of a PC.
    Layout {
        /// What is wrong, as a clause.
        what: &'static str,
    },
    /// The guest's memory is smaller than the layout says: a mistake of the caller.
    OutsideMemory,
}

impl From<OutsideMemory> for LoadError {
    fn from(OutsideMemory: OutsideMemory) -> Self {
        Self::OutsideMemory
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::KernelEmpty => write!(f, "the kernel file is empty: give a Linux bzImage or a multiboot1 kernel"),
            Self::KernelCompressed { with } => write!(f, "the kernel file is compressed with {with}: unpack it first"),
            Self::KernelUnknown => {
                write!(f, "the kernel file is of an unknown kind: give a Linux bzImage or a multiboot1 kernel")
            }
            Self::ElfWithoutMultiboot => write!(
                f,
                "the kernel file is an ELF file without a multiboot1 header in its first 8 KiB: give a Linux bzImage \
                 (not vmlinux) or a multiboot1 kernel"
            ),
            Self::KernelTruncated { announced, found } => write!(
                f,
                "the kernel file is truncated, its header announces {announced} bytes and {found} are there: copy it \
                 again"
            ),
            Self::KernelHeader { what } => write!(f, "the kernel's {what}: build the kernel again"),
            Self::LinuxTooOld { version } => write!(
                f,
                "the Linux kernel has boot protocol {}.{:02} and 2.06 loaded at 1 MiB is needed: give a bzImage of \
                 Linux 2.6.22 or later",
                version >> 8,
                version & 0xff
            ),
            Self::MultibootFlags { unknown } => write!(
                f,
                "the kernel's multiboot1 header requires features {unknown:#x} that the loader does not have: build \
                 the kernel without them"
            ),
            Self::KernelOutsideRam { start, end } => write!(
                f,
                "the kernel wants to be loaded at {start:#x} to {end:#x} where the guest has no RAM: give the guest \
                 more memory or link the kernel between 1 MiB and the end of its memory"
            ),
            Self::TooManySegments => {
                write!(f, "the kernel has more loadable segments than the loader takes: link it with fewer")
            }
            Self::TooLittleMemory { needed, available } => write!(
                f,
                "the kernel needs {} MiB and the guest has {} MiB below 4 GiB: give the guest more memory",
                needed.div_ceil(MIB),
                available / MIB
            ),
            Self::InitrdDoesNotFit { len, available } => write!(
                f,
                "the initrd of {len} bytes does not fit into the {available} bytes that the kernel leaves: give the \
                 guest more memory"
            ),
            Self::ModuleDoesNotFit { index, len, available } => write!(
                f,
                "module {index} of {len} bytes does not fit into the {available} bytes that are left: give the guest \
                 more memory"
            ),
            Self::CommandLineTooLong { len, limit } => {
                write!(f, "the command line of {len} bytes is longer than the {limit} that fit: shorten it")
            }
            Self::NulInCommandLine => write!(f, "a command line has a NUL character in it: remove it"),
            Self::InitrdForMultiboot => {
                write!(f, "a multiboot kernel takes no initrd: give the file as a module")
            }
            Self::ModulesForLinux => write!(f, "a Linux kernel takes no modules: give the file as initrd"),
            Self::Layout { what } => write!(f, "the guest's memory or processors cannot be set up, {what}"),
            Self::OutsideMemory => {
                write!(f, "the guest's memory is smaller than its layout says: report this as an error of Nestling")
            }
        }
    }
}

impl core::error::Error for LoadError {}
