//! The virtual-machine control structure as data: fields, controls, capabilities, exits, events, checks, dump.
//!
//! - Which fields there are, each typed once: [`fields`]; what a field is: [`field`]; how one VMCS is read and written:
//!   [`Access`].
//! - The control words: [`controls`]; what the processor offers of them and how a word is chosen: [`capabilities`].
//! - Why the guest stopped: [`Exit::read`]; events in and out: [`EventInfo`].
//! - Why a VMX instruction failed: [`InstructionError`]; which rule a failed entry broke: [`checks`]; everything a
//!   VMCS says: [`mod@dump`].
//!
//! Nothing here executes an instruction. Sources: Intel SDM, edition named in ARCHITECTURE.md.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

mod access;
pub mod capabilities;
pub mod checks;
mod choose;
pub mod controls;
pub mod dump;
mod ept_vpid;
mod event;
pub mod exit;
mod exit_reason;
pub mod field;
pub mod fields;
mod instruction_error;
pub mod instruction_info;
pub mod qualification;

pub use access::Access;
pub use capabilities::{Allowed, Capabilities, Choice, EptVpid, MissingControls};
pub use event::{EventInfo, EventKind};
pub use exit::{Exit, VmxInstruction};
pub use exit_reason::ExitReason;
pub use field::{Encoding, Field, FieldInfo};
pub use instruction_error::InstructionError;
pub use instruction_info::InstructionInfo;
