//! The machine: the only crate with `asm!`.
//!
//! Each module is one thing of the machine. Bring-up order (the `image` crate does it): [`boot`] enters 64-bit mode;
//! [`percpu`] gives the boot processor its GS base; [`idt`] and [`gdt`]; [`frames`] takes the free memory; [`paging`]
//! builds the page tables; [`apic`] and [`smp`] start the other processors; [`vmx`] enters VMX root on each.
//!
//! Rules of this crate: interrupts are disabled everywhere but within [`halt`] and [`interrupts`]; floating-point and vector
//! registers hold a guest's values and are never touched; one unsafe operation a block, each with its reason.
#![no_std]

pub mod apic;
pub mod boot;
pub mod cmos;
pub mod control;
pub mod cpuid;
pub mod delay;
pub mod enter;
pub mod framebuffer;
pub mod frames;
pub mod gdt;
pub mod guest_state;
pub mod halt;
pub mod idt;
pub mod interrupts;
mod invalidate;
pub mod layout;
pub mod lock;
pub mod msr;
pub mod paging;
pub mod percpu;
pub mod physmem;
pub mod pic;
pub mod port;
pub mod power;
pub mod smp;
pub mod stacks;
pub mod tsc;
pub mod uart;
pub mod vmx;
pub mod watchdog;
