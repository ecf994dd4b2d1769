//! Where the tables are: the one thing this crate needs from outside.

use arch::HostPhys;

/// Number of entries in a table of any level.
pub const ENTRIES: usize = 512;

/// A source of 4-KiB frames that hold extended page tables, and access to the 512 entries of each.
///
/// Processors may walk the tables while they change: an implementation makes each `write` one 64-bit store, and keeps a
/// frame given to `free` out of use until the processors that ran with these tables have executed INVEPT.
pub trait Frames {
    /// A frame of zeros for one more table; `None` when there is no more memory for tables.
    fn allocate(&mut self) -> Option<HostPhys>;

    /// Entry `index` (below 512) of the table at `table`, which came from `allocate`.
    fn read(&self, table: HostPhys, index: usize) -> u64;

    /// Sets entry `index` (below 512) of the table at `table`, which came from `allocate`.
    fn write(&mut self, table: HostPhys, index: usize, entry: u64);

    /// Takes back a frame that came from `allocate`.
    fn free(&mut self, table: HostPhys);
}
