//! Several processors: starting, interrupting and restarting them, in xAPIC mode and then in x2APIC mode.
//!
//! A line of an IPI shows how often each processor was interrupted, the boot processor first. Processors are numbered in
//! the order of the MADT. Works with any number of them, one included.
#![no_std]
#![no_main]
#![expect(clippy::cast_possible_truncation, reason = "processors and vectors are few")]

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

use arch::apic::{DeliveryMode, Register};
use guests::interrupts::Frame;
use guests::{acpi, apic, cpu, entry, interrupts, pic, pm_timer, print, println, smp};

entry!(main);

/// The vector of most IPIs.
const VECTOR: u8 = 0x60;
/// ICR: level asserted; destination is logical; the shorthands.
const ASSERT: u32 = 1 << 14;
const LOGICAL: u32 = 1 << 11;
const SELF: u32 = 1 << 18;
const ALL: u32 = 2 << 18;

const SEQUENTIAL: Ordering = Ordering::SeqCst;
type PerProcessor = [AtomicU32; smp::MOST];

static COUNT: AtomicUsize = AtomicUsize::new(0);
static IDS: PerProcessor = [const { AtomicU32::new(0) }; smp::MOST];
/// Interrupts and NMIs taken, by processor.
static TAKEN: PerProcessor = [const { AtomicU32::new(0) }; smp::MOST];
/// The vectors taken, in their order, each a byte, the last in the lowest.
static ORDER: AtomicU32 = AtomicU32::new(0);
/// How often each processor came out of the trampoline.
static STARTS: PerProcessor = [const { AtomicU32::new(0) }; smp::MOST];
/// Whether what a processor found in its APIC was what INIT leaves.
static RESET_STATE: PerProcessor = [const { AtomicU32::new(0) }; smp::MOST];
/// What each processor is asked to do; 0 when it has done it.
static COMMAND: PerProcessor = [const { AtomicU32::new(0) }; smp::MOST];
static COUNTER: AtomicU32 = AtomicU32::new(0);
/// The mode that starting processors choose.
static X2APIC: AtomicBool = AtomicBool::new(false);

/// Commands: what is in bits 7:0, with an argument above.
const SET_TPR: u32 = 1;
const HALT: u32 = 2;
const HALT_DEAF: u32 = 3;
const SPIN_DEAF: u32 = 4;
const ADD: u32 = 5;
const USE_CLUSTERS: u32 = 6;
const SEND_TO_BOOT: u32 = 7;

fn main() {
    pic::remap();
    let own = apic::id();
    // The boot processor is number 0 wherever it stands in the table.
    let ids = core::iter::once(own).chain(acpi::processors().filter(|&id| id != own));
    for id in ids.take(smp::MOST) {
        IDS[COUNT.fetch_add(1, SEQUENTIAL)].store(id, SEQUENTIAL);
    }
    println!("{} processors", count());
    for vector in 0x30..=0xf0 {
        interrupts::handle(vector, |frame| {
            note(frame);
            apic::eoi();
        });
    }
    interrupts::handle(2, note);

    println!("xAPIC mode: {}", !apic::is_x2apic());
    prepare_apic();
    smp::prepare(processor, 1);
    start_each();
    all_ipis();
    clusters();
    restart();

    if apic::has_x2apic() {
        in_x2apic_mode();
    }
    println!("done");
}

fn in_x2apic_mode() {
    println!("x2APIC mode");
    X2APIC.store(true, SEQUENTIAL);
    apic::enable_x2apic();
    prepare_apic();
    start_together();
    all_ipis();
    self_ipi_register();
    restart();
}

fn count() -> usize {
    COUNT.load(SEQUENTIAL)
}

fn id_of(number: usize) -> u32 {
    IDS[number].load(SEQUENTIAL)
}

fn others() -> core::ops::Range<usize> {
    1..count()
}

/// This processor's number.
fn number() -> usize {
    let id = apic::id();
    (0..count()).find(|&number| id_of(number) == id).expect("an APIC id that the MADT lacks")
}

fn note(frame: &mut Frame) {
    TAKEN[number()].fetch_add(1, SEQUENTIAL);
    ORDER.store(ORDER.load(SEQUENTIAL) << 8 | frame.vector as u32, SEQUENTIAL);
}

/// Enables the APIC; in xAPIC mode the logical id is a bit of the flat model.
fn prepare_apic() {
    apic::init();
    if !apic::is_x2apic() {
        apic::write(Register::DFR, u32::MAX);
        apic::write(Register::LDR, 1 << (24 + number() % 8));
    }
}

