//! How much of the APIC the processor does by itself, and what the VMCS must say for it.
//!
//! SDM 3C chapter 30 "APIC Virtualization and Virtual Interrupts". [`Inhibits`] knows why the VM must do without,
//! [`Assist`] follows from the mode and from that, [`Apicv`] is what vmcs01 must hold, and [`VirtualApicPage`] is where
//! the registers live while the processor works on them. Nothing here knows what a VMCS is.

mod assist;
mod inhibits;
mod page;

pub use assist::{Apicv, Assist, Hardware};
pub use inhibits::{Inhibits, Reason};
pub(crate) use page::Stale;
pub use page::VirtualApicPage;
