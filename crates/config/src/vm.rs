//! The machine description as values, with its limits.

use heapless::{String, Vec};

/// Virtual machines in one description.
pub const MAX_VMS: usize = 4;
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
/// Most processors of a virtual machine.
pub const MAX_CPUS: u32 = 64;

/// A machine description: the virtual machines to run, at least one after a successful parse.
///
/// It is about 40 KiB: on a small stack keep it in a static and use [`Config::read`].
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Config {
    /// In the order of the text.
    pub vms: Vec<Vm, MAX_VMS>,
}

/// One virtual machine.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Vm {
    /// Its name in the log.
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
