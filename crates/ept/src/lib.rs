//! Extended page tables as data: map, walk, unmap.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
