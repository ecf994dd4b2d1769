//! The machine description that the host tools write and the image reads, and what else the two agree on.
//!
//! [`Config`] is the text of `nestling.toml`, a boot module: TOML, of which tables `[[vm]]` with these keys are taken:
//!
//! ```toml
//! [[vm]]
//! name = "linux"                       # for log and console: letters, digits, - and _; no two alike
//! kernel = "vmlinuz"                   # a boot module: Linux bzImage or multiboot1 kernel
//! initrd = "initrd.img"                # a boot module; Linux only
//! modules = [{ file = "disk", command-line = "disk root" }]   # boot modules; multiboot1 only
//! command-line = "console=ttyS0"       # without the kernel's name
//! memory-mib = 512
//! cpus = 1
//! weight = 1                           # share of each of its processors against others' on the same one
//! pin = [0, 1]                         # the machine's processors on which it may run
//! exclusive = false                    # nobody else runs on those
//! nested = true                        # it may be a hypervisor: it sees VMX
//! console = "shared"                   # or "com1" to "com4": a port of its own; or "none"
//! ```
//!
//! `name` and `memory-mib` must be there; the others may be absent, and without a kernel the guest runs that the image carries.
//! A person may edit it on the boot medium, so every mistake is an error that names its line and key. [`Config::read_for`] also
//! judges it by the machine that it shall run on. [`ImageOptions`] is the image's own command line, and [`protocol`] has the
//! words by which tools understand the image.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

pub mod error;
mod machine;
pub mod options;
mod parse;
pub mod protocol;
mod scan;
pub mod vm;
mod write;

#[cfg(test)]
mod tests;

pub use error::{ConfigError, ErrorKind};
pub use machine::Machine;
pub use options::{End, ImageOptions, OptionsError, SelfTest, SerialPort};
pub use protocol::{CONFIG_MODULE, END_OF_RUN, STATUS_REFUSED, STATUS_TIMEOUT};
pub use vm::{Config, Console, ModuleEntry, Vm};
