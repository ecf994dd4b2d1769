//! The six invariants of APIC virtualization with nested VMX, explored exhaustively and at random.
//!
//! Two vCPUs of one VM; each runs L1 or L2, and L1 passes its APIC through to L2. [`machine`] is the processor as the manual has
//! it: what a guest's access does follows from the current VMCS and the virtual-APIC page alone. [`oracle`] is an APIC on a
//! machine without any of this, written from the manual without looking at `vlapic`. [`system`] joins what is tested, which is
//! the real thing ([`crate::l1_apic`], [`crate::deferred_apicv`], [`vlapic::Inhibits`]), with the two, and checks after each event:
//!
//! 1. whenever L1 runs, vmcs01 equals what the model says, and the queue is empty;
//! 2. the APIC controls of vmcs02 are what vmcs12 asked for, throughout;
//! 3. SVI in vmcs01 is the highest vector in service if virtual-interrupt delivery is on, and 0 otherwise;
//! 4. after a change of mode or page nothing at 0xFEE00000 is mapped that was before: a store to the old page does nothing;
//! 5. submitting or draining twice changes nothing;
//! 6. no pending or in-service interrupt is lost or delivered twice.
//!
//! [`mistakes`] seeds what went wrong elsewhere back in, one at a time: each is found.

mod event;
mod explore;
mod invariants;
mod machine;
mod mistakes;
mod oracle;
mod state;
mod system;
