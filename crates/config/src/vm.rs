//! The machine description as values, with its limits.

use heapless::{String, Vec};

use crate::SerialPort;

/// Virtual machines in one description.
pub const MAX_VMS: usize = 8;
/// Modules of one virtual machine.
pub const MAX_MODULES: usize = 8;
/// Bytes of a virtual machine's name.
pub const MAX_NAME: usize = 32;
/// Bytes of a boot module's name, folders included.
pub const MAX_FILE: usize = 128;
/// Bytes of a kernel's command line.
pub const MAX_COMMAND_LINE: usize = 4096;
/// Bytes of a module's command line.
pub const MAX_MODULE_COMMAND_LINE: usize = 512;
/// Least memory of a virtual machine in MiB: a PC has some above 1 MiB.
pub const MIN_MEMORY_MIB: u32 = 2;
/// Most memory of a virtual machine in MiB: 4 TiB.
pub const MAX_MEMORY_MIB: u32 = 1 << 22;
/// Most processors of a virtual machine, and of all of them together.
pub const MAX_CPUS: u32 = 64;
/// The greatest weight.
pub const MAX_WEIGHT: u32 = 1000;
/// The greatest number of a processor of the machine.
pub const MAX_PROCESSOR: u32 = 63;

/// A machine description: the virtual machines to run, at least one after a successful parse.
///
/// It is about 80 KiB: on a small stack keep it in a static and use [`Config::read`].
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Config {
    /// In the order of the text.
    pub vms: Vec<Vm, MAX_VMS>,
}

/// One virtual machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vm {
    /// Its name in the log and on the console: letters, digits, `-` and `_`.
    pub name: String<MAX_NAME>,
    /// Boot module with the kernel; none runs the guest that is embedded in the image.
    pub kernel: Option<String<MAX_FILE>>,
    /// The first word of a multiboot kernel's command line: by custom the file's name as the user gave it. Absent in the
    /// text, it is `kernel`.
    pub kernel_name: String<MAX_MODULE_COMMAND_LINE>,
    /// Boot module with the initial RAM disk.
    pub initrd: Option<String<MAX_FILE>>,
    /// Multiboot modules, in order.
    pub modules: Vec<ModuleEntry, MAX_MODULES>,
    /// The kernel's command line without the kernel's name.
    pub command_line: String<MAX_COMMAND_LINE>,
    /// Memory in MiB, from [`MIN_MEMORY_MIB`] to [`MAX_MEMORY_MIB`].
    pub memory_mib: u32,
    /// Virtual processors, from 1 to [`MAX_CPUS`].
    pub cpus: u32,
    /// The share of each of its virtual processors against others' on the same processor, from 1 to [`MAX_WEIGHT`]. The heaviest there
    /// run for up to 10 ms at a time, others as much shorter as they weigh less.
    pub weight: u32,
    /// The machine's processors on which it may run, a bit each; none for all that nobody has for himself.
    pub pin: Option<u64>,
    /// Nobody else runs on the processors of `pin`.
    pub exclusive: bool,
    /// Whether it may be a hypervisor itself: it sees VMX.
    pub nested: bool,
    /// Where its COM1 comes out.
    pub console: Console,
}

/// Where a virtual machine's COM1 comes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Console {
    /// On the image's console port, in lines with its name before them when there are several machines.
    #[default]
    Shared,
    /// On a serial port of its own, byte by byte.
    Port(SerialPort),
    /// Nowhere.
    None,
}

impl Default for Vm {
    /// What the keys that are absent mean.
    fn default() -> Self {
        Self {
            name: String::new(),
            kernel: None,
            kernel_name: String::new(),
            initrd: None,
            modules: Vec::new(),
            command_line: String::new(),
            memory_mib: 0,
            cpus: 1,
            weight: 1,
            pin: None,
            exclusive: false,
            nested: true,
            console: Console::Shared,
        }
    }
}

/// A module that a multiboot kernel gets.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct ModuleEntry {
    /// The boot module with its contents.
    pub file: String<MAX_FILE>,
    /// What the guest is told about it: by custom a file name, a space, and arguments. Absent in the text, it is `file`.
    pub command_line: String<MAX_MODULE_COMMAND_LINE>,
}

impl Config {
    /// A description without virtual machines.
    pub const fn new() -> Self {
        Self { vms: Vec::new() }
    }

    /// The virtual machine with this name.
    pub fn vm(&self, name: &str) -> Option<&Vm> {
        self.vms.iter().find(|vm| vm.name == name)
    }
}
