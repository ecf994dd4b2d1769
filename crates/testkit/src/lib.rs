//! Host only: fakes of the seams, and check helpers for the tests of the pure crates.
//!
//! - [`FakeVmcs`]: a VMCS in a map, with a valid 64-bit guest and host to start from.
//! - [`FakeMemory`]: the memory that VM entry looks at.
//! - [`boards`]: the machines of `boards/`, whose processors every choice of controls is tried on.
//! - [`capability_msrs`]: VMX capability MSRs of a processor that has every control.
//! - [`NestedBench`]: an L1 with VMX, between [`Ram`], [`FakeMsrs`] and a [`FakeProcessor`].
#![forbid(unsafe_code)]

mod boards;
mod capability_msrs;
mod fake_memory;
mod fake_msrs;
mod fake_processor;
mod fake_vmcs;
pub mod nested_bench;
pub mod ram;

pub use boards::{Board, boards};
pub use capability_msrs::capability_msrs;
pub use fake_memory::FakeMemory;
pub use fake_msrs::FakeMsrs;
pub use fake_processor::{FakeProcessor, Flush, SHADOW_VMCS, TableFrames};
pub use fake_vmcs::FakeVmcs;
pub use nested_bench::NestedBench;
pub use ram::Ram;
