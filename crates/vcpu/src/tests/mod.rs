//! The run loop and the handlers on a processor that plays scripts.

mod boards;
mod events;
mod fake_world;
mod fakes;
mod instructions;
mod l2_done_by_l0;
mod l2_entry;
mod l2_events;
mod lost_rip;
mod posted_interrupts;
mod posted_to_processor;
mod vmx_operands;
