//! Where L1's memory is in the machine: what the tables that run L2 lead to.

use arch::{GuestPhys, HostPhys};

use crate::entry::{PageSize, Permissions};
use crate::tables::Mapping;

/// L1's RAM as the machine has it.
pub trait Backing {
    /// The memory behind L1's guest-physical address `at`; `None` where L1 has no RAM.
    ///
    /// While the answer for some address changes, no L2 may run with tables made from the old one:
    /// [`Shadows::invalidate_all`](crate::Shadows::invalidate_all).
    fn backing(&self, at: GuestPhys) -> Option<Backed>;
}

/// The memory behind one byte of L1's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backed {
    /// Where that byte is.
    pub host: HostPhys,
    /// The largest page around it that is RAM throughout, in one piece, and aligned on both sides.
    pub size: PageSize,
    /// What may be done with it without L0. Write permission implies read permission.
    pub permissions: Permissions,
}

impl From<Mapping> for Backed {
    /// The tables that run L1 know it all.
    fn from(mapping: Mapping) -> Self {
        Self { host: mapping.host, size: mapping.size, permissions: mapping.permissions }
    }
}
