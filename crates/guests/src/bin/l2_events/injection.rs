//! Every kind of event, injected.

use guests::vmx::{Current, L2, equal};
use guests::{cpu, interrupts, println};
use vmcs::Access;
use vmcs::controls::PrimaryBased;
use vmcs::fields::{
    EXCEPTION_BITMAP, GUEST_ACTIVITY_STATE, GUEST_IDTR_LIMIT, GUEST_RFLAGS, GUEST_RIP, VM_ENTRY_EXCEPTION_ERROR_CODE,
    VM_ENTRY_INSTRUCTION_LEN, VM_ENTRY_INTERRUPTION_INFO,
};

use crate::{INTERRUPTS_ON, VECTOR, from, report};

const VALID: u32 = 1 << 31;
const ERROR: u32 = 1 << 11;

/// The interruption information of this type and vector.
pub(crate) const fn event(kind: u32, vector: u8) -> u32 {
    VALID | kind << 8 | vector as u32
}

/// Writes the fields of an event.
pub(crate) fn inject(info: u32, error: u32, length: u32) {
    let mut current = Current;
    current.write(VM_ENTRY_INTERRUPTION_INFO, info);
    current.write(VM_ENTRY_EXCEPTION_ERROR_CODE, error);
    current.write(VM_ENTRY_INSTRUCTION_LEN, length);
}

const EVENTS: [(&str, u32, u32, u32); 12] = [
    ("external interrupt", event(0, VECTOR), 0, 0),
    ("NMI", event(2, 2), 0, 0),
    ("#DE", event(3, 0), 0, 0),
    ("#UD", event(3, 6), 0, 0),
    ("#NP", event(3, 11) | ERROR, 0x18, 0),
    ("#GP", event(3, 13) | ERROR, 0x1234, 0),
    ("#PF", event(3, 14) | ERROR, 0x2, 0),
    ("#AC", event(3, 17) | ERROR, 0, 0),
    ("INT 50", event(4, VECTOR), 0, 2),
    ("INT1", event(5, 1), 0, 1),
    ("INT3", event(6, 3), 0, 1),
    ("INTO", event(6, 4), 0, 5),
];

pub(crate) fn all() {
    println!("injection");
    let l2 = &mut L2::new(|| {});
    let mut current = Current;
    for vector in [0, 1, 2, 3, 4, 6, 11, 13, 14, 17, VECTOR] {
        interrupts::handle(vector, report);
    }
    for (what, info, error, length) in EVENTS {
        if what == "NMI" {
            continue; // In `nmi`, where it is unblocked afterwards.
        }
        // Software events push the RIP behind the instruction they stand for; here there is none, so it begins that much
        // earlier.
        l2.restart(|| {});
        let start = current.read(GUEST_RIP);
        from(start);
        current.write(GUEST_RIP, start - u64::from(length));
        current.write(GUEST_RFLAGS, INTERRUPTS_ON);
        inject(info, error, length);
        println!(" {what}: {}", l2.run());
        equal("no longer valid", u64::from(current.read(VM_ENTRY_INTERRUPTION_INFO) & VALID), 0);
    }
    println!("injection into a guest that halts");
    l2.restart(|| {});
    from(current.read(GUEST_RIP));
    current.write(GUEST_RFLAGS, INTERRUPTS_ON);
    current.write(GUEST_ACTIVITY_STATE, 1);
    inject(event(0, VECTOR), 0, 0);
    println!(" {}", l2.run());
    equal("active", current.read(GUEST_ACTIVITY_STATE).into(), 0);

    println!("injection is not intercepted");
    current.write(EXCEPTION_BITMAP, 0xffff_ffff);
    l2.restart(|| {});
    inject(event(3, 13) | ERROR, 0x1234, 0);
    println!(" #GP: {}", l2.run());
    current.write(EXCEPTION_BITMAP, 0);
    for vector in [0, 1, 2, 3, 4, 6, 11, 13, 14, 17] {
        interrupts::forget(vector);
    }
    vectoring(l2);
    pending_mtf(l2);
    interrupts::forget(VECTOR);
}

/// An exception while an injected event is delivered: the IDT ends before its gate.
fn vectoring(l2: &mut L2) {
    println!("delivery of what is injected fails");
    let mut current = Current;
    current.write(EXCEPTION_BITMAP, 1 << 8 | 1 << 13);
    current.write(GUEST_IDTR_LIMIT, 0);
    for (what, info, error, length) in EVENTS {
        l2.restart(|| {});
        current.write(GUEST_RFLAGS, INTERRUPTS_ON);
        inject(info, error, length);
        println!(" {what}: {}", l2.run());
        current.write(GUEST_RIP, current.read(GUEST_RIP) + u64::from(length));
    }
    current.write(EXCEPTION_BITMAP, 0);
    l2.restart(|| {});
    inject(event(3, 6), 0, 0);
    println!(" #UD, nothing intercepted: {}", l2.run());
    current.write(EXCEPTION_BITMAP, 1 << 8);
    l2.restart(|| {});
    inject(event(3, 11) | ERROR, 0x18, 0);
    println!(" #NP, #DF intercepted: {}", l2.run());
    l2.restart(|| {});
    inject(event(3, 8) | ERROR, 0, 0);
    println!(" #DF: {}", l2.run());
    l2.reset(|| {});
}

/// A monitor-trap-flag exit as an event: SDM 3C 27.6.2 "Injection of Pending MTF VM Exits".
fn pending_mtf(l2: &mut L2) {
    println!("monitor trap flag");
    let mut current = Current;
    l2.restart(|| {});
    inject(event(7, 0), 0, 0);
    let start = current.read(GUEST_RIP);
    println!(" injected: {}", l2.run());
    equal("nothing was executed", current.read(GUEST_RIP), start);
    println!(" then: {}", l2.run());
    l2.control(|controls| controls.primary |= PrimaryBased::MONITOR_TRAP_FLAG);
    l2.restart(|| _ = cpu::cr2());
    for _ in 0..3 {
        let before = current.read(GUEST_RIP);
        println!(" control: {}", l2.run());
        equal("something was executed", u64::from(current.read(GUEST_RIP) != before), 1);
    }
    // After the delivery of an event, before the handler's first instruction.
    l2.restart(|| {});
    current.write(GUEST_RFLAGS, INTERRUPTS_ON);
    from(current.read(GUEST_RIP));
    inject(event(0, VECTOR), 0, 0);
    println!(" control, and an interrupt injected: {}", l2.run());
    equal("interrupts are off", current.read(GUEST_RFLAGS) & 0x200, 0);
    l2.control(|controls| controls.primary -= PrimaryBased::MONITOR_TRAP_FLAG);
    println!(" then: {}", l2.run());
}
