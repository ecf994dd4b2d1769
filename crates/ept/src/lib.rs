//! Extended page tables as data: map, unmap, walk, and the tables of a guest's guest.
//!
//! The tables live in frames that the caller hands out ([`Frames`]); everything here is arithmetic on their entries.
//!
//! - [`entry`]: what one entry says: permissions, memory type, page size.
//! - [`tables`]: [`Ept`], the tables of one guest: map with the largest pages that fit, split, unmap, release.
//! - [`walk`]: translation of one address with every misconfiguration rule of the manual, over any source of entries, so
//!   that the tables which a guest hypervisor wrote can be walked by the same code as ours.
//!
//! L2 runs with tables (EPT02) that combine those that L1 wrote for it (EPT12) with where L1's memory is in the machine:
//!
//! - [`guest_walk`]: [`Ept12`]: what L1's tables say, and their accessed and dirty flags; [`pml`]: L1's log of dirty pages.
//! - [`violation`]: an access of L2, and the exit that L1 gets where its tables do not allow it.
//! - [`backing`]: the seam to L1's memory in the machine.
//! - [`cache`]: [`Shadows`]: the EPT02s of a vCPU, filled by violations, dropped by L1's INVEPT; [`pool`]: their frames.
//! - [`l2_memory`]: L2's memory through L1's tables, for the emulator.
//!
//! Source: SDM 3C, 29.3 "The Extended Page Table Mechanism (EPT)".
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

pub mod backing;
pub mod cache;
pub mod entry;
pub mod frames;
pub mod guest_walk;
pub mod l2_memory;
pub mod pml;
pub mod pool;
mod shadow;
pub mod tables;
pub mod violation;
pub mod walk;

pub use backing::{Backed, Backing};
pub use cache::{Resolved, Selected, Shadows};
pub use entry::{Entry, MemoryType, PageSize, Permissions};
pub use frames::Frames;
pub use guest_walk::{Ept12, Translation};
pub use l2_memory::L2Memory;
pub use pml::ModificationLog;
pub use pool::Pool;
pub use tables::{Ept, Invalidation, MapError, Mapping};
pub use violation::{Access, Denied, Violation};
pub use walk::{Leaf, Miss, Rules};
