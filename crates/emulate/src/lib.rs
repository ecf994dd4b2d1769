//! Instructions of a guest that touch device memory: page walk, fetch, decode, execute.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
