//! Debug exceptions of an L2, and those that are pending when it is entered: SDM 3C 27.7.3 "Delivery of Pending Debug Exceptions
//! after VM Entry", 28.3.4 "Saving Non-Register State".

use core::arch::asm;

use guests::vmx::{Current, L2, equal};
use guests::{cpu, expect_fault, println};
use vmcs::Access;
use vmcs::controls::EntryControls;
use vmcs::fields::{
    EXCEPTION_BITMAP, GUEST_DR7, GUEST_INTERRUPTIBILITY_INFO, GUEST_PENDING_DBG_EXCEPTIONS, GUEST_RFLAGS, GUEST_RIP,
};

const TRAP: u64 = 1 << 8;
/// Pending: a single step.
const BS: u64 = 1 << 14;
/// Pending: breakpoint 0, which was enabled.
const B0: u64 = 1 << 12 | 1;

static CELL: core::sync::atomic::AtomicU64 = core::sync::atomic::AtomicU64::new(0);

pub(crate) fn all() {
    println!("debug exceptions");
    let l2 = &mut L2::new(|| {});
    let mut current = Current;
    current.write(EXCEPTION_BITMAP, 1 << 1);
    let step = || {
        // SAFETY: the trap exits.
        unsafe { asm!("pushfq", "or qword ptr [rsp], 0x100", "popfq", "nop", "nop") };
    };
    l2.restart(step);
    cpu::write_dr6(0xffff_0ff0);
    println!(" a single step: {}", l2.run());
    equal("nothing is pending", current.read(GUEST_PENDING_DBG_EXCEPTIONS), 0);
    equal("DR6 is as it was", cpu::dr6(), 0xffff_0ff0);
    l2.control(|controls| controls.entry |= EntryControls::LOAD_DEBUG_CONTROLS);
    let touch = || CELL.store(1, core::sync::atomic::Ordering::SeqCst);
    l2.restart(touch);
    cpu::write_dr0(&raw const CELL as u64);
    // Breakpoint 0 on writes of 8 bytes: SDM 3B 18.2.4 "Debug Control Register (DR7)".
    current.write(GUEST_DR7, 0x400 | 2 | 1 << 16 | 2 << 18);
    println!(" a breakpoint on data: {}", l2.run());
    current.write(GUEST_DR7, 0x400);
    println!(" then: {}", l2.run());
    l2.restart(|| {
        // SAFETY: the access exits.
        unsafe { asm!("mov rax, dr7", out("rax") _) };
    });
    current.write(GUEST_DR7, 0x400 | 1 << 13);
    println!(" general detect: {}", l2.run());
    current.write(GUEST_DR7, 0x400);

    println!("pending at entry");
    for (what, pending) in [("a single step", BS), ("breakpoint 0", B0), ("both", BS | B0)] {
        l2.restart(|| {});
        let start = current.read(GUEST_RIP);
        current.write(GUEST_PENDING_DBG_EXCEPTIONS, pending);
        println!(" {what}: {}", l2.run());
        equal("before the first instruction", current.read(GUEST_RIP), start);
        equal("nothing is pending", current.read(GUEST_PENDING_DBG_EXCEPTIONS), 0);
    }
    l2.restart(|| {});
    current.write(GUEST_PENDING_DBG_EXCEPTIONS, BS);
    current.write(GUEST_RFLAGS, 2 | TRAP);
    current.write(GUEST_INTERRUPTIBILITY_INFO, 2);
    let start = current.read(GUEST_RIP);
    println!(" a single step while MOV SS blocks: {}", l2.run());
    equal("after the first instruction", u64::from(current.read(GUEST_RIP) != start), 1);

    println!("L2's own");
    current.write(EXCEPTION_BITMAP, 0);
    l2.restart(|| {
        cpu::write_dr6(0xffff_0ff0);
        let fault = expect_fault(|| {
            // SAFETY: the trap is expected.
            unsafe { asm!("pushfq", "or qword ptr [rsp], 0x100", "popfq", "nop", "nop") };
        });
        equal("DR6", fault.map_or(0, |fault| fault.dr6), 0xffff_4ff0);
    });
    println!(" a single step: {}", l2.run());
    guests::interrupts::handle(1, |_| println!("  L2 takes #DB, DR6 {:#x}", cpu::dr6()));
    l2.restart(|| {});
    cpu::write_dr6(0xffff_0ff0);
    current.write(GUEST_PENDING_DBG_EXCEPTIONS, BS);
    println!(" pending at entry: {}", l2.run());
    guests::interrupts::forget(1);
    cpu::write_dr6(0xffff_0ff0);
    cpu::write_dr0(0);
}
