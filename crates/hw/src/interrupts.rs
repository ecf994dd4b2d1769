//! L0's own interrupts and exceptions.
//!
//! L0 runs with interrupts disabled; what arrives stays pending in the local APIC until a VM exit acknowledges it
//! ([`dispatch`] then serves it) or [`crate::halt`] lets it in. Handlers set flags of their processor and nothing else.

use core::fmt;
use core::sync::atomic::Ordering;

use arch::Vector;

use crate::idt::Frame;
use crate::{apic, control, percpu, stacks};

/// Another processor wants this one to look around.
pub const KICK: u8 = 0xf0;
/// Interrupts were posted to the vCPU that runs on this processor. Where the processor takes posted interrupts in by itself
/// it never arrives while that guest runs; else it is a kick.
pub const NOTIFICATION: u8 = 0xf1;
/// The same of the L2 that runs on this processor.
pub const NOTIFICATION_OF_L2: u8 = 0xf2;
/// The local APIC's timer.
pub const TIMER: u8 = 0xef;
/// The local APIC's error interrupt.
pub const ERROR: u8 = 0xfe;
/// The local APIC's spurious interrupt: no EOI belongs to it.
pub const SPURIOUS: u8 = 0xff;

unsafe extern "C" {
    static fixups_start: [u64; 2];
    static fixups_end: [u64; 2];
}

/// Serves the interrupt with `vector`: for an external-interrupt exit that acknowledged it, and for the entry code.
#[inline]
pub fn dispatch(vector: u8) {
    let this = percpu::this();
    match vector {
        KICK | NOTIFICATION | NOTIFICATION_OF_L2 => {
            this.kicks.fetch_add(1, Ordering::Release);
            this.kicked.store(true, Ordering::Release);
        }
        TIMER => {
            this.timers.fetch_add(1, Ordering::Relaxed);
            this.timer_fired.store(true, Ordering::Release);
        }
        SPURIOUS => {
            this.strays.fetch_add(1, Ordering::Relaxed);
            return;
        }
        _ => {
            this.strays.fetch_add(1, Ordering::Relaxed);
        }
    }
    apic::eoi();
}

/// Serves a non-maskable interrupt that ended a guest's run: a kick, where kicks are NMIs; else, on a machine without a watchdog
/// of ours, nobody's. The exit has blocked others, until an IRET (SDM 3A 6.7.1 "Handling Multiple NMIs").
pub fn serve_nmi() {
    let this = percpu::this();
    this.nmis.fetch_add(1, Ordering::Relaxed);
    this.kicks.fetch_add(1, Ordering::Release);
    this.kicked.store(true, Ordering::Release);
    control::unblock_nmis();
}

/// Called by the entry code for every exception and interrupt.
pub(crate) extern "sysv64" fn entered(frame: &mut Frame) {
    #[expect(clippy::cast_possible_truncation, reason = "the entry code computes it from one of 256 stubs")]
    let vector = Vector(frame.vector as u8);
    match vector {
        Vector::NMI => {
            percpu::this().nmis.fetch_add(1, Ordering::Relaxed);
            apic::keep_kick();
        }
        Vector::GP => match fixup(frame.rip) {
            Some(resume) => frame.rip = resume,
            None => fatal(frame),
        },
        Vector(0..32) => fatal(frame),
        Vector(number) => dispatch(number),
    }
}

/// Where to go on after a general-protection fault at `rip`, if the instruction there was expected to raise one.
fn fixup(rip: u64) -> Option<u64> {
    let start = &raw const fixups_start;
    let count = ((&raw const fixups_end).addr() - start.addr()) / size_of::<[u64; 2]>();
    // SAFETY: the linker script bounds the table of address pairs by these two symbols.
    let table = unsafe { core::slice::from_raw_parts(start, count) };
    table.iter().find(|[at, _]| *at == rip).map(|[_, resume]| *resume)
}

#[expect(clippy::panic, reason = "an exception in L0 is a bug of L0")]
fn fatal(frame: &Frame) -> ! {
    panic!("{}", Exception(frame))
}

/// An exception in L0, as the log shows it.
struct Exception<'a>(&'a Frame);

impl fmt::Display for Exception<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let frame = self.0;
        let name = match frame.vector {
            0 => "divide error",
            1 => "debug exception",
            3 => "breakpoint",
            6 => "invalid opcode",
            7 => "device not available: L0 touched floating-point state",
            8 if stacks::is_guard(control::cr2()) => "stack overflow: no room to report a page fault in a guard page",
            8 => "double fault",
            11 => "segment not present",
            12 => "stack-segment fault",
            13 => "general protection",
            14 if stacks::is_guard(control::cr2()) => "stack overflow: page fault in a guard page",
            14 => "page fault",
            18 => "machine check",
            _ => "exception",
        };
        writeln!(f, "exception {} in L0: {name}, error code {:#x}", frame.vector, frame.error_code)?;
        writeln!(
            f,
            "rip {:016x}  rsp {:016x}  rflags {:x}  cr2 {:x}",
            frame.rip,
            frame.rsp,
            frame.rflags,
            control::cr2()
        )?;
        writeln!(f, "rax {:016x}  rbx {:016x}  rcx {:016x}  rdx {:016x}", frame.rax, frame.rbx, frame.rcx, frame.rdx)?;
        writeln!(f, "rsi {:016x}  rdi {:016x}  rbp {:016x}  r8  {:016x}", frame.rsi, frame.rdi, frame.rbp, frame.r8)?;
        writeln!(f, "r9  {:016x}  r10 {:016x}  r11 {:016x}  r12 {:016x}", frame.r9, frame.r10, frame.r11, frame.r12)?;
        write!(f, "r13 {:016x}  r14 {:016x}  r15 {:016x}", frame.r13, frame.r14, frame.r15)
    }
}
