//! The APIC timer in its three modes.

use arch::apic::Register;
use arch::msr::Msr;
use guests::{apic, cpu, interrupts, msr, pm_timer};

use crate::{equal, listen, near, note, reset, taken, wait_for};

const VECTOR: u8 = 0x50;
const TIMER: u32 = VECTOR as u32;
/// Divide by 1.
const BY_1: u32 = 0xb;

pub(crate) fn all() {
    interrupts::handle(VECTOR, |frame| {
        note(frame);
        apic::eoi();
    });
    let millisecond = calibrate();
    one_shot(millisecond);
    periodic(millisecond);
    if cpu::cpuid(1, 0).ecx & 1 << 24 != 0 {
        deadline();
    }
    apic::write(Register::LVT_TIMER, apic::MASKED);
}

/// Counts a millisecond, undivided.
fn calibrate() -> u32 {
    apic::write(Register::LVT_TIMER, apic::MASKED | TIMER);
    apic::write(Register::DIVIDE, BY_1);
    apic::write(Register::INITIAL_COUNT, u32::MAX);
    pm_timer::wait_microseconds(20_000);
    let counted = u32::MAX - apic::read(Register::CURRENT_COUNT);
    apic::write(Register::INITIAL_COUNT, 0);
    equal("timer stopped", apic::read(Register::CURRENT_COUNT).into(), 0);
    counted / 20
}

fn one_shot(millisecond: u32) {
    for (divide, factor) in [(BY_1, 1), (0, 2), (1, 4), (2, 8), (3, 16), (8, 32), (9, 64), (10, 128)] {
        apic::write(Register::DIVIDE, divide);
        apic::write(Register::LVT_TIMER, TIMER);
        reset();
        apic::write(Register::INITIAL_COUNT, millisecond * 5 / factor);
        let took = wait_for(1);
        if factor == 1 {
            near("one-shot, 5 ms", took, 5_000, 2);
        } else {
            near("divided", took, 5_000, 2);
        }
    }
    apic::write(Register::DIVIDE, BY_1);
    listen(10_000);
    equal("one-shot, once only", taken().into(), 1);
    equal("one-shot, count after it", apic::read(Register::CURRENT_COUNT).into(), 0);
    equal("initial count stays", apic::read(Register::INITIAL_COUNT).into(), u64::from(millisecond * 5 / 128));

    apic::write(Register::LVT_TIMER, apic::MASKED | TIMER);
    reset();
    apic::write(Register::INITIAL_COUNT, millisecond);
    listen(2_000);
    equal("masked", taken().into(), 0);

    apic::write(Register::LVT_TIMER, TIMER);
    reset();
    apic::write(Register::INITIAL_COUNT, millisecond * 2);
    apic::write(Register::INITIAL_COUNT, 0);
    listen(4_000);
    equal("stopped by a count of 0", taken().into(), 0);
}

fn periodic(millisecond: u32) {
    apic::write(Register::LVT_TIMER, apic::PERIODIC | TIMER);
    reset();
    apic::write(Register::INITIAL_COUNT, millisecond * 2);
    near("periodic, 20 of 2 ms", wait_for(20), 40_000, 2);
    let count = apic::read(Register::CURRENT_COUNT);
    equal("periodic, count below the initial", u64::from(count > 0 && count <= millisecond * 2), 1);
    apic::write(Register::INITIAL_COUNT, 0);
    // One may have come while we printed.
    cpu::take_interrupts();
    reset();
    listen(4_000);
    equal("periodic, stopped", taken().into(), 0);
}

fn deadline() {
    apic::write(Register::LVT_TIMER, apic::TSC_DEADLINE | TIMER);
    // How fast the TSC is.
    let (start, first) = (pm_timer::now(), cpu::tsc());
    pm_timer::wait_microseconds(20_000);
    let per_second = (cpu::tsc() - first) * pm_timer::FREQUENCY / u64::from(pm_timer::since(start));

    reset();
    let deadline = cpu::tsc() + per_second / 200;
    msr::write(Msr::TSC_DEADLINE, deadline);
    near("deadline in 5 ms", wait_for(1), 5_000, 2);
    equal("not before the deadline", u64::from(cpu::tsc() >= deadline), 1);
    listen(10_000);
    equal("deadline, once only", taken().into(), 1);
    equal("count in deadline mode", apic::read(Register::CURRENT_COUNT).into(), 0);

    reset();
    msr::write(Msr::TSC_DEADLINE, cpu::tsc() - 1000);
    listen(1_000);
    equal("deadline in the past", taken().into(), 1);

    reset();
    let deadline = cpu::tsc() + per_second / 500;
    msr::write(Msr::TSC_DEADLINE, deadline);
    let reads_back = msr::read(Msr::TSC_DEADLINE) == deadline;
    msr::write(Msr::TSC_DEADLINE, 0);
    listen(5_000);
    equal("deadline reads back", reads_back.into(), 1);
    equal("disarmed", taken().into(), 0);

    // Another mode disarms it too, and there the MSR is nothing.
    msr::write(Msr::TSC_DEADLINE, cpu::tsc() + per_second / 500);
    apic::write(Register::LVT_TIMER, TIMER);
    listen(5_000);
    equal("disarmed by another mode", taken().into(), 0);
    msr::write(Msr::TSC_DEADLINE, cpu::tsc() + per_second / 500);
    listen(5_000);
    equal("nothing in another mode", u64::from(taken()) + msr::read(Msr::TSC_DEADLINE), 0);
}
