//! Instructions of a guest that touch device memory, and string port I/O.
//!
//! | question | file |
//! |---|---|
//! | what happens to the instruction that exited | [`execute`], `strings.rs` |
//! | INS and OUTS | [`string_io`] |
//! | operands of instructions that L0 executes | `explicit.rs` |
//! | which instructions, and how they are encoded | [`decode`], `prefix.rs`, `modrm.rs`, [`operand`] |
//! | linear to guest-physical | [`walk`], `page_entry.rs`; a 64-bit kernel's data: `quick.rs` |
//! | segment and offset to linear | `segment.rs` |
//! | device, RAM or both | [`place`] |
//! | flags | `arithmetic.rs` |
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

mod arithmetic;
pub mod decode;
pub mod execute;
mod explicit;
mod fetch;
mod modrm;
pub mod operand;
pub mod outcome;
mod page_entry;
pub mod place;
mod prefix;
mod quick;
pub mod registers;
mod segment;
pub mod string_io;
pub mod strings;
pub mod walk;

pub use execute::access;
pub use explicit::{read_operand, write_operand};
pub use operand::CodeSize;
pub use outcome::{Done, Failure};
pub use place::Device;
pub use quick::Remembered;
pub use registers::{Kernel, Registers};
pub use string_io::{IoString, Ports, string_io};
pub use walk::{AccessKind, Paging, Translation, translate};
