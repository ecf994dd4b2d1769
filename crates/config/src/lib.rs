//! The machine description that the host tools write and the image reads.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
