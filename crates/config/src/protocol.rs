//! What tools and image agree on beside the machine description.

/// Name of the boot module that holds the machine description.
pub const CONFIG_MODULE: &str = "nestling.toml";

/// What stands between a virtual machine's name and a line that it wrote, where several write to one console.
pub const LINE_MARK: &str = "| ";

/// The same for a part of a line: more of it follows, in the next line that begins with this name.
pub const PART_MARK: &str = "> ";

/// How the image's last log message begins: `end of run: status N: reason`, N being the exit status in decimal.
pub const END_OF_RUN: &str = "end of run: status ";

/// Exit status of a run that reached its time limit.
pub const STATUS_TIMEOUT: u8 = 124;

/// Exit status of a run in which Nestling refused to start, or failed.
pub const STATUS_REFUSED: u8 = 125;
