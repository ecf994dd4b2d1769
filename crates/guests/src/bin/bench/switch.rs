//! What a switch between two vCPUs on one processor takes, as they see it: from the last look of one of them at the TSC to the first of
//! the other. Both do nothing but look.
//!
//! Bochs notices that a slice is over where it brings its clock up to date: at RDTSC, and at a jump that is taken. So the two stand
//! side by side, in a loop of five instructions that is written out and aligned: wherever a slice ends and whatever is linked before
//! it, a switch counts the loop's last turn there, and its first turn here, which are nine or ten instructions. Each vCPU counts as
//! many switches as the other and then goes on looking: a switch away from one that halts is another measurement.

use core::arch::asm;
use core::sync::atomic::{AtomicU32, Ordering::SeqCst};

use guests::{acpi, apic, cpu, println, smp};

/// Until the hypervisor has told all it has to tell.
const WARM_UP: u32 = 30;
const SWITCHES: u32 = 20;

/// The TSC when each vCPU looked last, bits 31:0.
static LOOKS: [AtomicU32; 2] = [const { AtomicU32::new(0) }; 2];
/// What the switches to each of them took, after the warm-up.
static TICKS: [AtomicU32; 2] = [const { AtomicU32::new(0) }; 2];
/// vCPUs that have seen enough.
static READY: AtomicU32 = AtomicU32::new(0);

pub(crate) fn measure() {
    apic::init();
    let own = apic::id();
    let Some(other) = acpi::processors().find(|id| *id != own) else {
        println!("bench-skip vcpu_switch");
        return;
    };
    smp::prepare(second, 1);
    smp::start_processor(other);
    look(0);
    // The first vCPU keeps the machine's time, and has more to do before it goes on. The dearer direction counts.
    let dearer = TICKS.iter().map(|ticks| ticks.load(SeqCst)).max();
    println!("bench vcpu_switch {}", dearer.unwrap_or(0) / SWITCHES);
}

fn second(_: u32) {
    look(1);
    cpu::stop();
}

fn look(own: usize) {
    // As in a program: what L0 does for Bochs where a handler may just have begun is no part of it.
    cpu::sti();
    let (mut seen, mut ticks, mut known) = (0, 0, 0);
    while READY.load(SeqCst) < 2 {
        let (last, now) = next_switch(&LOOKS[own], &LOOKS[1 - own], known);
        known = last;
        seen += 1;
        if seen > WARM_UP && seen <= WARM_UP + SWITCHES {
            ticks += now.wrapping_sub(last);
        }
        if seen == WARM_UP + SWITCHES {
            TICKS[own].store(ticks, SeqCst);
            READY.fetch_add(1, SeqCst);
        }
    }
}

/// Looks until the other one has looked after `known`: when that was for the last time, and when it is now.
#[inline(never)]
fn next_switch(own: &AtomicU32, other: &AtomicU32, known: u32) -> (u32, u32) {
    let (last, now);
    // SAFETY: writes what is shared as an atomic store would.
    unsafe {
        asm!(
            "rdtsc",
            ".balign 64",
            "2:",
            "mov [{own}], eax",
            "mov ecx, [{other}]",
            "cmp ecx, {known:e}",
            "rdtsc",
            "je 2b",
            own = in(reg) own.as_ptr(),
            other = in(reg) other.as_ptr(),
            known = in(reg) known,
            out("ecx") last,
            out("eax") now,
            out("edx") _,
            options(nostack),
        );
    }
    (last, now)
}
