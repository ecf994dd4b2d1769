//! Host only: fakes of the seams, and check helpers for the tests of the pure crates.
#![forbid(unsafe_code)]
