//! Extended page tables as data: map, unmap, walk.
//!
//! The tables live in frames that the caller hands out ([`Frames`]); everything here is arithmetic on their entries.
//!
//! - [`entry`]: what one entry says: permissions, memory type, page size.
//! - [`tables`]: [`Ept`], the tables of one guest: map with the largest pages that fit, split, unmap, release.
//! - [`walk`]: translation of one address with every misconfiguration rule of the manual, over any source of entries, so
//!   that the tables which a guest hypervisor wrote can be walked by the same code as ours.
//!
//! Source: SDM 3C, 29.3 "The Extended Page Table Mechanism (EPT)".
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

pub mod entry;
pub mod frames;
pub mod tables;
pub mod walk;

pub use entry::{Entry, MemoryType, PageSize, Permissions};
pub use frames::Frames;
pub use tables::{Ept, Invalidation, MapError, Mapping};
pub use walk::{Leaf, Miss, Rules};
