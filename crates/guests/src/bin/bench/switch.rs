//! What a switch between two vCPUs on one processor takes, as they see it: from the last look of one of them at the TSC to the first of
//! the other. Both do nothing but look.

use core::sync::atomic::{AtomicU64, Ordering::SeqCst};

use guests::{acpi, apic, cpu, println, smp};

/// Until the hypervisor has told all it has to tell.
const WARM_UP: u64 = 60;
const SWITCHES: u64 = 40;

/// The TSC when somebody last looked, doubled, plus 1 for the second processor.
static LAST: AtomicU64 = AtomicU64::new(0);
/// Switches that were seen, and the ticks of those after the warm-up.
static SEEN: AtomicU64 = AtomicU64::new(0);
static TICKS: AtomicU64 = AtomicU64::new(0);

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
    println!("bench vcpu_switch {}", TICKS.load(SeqCst) / SWITCHES);
}

fn second(_: u32) {
    look(1);
    cpu::stop();
}

fn look(own: u64) {
    // As in a program: what L0 does for Bochs where a handler may just have begun is no part of it.
    cpu::sti();
    while SEEN.load(SeqCst) < WARM_UP + SWITCHES {
        // Nothing between two looks but the look.
        let (last, now) = loop {
            let now = cpu::tsc();
            let last = LAST.swap(now << 1 | own, SeqCst);
            if last & 1 != own {
                break (last >> 1, now);
            }
        };
        // Whoever lost the processor between the two lines has missed the switch.
        if last < now && SEEN.fetch_add(1, SeqCst) >= WARM_UP {
            TICKS.fetch_add(now - last, SeqCst);
        }
    }
}
