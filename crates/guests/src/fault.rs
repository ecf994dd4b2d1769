//! Doing what faults, and going on.

use core::arch::global_asm;
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use arch::exception::Vector;

use crate::cpu;
use crate::entry::{CODE64, DATA};
use crate::interrupts::Frame;

/// An exception that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Which one.
    pub vector: Vector,
    /// Its error code; 0 where the exception has none.
    pub error: u64,
    /// RIP that was saved: for a fault, of the instruction that faulted.
    pub rip: u64,
    /// CR2 afterwards: the address, for a page fault.
    pub cr2: u64,
    /// DR6 afterwards.
    pub dr6: u64,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [&str; 22] = [
            "DE", "DB", "NMI", "BP", "OF", "BR", "UD", "NM", "DF", "9", "TS", "NP", "SS", "GP", "PF", "15", "MF", "AC",
            "MC", "XM", "VE", "CP",
        ];
        match NAMES.get(usize::from(self.vector.0)) {
            Some(name) => write!(f, "#{name}")?,
            None => write!(f, "vector {}", self.vector.0)?,
        }
        if self.vector.has_error_code() { write!(f, "({:#x})", self.error) } else { Ok(()) }
    }
}

/// The stack pointer to go back to when something faults; 0 while nothing is expected to. One for all processors:
/// only one of them expects faults at a time.
static RECOVERY: AtomicU64 = AtomicU64::new(0);
static FAULT: [AtomicU64; 5] = [const { AtomicU64::new(0) }; 5];

global_asm!(
    r#"
    .global try_call
try_call:                               // rdi: function, rsi: its argument, rdx: where the stack pointer is remembered
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
    push rdx
    mov [rdx], rsp
    mov rax, rdi
    mov rdi, rsi
    call rax
    xor eax, eax
    jmp 1f
    .global try_resume
try_resume:
    mov eax, 1
1:  pop rdx
    mov qword ptr [rdx], 0
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    ret
    "#
);

unsafe extern "C" {
    fn try_call(function: extern "C" fn(*mut u8), argument: *mut u8, recovery: *mut u64) -> u32;
    fn try_resume();
}

/// Runs `action`. `None` when it came to its end; the exception when it met one, in which case the rest of it is not
/// run: it must not hold anything that wants dropping.
pub fn expect_fault<F: FnMut()>(mut action: F) -> Option<Fault> {
    extern "C" fn call<F: FnMut()>(action: *mut u8) {
        // SAFETY: the pointer is to `action` below, which outlives the call.
        let action = unsafe { &mut *action.cast::<F>() };
        action();
    }
    // SAFETY: `call` takes what it is given; the recovery slot is written by `try_call` and read by `recover` only.
    let faulted = unsafe { try_call(call::<F>, (&raw mut action).cast(), RECOVERY.as_ptr()) };
    if faulted == 0 {
        return None;
    }
    let [vector, error, rip, cr2, dr6] = FAULT.each_ref().map(|value| value.load(Ordering::Relaxed));
    let vector = Vector(vector as u8);
    Some(Fault { vector, error, rip, cr2, dr6 })
}

/// Nothing is expected any more: what ran was left in the middle, as an L2 is that exits and does not go on.
pub fn forget() {
    RECOVERY.store(0, Ordering::Relaxed);
}

/// Called for an exception that has no handler of its own: where it was expected, changes `frame` to go on after the
/// expectation and says true.
pub(crate) fn recover(frame: &mut Frame) -> bool {
    let rsp = RECOVERY.load(Ordering::Relaxed);
    if rsp == 0 {
        return false;
    }
    let fault = [frame.vector, frame.error, frame.rip, cpu::cr2(), cpu::dr6()];
    for (slot, value) in FAULT.iter().zip(fault) {
        slot.store(value, Ordering::Relaxed);
    }
    frame.rip = try_resume as *const () as u64;
    frame.rsp = rsp;
    frame.cs = CODE64.into();
    frame.ss = DATA.into();
    // Trap, nested task, alignment check, direction: nothing that the faulting code set is to go on.
    frame.rflags &= !(1 << 8 | 1 << 10 | 1 << 14 | 1 << 18);
    true
}
