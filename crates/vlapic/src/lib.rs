//! Local-APIC virtualization: registers, priorities, timer, IPIs, the mailbox between processors.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