/// What the other processors run.
fn processor(_: u32) {
    let state = reset_state();
    if X2APIC.load(SEQUENTIAL) && !apic::is_x2apic() {
        apic::enable_x2apic();
    }
    let number = number();
    RESET_STATE[number].store(state, SEQUENTIAL);
    prepare_apic();
    STARTS[number].fetch_add(1, SEQUENTIAL);
    cpu::sti();
    loop {
        let command = COMMAND[number].load(SEQUENTIAL);
        let argument = command >> 8;
        match command & 0xff {
            SET_TPR => apic::write(Register::TPR, argument),
            HALT => {
                cpu::cli();
                COMMAND[number].store(0, SEQUENTIAL);
                cpu::wait_for_interrupt();
                cpu::sti();
                COUNTER.fetch_add(1, SEQUENTIAL);
                continue;
            }
            HALT_DEAF => {
                COMMAND[number].store(0, SEQUENTIAL);
                cpu::stop();
            }
            SPIN_DEAF => {
                cpu::cli();
                COMMAND[number].store(0, SEQUENTIAL);
                while COMMAND[number].load(SEQUENTIAL) == 0 {}
                cpu::sti();
            }
            ADD => (0..1000).for_each(|_| _ = COUNTER.fetch_add(1, SEQUENTIAL)),
            USE_CLUSTERS => cluster_id(number),
            SEND_TO_BOOT => apic::send(IDS[0].load(SEQUENTIAL), ASSERT | argument),
            _ => {
                core::hint::spin_loop();
                continue;
            }
        }
        COMMAND[number].store(0, SEQUENTIAL);
    }
}

/// What INIT leaves in the APIC, one bit for each register that is as it should: SDM 3A "Local APIC State After It
/// Receives an INIT Reset". The logical id and the format are of xAPIC mode only.
fn reset_state() -> u32 {
    let mut state = 0;
    let mut check = |right: bool| state = state << 1 | u32::from(right);
    check(apic::read(Register::SVR) == 0xff);
    check(apic::read(Register::TPR) == 0);
    check(apic::read(Register::LVT_TIMER) == apic::MASKED);
    check(apic::read(Register::LVT_LINT0) == apic::MASKED);
    check(apic::read(Register::INITIAL_COUNT) == 0);
    check(apic::is_x2apic() || apic::read(Register::LDR) == 0);
    check(apic::is_x2apic() || apic::read(Register::DFR) == u32::MAX);
    state
}

/// Asks a processor for something and waits until it has done it (or has begun, if it is to halt).
fn command(number: usize, what: u32, argument: u32) {
    COMMAND[number].store(what | argument << 8, SEQUENTIAL);
    if !smp::wait_until(1000, || COMMAND[number].load(SEQUENTIAL) == 0) {
        println!("processor {number} does not do command {what}");
    }
}

fn started(number: usize, times: u32) {
    smp::wait_until(100, || STARTS[number].load(SEQUENTIAL) >= times);
    pm_timer::wait_microseconds(1000);
    let starts = STARTS[number].swap(0, SEQUENTIAL);
    let state = RESET_STATE[number].load(SEQUENTIAL);
    println!("  processor {number}: {starts} start, APIC as after INIT {state:07b}");
}

fn start_each() {
    println!(" started one by one");
    for number in others() {
        smp::start_processor(id_of(number));
        started(number, 1);
    }
}

fn start_together() {
    println!(" INIT and start-up to all but self");
    apic::send(0, smp::INIT | smp::ALL_BUT_SELF);
    pm_timer::wait_microseconds(10_000);
    smp::prepare(processor, 1);
    apic::send(0, smp::START_UP | smp::ALL_BUT_SELF);
    others().for_each(|number| started(number, 1));
}

/// Sends an IPI and shows who was interrupted.
fn ipi(name: core::fmt::Arguments<'_>, destination: u32, low: u32) {
    show(name, || apic::send(destination, low));
}

fn show(name: core::fmt::Arguments<'_>, send: impl FnOnce()) {
    TAKEN.iter().for_each(|taken| taken.store(0, SEQUENTIAL));
    cpu::sti();
    send();
    pm_timer::wait_microseconds(2000);
    cpu::cli();
    print!("  {name}:");
    TAKEN.iter().take(count()).for_each(|taken| print!(" {}", taken.load(SEQUENTIAL)));
    println!();
}

/// The logical id of a processor in the mode that is on.
fn logical(number: usize) -> u32 {
    let id = id_of(number);
    if apic::is_x2apic() { (id >> 4) << 16 | 1 << (id & 15) } else { 1 << (number % 8) }
}

/// The logical destination of every processor (in x2APIC mode: of the first sixteen).
fn everyone() -> u32 {
    (0..count()).fold(0, |all, number| all | logical(number))
}

