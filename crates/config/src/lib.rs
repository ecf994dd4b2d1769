//! The machine description that the host tools write and the image reads, and what else the two agree on.
//!
//! [`Config`] is the text of `nestling.toml`, a boot module: TOML, of which tables `[[vm]]` with these keys are taken:
//!
//! ```toml
//! [[vm]]
//! name = "linux"                       # for the log; no two alike
//! kernel = "vmlinuz"                   # a boot module: Linux bzImage or multiboot1 kernel
//! initrd = "initrd.img"                # a boot module; Linux only
//! modules = [{ file = "disk", command-line = "disk root" }]   # boot modules; multiboot1 only
//! command-line = "console=ttyS0"       # without the kernel's name
//! memory-mib = 512
//! cpus = 1
//! ```
//!
//! `name`, `kernel` and `memory-mib` must be there; the others may be absent. A person may edit it on the boot medium,
//! so every mistake is an error that names its line and key. [`ImageOptions`] is the image's own command line, and
//! [`protocol`] has the words by which tools understand the image.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

pub mod error;
pub mod options;
mod parse;
pub mod protocol;
mod scan;
pub mod vm;
mod write;

#[cfg(test)]
mod tests;

pub use error::{ConfigError, ErrorKind};
pub use options::{End, ImageOptions, OptionsError, SelfTest, SerialPort};
pub use protocol::{CONFIG_MODULE, END_OF_RUN, STATUS_REFUSED, STATUS_TIMEOUT};
pub use vm::{Config, ModuleEntry, Vm};
