//! The virtual-machine control structure as data: fields, controls, capabilities, exits, events, checks, dump.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
