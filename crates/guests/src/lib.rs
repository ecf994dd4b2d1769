//! What the guests share.
#![no_std]
