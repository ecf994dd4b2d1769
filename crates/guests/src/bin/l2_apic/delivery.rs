//! When L2 takes a virtual interrupt. SDM 3C 30.2 "Evaluation and Delivery of Virtual Interrupts".

use core::sync::atomic::{AtomicU64, Ordering};

use arch::apic::Register;
use guests::vmx::Current;
use guests::{cpu, interrupts, memory, println};
use vmcs::Access;
use vmcs::controls::{PinBased, PrimaryBased, SecondaryBased};
use vmcs::fields::{
    GUEST_INTERRUPT_STATUS, GUEST_INTERRUPTIBILITY_INFO, GUEST_RFLAGS, GUEST_RIP, VM_ENTRY_INTERRUPTION_INFO,
};

use crate::{Guest, at};

/// RFLAGS with interrupts off and on.
const OFF: u64 = 2;
const ON: u64 = 0x202;
/// Blocking by STI, and by MOV SS.
const BY_STI: u32 = 1;
const BY_MOV_SS: u32 = 2;

/// Where L2 begins.
static START: AtomicU64 = AtomicU64::new(0);

/// An L2 for which the processor delivers interrupts.
pub(crate) fn guest() -> Option<Guest> {
    Guest::with(|controls| {
        controls.pin |= PinBased::EXTERNAL_INTERRUPT_EXITING;
        controls.secondary |= SecondaryBased::VIRTUALIZE_APIC_ACCESSES
            | SecondaryBased::APIC_REGISTER_VIRTUALIZATION
            | SecondaryBased::VIRTUAL_INTERRUPT_DELIVERY;
    })
}

impl Guest {
    /// Lets L2 run `code` with these flags and this blocking.
    fn run_with(&mut self, what: &str, flags: u64, blocking: u32, code: fn()) {
        let mut current = Current;
        self.l2.restart(code);
        START.store(current.read(GUEST_RIP), Ordering::Relaxed);
        current.write(GUEST_RFLAGS, flags);
        current.write(GUEST_INTERRUPTIBILITY_INFO, blocking);
        println!(" {what}: {}", self.l2.run());
        println!("  {}", self.apic);
    }
}

/// L2 ends the interrupt in service.
pub(crate) fn end() {
    memory::write_register(at(Register::EOI), 0);
}

pub(crate) fn all() {
    println!("virtual interrupts");
    let Some(mut guest) = guest() else { return };
    let guest = &mut guest;
    for vector in [0x50, 0x61, 0x62, 0x65] {
        interrupts::handle(vector, |frame| {
            let first = frame.rip == START.load(Ordering::Relaxed);
            println!("  L2 takes {:x} {} its first instruction", frame.vector, if first { "before" } else { "after" });
            end();
        });
    }
    let mut current = Current;
    for (what, flags, blocking) in [
        ("interrupts on", ON, 0),
        ("interrupts off", OFF, 0),
        ("blocked by STI", ON, BY_STI),
        ("blocked by MOV SS", ON, BY_MOV_SS),
    ] {
        guest.apic.set(0x61, 0);
        guest.run_with(what, flags, blocking, || {});
    }
    guest.apic.set(0x61, 0);
    guest.run_with("let in by STI", OFF, 0, cpu::take_interrupts);
    for (vtpr, code) in
        [(0x5f, (|| {}) as fn()), (0x60, || {}), (0x6f, || cpu::write_cr8(5)), (0x6f, || cpu::write_cr8(6))]
    {
        guest.apic.set(0x61, 0);
        guest.apic.write(Register::TPR, vtpr);
        println!(" task priority {vtpr:x}");
        guest.run_with("interrupts on", ON, 0, code);
    }
    for (requested, in_service, code) in
        [(0x65, 0x62, (|| {}) as fn()), (0x65, 0x50, || {}), (0x65, 0x62, end), (0x50, 0x62, end)]
    {
        guest.apic.set(requested, in_service);
        println!(" {requested:x} requested, {in_service:x} in service");
        guest.run_with("interrupts on", ON, 0, code);
    }
    // In service are more than SVI says, and requested are more than RVI says: the processor believes the two.
    guest.apic.set(0x61, 0);
    current.write(GUEST_INTERRUPT_STATUS, 0);
    guest.run_with("requested, but RVI is 0", ON, 0, || {});
    guest.apic.set(0, 0);
    current.write(GUEST_INTERRUPT_STATUS, 0x61);
    guest.run_with("RVI without a request", ON, 0, || {});

    println!("virtual interrupts and others");
    guest.l2.control(|controls| controls.primary |= PrimaryBased::INTERRUPT_WINDOW_EXITING);
    guest.apic.set(0x61, 0);
    guest.run_with("window", ON, 0, || {});
    guest.l2.control(|controls| controls.primary -= PrimaryBased::INTERRUPT_WINDOW_EXITING);
    guest.apic.set(0x61, 0);
    interrupts::handle(0x70, |frame| println!("  L2 takes {:x}, which was injected", frame.vector));
    current.write(VM_ENTRY_INTERRUPTION_INFO, 0x8000_0070);
    guest.run_with("an interrupt injected", ON, 0, || {});
    for vector in [0x50, 0x61, 0x62, 0x65, 0x70] {
        interrupts::forget(vector);
    }
}
