//! External interrupts: SDM 3C 26.2 "Other Causes of VM Exits", 28.1 "Architectural State Before a VM Exit".

use arch::apic::Register;
use guests::vmx::{Current, equal};
use guests::{apic, cpu, interrupts, println};
use vmcs::Access;
use vmcs::controls::{ExitControls, PinBased, PrimaryBased};
use vmcs::fields::{GUEST_ACTIVITY_STATE, GUEST_RFLAGS, GUEST_RIP};

use crate::injection::{event, inject};
use crate::{INTERRUPTS_ON, VECTOR, from, report};

/// Ticks of the APIC timer until L2 is asleep for certain.
const LATER: u32 = 200_000;

/// Sends the vector to this processor.
fn raise() {
    apic::write(Register::ICR, 0x4_4000 | u32::from(VECTOR));
}

fn in_service() -> u64 {
    apic::bit(Register::ISR, VECTOR).into()
}

fn requested() -> u64 {
    apic::bit(Register::IRR, VECTOR).into()
}

/// Takes the pending interrupt in L1.
fn take() {
    interrupts::handle(VECTOR, |frame| {
        println!("  L1 takes vector {}", frame.vector);
        apic::eoi();
    });
    cpu::take_interrupts();
    interrupts::forget(VECTOR);
}

pub(crate) fn all() {
    println!("external interrupts");
    let l2 = &mut crate::l2_with_msrs();
    let mut current = Current;
    l2.control(|controls| controls.pin |= PinBased::EXTERNAL_INTERRUPT_EXITING);
    for (what, activity) in [("active", 0), ("in HLT", 1)] {
        raise();
        l2.restart(|| {});
        let start = current.read(GUEST_RIP);
        current.write(GUEST_RFLAGS, INTERRUPTS_ON);
        current.write(GUEST_ACTIVITY_STATE, activity);
        println!(" pending, {what}: {}", l2.run());
        equal("before the first instruction", current.read(GUEST_RIP), start);
        equal("requested still", requested(), 1);
        take();
    }
    // The event that was injected is delivered before.
    raise();
    l2.restart(|| {});
    current.write(GUEST_RFLAGS, INTERRUPTS_ON);
    inject(event(4, 0x60), 0, 0x2);
    interrupts::handle(0x60, report);
    println!(" pending, an event injected: {}", l2.run());
    equal("delivered: interrupts are off", current.read(GUEST_RFLAGS) & 0x200, 0);
    take();
    from(current.read(GUEST_RIP));
    interrupts::forget(0x60);

    // L1's own interrupts are off all the time: what wakes L2 is not for L1's RFLAGS to say.
    println!("while L2 halts");
    for (what, activity) in [("HLT in L2", 0), ("entered in HLT", 1)] {
        l2.restart(|| {
            // SAFETY: the interrupt exits.
            unsafe { core::arch::asm!("hlt") };
        });
        current.write(GUEST_RFLAGS, INTERRUPTS_ON);
        current.write(GUEST_ACTIVITY_STATE, activity);
        apic::write(Register::LVT_TIMER, VECTOR.into());
        apic::write(Register::INITIAL_COUNT, LATER);
        println!(" {what}: {}", l2.run());
        take();
    }
    apic::write(Register::LVT_TIMER, apic::MASKED);

    println!("sent by L2");
    l2.restart(raise);
    current.write(GUEST_RFLAGS, INTERRUPTS_ON);
    println!(" {}", l2.run());
    take();
    println!(" then: {}", l2.run());

    println!("acknowledged on exit");
    l2.control(|controls| controls.exit |= ExitControls::ACKNOWLEDGE_INTERRUPT_ON_EXIT);
    raise();
    l2.restart(|| {});
    current.write(GUEST_RFLAGS, INTERRUPTS_ON);
    println!(" {}", l2.run());
    equal("in service", in_service(), 1);
    equal("not requested", requested(), 0);
    apic::eoi();
    equal("EOI ends it", in_service(), 0);
    println!(" then: {}", l2.run());

    println!("L2's own");
    l2.control(|controls| {
        controls.pin -= PinBased::EXTERNAL_INTERRUPT_EXITING;
        controls.exit -= ExitControls::ACKNOWLEDGE_INTERRUPT_ON_EXIT;
    });
    interrupts::handle(VECTOR, |frame| {
        report(frame);
        apic::eoi();
    });
    raise();
    l2.restart(|| {});
    from(current.read(GUEST_RIP));
    current.write(GUEST_RFLAGS, INTERRUPTS_ON);
    println!(" interrupts on: {}", l2.run());
    interrupts::handle(VECTOR, |frame| {
        println!("  L2 takes vector {}", frame.vector);
        apic::eoi();
    });
    raise();
    l2.restart(|| {
        println!("  L2 lets it in");
        cpu::take_interrupts();
    });
    println!(" interrupts off at first: {}", l2.run());
    // HLT with a pending interrupt that wakes it.
    l2.control(|controls| controls.primary -= PrimaryBased::HLT_EXITING);
    l2.restart(|| {
        raise();
        cpu::wait_for_interrupt();
    });
    interrupts::handle(VECTOR, |_| {
        println!("  L2 was woken");
        apic::eoi();
    });
    println!(" HLT: {}", l2.run());
    interrupts::forget(VECTOR);
}
