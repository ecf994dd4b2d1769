//! Instructions of an L2 that L1 leaves to it and that a hypervisor below L1 may execute in its place: they end like all others.
//! SDM 3C 26.5.2 "Monitor Trap Flag", 25.6.3 "Exception Bitmap".

use core::arch::asm;
use core::sync::atomic::AtomicU64;

use guests::println;
use guests::vmx::{Current, L2, equal};
use vmcs::Access;
use vmcs::controls::PrimaryBased;
use vmcs::fields::{EXCEPTION_BITMAP, GUEST_PENDING_DBG_EXCEPTIONS, GUEST_RFLAGS, GUEST_RIP};

const TRAP: u64 = 1 << 8;

/// What string instructions read.
static BUFFER: AtomicU64 = AtomicU64::new(0);

/// The code of an L2: a VMCALL, so that what follows can be stepped over alone.
macro_rules! behind_a_call {
    ($text:literal $(, $($operand:tt)*)?) => {
        || {
            // SAFETY: the port is nobody's, and the registers are scratch.
            unsafe { asm!("vmcall", $text $(, $($operand)*)?, inout("rax") 0_u64 => _) };
        }
    };
}

pub(crate) fn all() {
    println!("instructions that L1 leaves to L2");
    let mut l2 = crate::l2_with_msrs();
    for (what, length, code) in INSTRUCTIONS {
        for (monitor, trap) in [(true, false), (true, true), (false, true)] {
            step(&mut l2, (what, length, code), monitor, trap);
        }
    }
    println!(" an MSR that is not there, #GP intercepted");
    Current.write(EXCEPTION_BITMAP, 1 << 13);
    l2.restart(behind_a_call!("rdmsr", in("rcx") 0x1fff, out("rdx") _));
    println!("  {}", l2.run());
    l2.skip();
    println!("  {}", l2.run());
    Current.write(EXCEPTION_BITMAP, 0);
}

/// Name, length in bytes, code.
type Instruction = (&'static str, u64, fn());

const INSTRUCTIONS: [Instruction; 4] = [
    ("OUT", 2, behind_a_call!("out 0x80, al")),
    ("OUTSB", 1, behind_a_call!("outsb", in("dx") 0x80, inout("rsi") &raw const BUFFER => _)),
    ("RDMSR", 2, behind_a_call!("rdmsr", in("rcx") 0x1b, out("rdx") _)),
    ("NOP", 1, behind_a_call!("nop")),
];

fn step(l2: &mut L2, (what, length, code): Instruction, monitor: bool, trap: bool) {
    let mut current = Current;
    println!(" {what}{}{}", if monitor { ", monitor trap flag" } else { "" }, if trap { ", RFLAGS.TF" } else { "" });
    l2.restart(code);
    println!("  {}", l2.run());
    l2.skip();
    l2.control(|controls| controls.primary.set(PrimaryBased::MONITOR_TRAP_FLAG, monitor));
    if trap {
        current.write(EXCEPTION_BITMAP, 1 << 1);
        current.write(GUEST_RFLAGS, current.read(GUEST_RFLAGS) | TRAP);
    }
    let before = current.read(GUEST_RIP);
    println!("  {}", l2.run());
    equal(" RIP", current.read(GUEST_RIP) - before, length);
    equal(" a single step is pending", current.read(GUEST_PENDING_DBG_EXCEPTIONS) >> 14, u64::from(monitor && trap));
    l2.control(|controls| controls.primary -= PrimaryBased::MONITOR_TRAP_FLAG);
    if monitor && trap {
        println!("  {}", l2.run());
        equal(" RIP", current.read(GUEST_RIP) - before, length);
    }
    current.write(EXCEPTION_BITMAP, 0);
    current.write(GUEST_RFLAGS, 2);
    current.write(GUEST_PENDING_DBG_EXCEPTIONS, 0);
    println!("  {}", l2.run());
}