fn all_ipis() {
    let fixed = ASSERT | u32::from(VECTOR);
    let nmi = ASSERT | (DeliveryMode::Nmi as u32) << 8;
    let lowest = ASSERT | LOGICAL | (DeliveryMode::LowestPriority as u32) << 8 | u32::from(VECTOR);
    let broadcast = if apic::is_x2apic() { u32::MAX } else { 0xff };
    println!(" fixed");
    for number in 0..count() {
        ipi(format_args!("to {number}"), id_of(number), fixed);
    }
    ipi(format_args!("to nobody's id"), 0x7e, fixed);
    ipi(format_args!("to all ids"), broadcast, fixed);
    ipi(format_args!("self"), 0, fixed | SELF);
    ipi(format_args!("all"), 0, fixed | ALL);
    ipi(format_args!("all but self"), 0, fixed | smp::ALL_BUT_SELF);
    for number in 0..count() {
        ipi(format_args!("logical, to {number}"), logical(number), fixed | LOGICAL);
    }
    ipi(format_args!("logical, to all"), everyone(), fixed | LOGICAL);
    ipi(format_args!("logical, broadcast"), broadcast, fixed | LOGICAL);
    ipi(format_args!("vector 14, which is illegal"), 0, ASSERT | ALL | 14);

    println!(" NMI");
    for number in 0..count() {
        ipi(format_args!("to {number}"), id_of(number), nmi);
    }
    ipi(format_args!("all but self"), 0, nmi | smp::ALL_BUT_SELF);
    ipi(format_args!("logical, to all"), everyone(), nmi | LOGICAL);

    println!(" lowest priority");
    for lowest_number in 0..count() {
        for number in 0..count() {
            set_tpr(number, if number == lowest_number { 0x10 } else { 0x50 });
        }
        ipi(format_args!("only {lowest_number} is low"), everyone(), lowest);
    }
    (0..count()).for_each(|number| set_tpr(number, 0));

    println!(" task priority");
    let last = count() - 1;
    set_tpr(last, 0x60);
    ipi(format_args!("to {last}, at its class"), IDS[last].load(SEQUENTIAL), fixed);
    show(format_args!("lowered below it"), || set_tpr(last, 0x5f));
    set_tpr(last, 0);
    order();

    println!(" others to 0, at work and halted");
    for number in others() {
        show(format_args!("from {number}"), || command(number, SEND_TO_BOOT, VECTOR.into()));
        COUNTER.store(0, SEQUENTIAL);
        command(number, HALT, 0);
        ipi(format_args!("to {number}, halted"), id_of(number), fixed);
        command(number, HALT, 0);
        ipi(format_args!("NMI to {number}, halted"), id_of(number), nmi);
        println!("  woken {} times", COUNTER.load(SEQUENTIAL));
    }

    COUNTER.store(0, SEQUENTIAL);
    others().for_each(|number| COMMAND[number].store(ADD, SEQUENTIAL));
    others().for_each(|number| _ = smp::wait_until(1000, || COMMAND[number].load(SEQUENTIAL) == 0));
    println!(" counted together: {}", COUNTER.load(SEQUENTIAL));
}

fn set_tpr(number: usize, tpr: u32) {
    if number == 0 {
        apic::write(Register::TPR, tpr);
    } else {
        command(number, SET_TPR, tpr);
    }
}

/// Interrupts that wait are taken in the order of their vectors, and one that was sent twice only once.
fn order() {
    let last = count() - 1;
    let id = IDS[last].load(SEQUENTIAL);
    if last != 0 {
        command(last, SPIN_DEAF, 0);
    }
    for vector in [0x41, 0x71, 0x51, 0x71, 0x61] {
        apic::send(id, ASSERT | vector);
    }
    pm_timer::wait_microseconds(1000);
    ORDER.store(0, SEQUENTIAL);
    if last == 0 {
        cpu::take_interrupts();
    } else {
        command(last, u32::MAX, 0);
    }
    pm_timer::wait_microseconds(1000);
    println!("  waiting interrupts are taken in the order {:08x}", ORDER.load(SEQUENTIAL));
}

fn cluster_id(number: usize) {
    apic::write(Register::DFR, 0x0fff_ffff);
    apic::write(Register::LDR, ((number as u32 / 4) << 4 | 1 << (number % 4)) << 24);
}

/// The cluster model of xAPIC mode: four processors in a cluster.
fn clusters() {
    println!(" logical ids in clusters");
    let fixed = ASSERT | LOGICAL | u32::from(VECTOR);
    cluster_id(0);
    others().for_each(|number| command(number, USE_CLUSTERS, 0));
    for number in 0..count() {
        ipi(format_args!("to {number}"), (number as u32 / 4) << 4 | 1 << (number % 4), fixed);
    }
    ipi(format_args!("to all of the first cluster"), 0x0f, fixed);
    ipi(format_args!("to a cluster without processors"), 0xef, fixed);
    prepare_apic();
}

fn self_ipi_register() {
    show(format_args!("self-IPI register"), || apic::write(Register::SELF_IPI, VECTOR.into()));
}

/// Processors that run, that halted for good and that spin with interrupts off start anew with INIT and SIPI.
fn restart() {
    println!(" restarted");
    for number in others() {
        let id = id_of(number);
        for state in [0, HALT_DEAF, SPIN_DEAF] {
            if state != 0 {
                command(number, state, 0);
            }
            apic::send(id, smp::INIT);
            pm_timer::wait_microseconds(10_000);
            // It waits for the start-up IPI now and takes nothing else.
            apic::send(id, ASSERT | u32::from(VECTOR));
            smp::prepare(processor, number as u32);
            apic::send(id, smp::START_UP);
            // The second is for a processor that has started already, and does nothing.
            pm_timer::wait_microseconds(1000);
            apic::send(id, smp::START_UP);
            started(number, 1);
        }
        show(format_args!("to {number}, restarted"), || apic::send(id, ASSERT | u32::from(VECTOR)));
    }
}
