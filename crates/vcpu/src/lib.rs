//! One virtual CPU: run loop, exit handlers, event injection, INIT and SIPI.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
