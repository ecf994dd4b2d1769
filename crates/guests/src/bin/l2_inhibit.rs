//! The story that the deferred APICv queue is for: the processor's help for L1's APIC is inhibited and comes back while L2 runs.
//!
//! L1 gives its APIC another id, which inhibits the help; L2, to which APIC_BASE and the x2APIC's MSRs are passed through, switches the
//! APIC to x2APIC mode, which resets the id; and back; and the other way round. Nothing of the help is to be seen: what each line
//! says follows from the manual, as the comment beside it tells.
//!
//! With two processors the other one is asked after each change: its own interrupts and those that it sends go on as before.
//!
//! Bochs's APIC keeps its id, and never comes back from being disabled, so the bare machine runs this with the arguments `without-id`
//! and `without-return`.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use arch::apic::{DEFAULT_BASE, Register};
use arch::msr::Msr;
use guests::apic::{ENABLE, EXTD, x2apic_msr};
use guests::multiboot::is_without;
use guests::vmx::{Current, L2, pages, setup};
use guests::{apic, cpu, entry, interrupts, memory, msr, pic, println, smp};
use vmcs::Access;
use vmcs::controls::PrimaryBased;
use vmcs::fields::MSR_BITMAP;

entry!(main);

/// No processor of this machine comes with this id.
const OTHER_ID: u32 = 9;
const HIGH: u8 = 0xe0;
const LOW: u8 = 0x61;
/// What the other processor sends, and what it sends itself.
const CROSS: u8 = 0x51;
const OWN: u8 = 0x71;
/// A self-IPI, by shorthand.
const TO_SELF: u32 = 0x4_4000;
const ASSERT: u32 = 0x4000;
/// Where the APIC's registers are in xAPIC mode.
const PAGE: u64 = DEFAULT_BASE;

/// The last interrupt that L1 took.
static LAST: AtomicU64 = AtomicU64::new(0);
/// Interrupts that the other processor sent here, and took itself.
static CROSSED: AtomicU32 = AtomicU32::new(0);
static OWNED: AtomicU32 = AtomicU32::new(0);
/// Whom the other processor shall send to, plus one; 0 when it has.
static ASKED: AtomicU32 = AtomicU32::new(0);
/// There is another processor.
static PAIR: AtomicU32 = AtomicU32::new(0);

fn main() {
    setup::require();
    if !apic::has_x2apic() {
        println!("no x2APIC");
        guests::exit(0);
    }
    pic::remap();
    apic::init();
    for vector in [HIGH, LOW] {
        interrupts::handle(vector, |frame| LAST.store(frame.vector, Ordering::Relaxed));
    }
    interrupts::handle(CROSS, |_| {
        CROSSED.fetch_add(1, Ordering::SeqCst);
        apic::eoi();
    });
    interrupts::handle(OWN, |_| {
        OWNED.fetch_add(1, Ordering::SeqCst);
        memory::write_register(PAGE + u64::from(Register::EOI.0), 0);
    });
    if smp::start_another(second).is_some() {
        PAIR.store(1, Ordering::SeqCst);
    }
    setup::on();
    let mut l2 = L2::new(|| {});
    l2.control(|controls| controls.primary |= PrimaryBased::USE_MSR_BITMAPS);
    // All zeros: no MSR exits.
    Current.write(MSR_BITMAP, pages::take());

    from_xapic(&mut l2);
    if !is_without("return") {
        from_x2apic(&mut l2);
    }
    println!("done");
}

/// Another APIC id, in xAPIC mode. SDM 3A 11.4.6 "Local APIC ID": the register can be written.
fn change_id() {
    apic::write(Register::ID, OTHER_ID << 24);
}

/// To xAPIC mode, which is reached only by way of a disabled APIC (SDM 3A 11.12.5 "x2APIC State Transitions"); and on again by software.
fn return_to_xapic() {
    let bootstrap = msr::read(Msr::APIC_BASE) & 1 << 8;
    msr::write(Msr::APIC_BASE, DEFAULT_BASE | bootstrap);
    msr::write(Msr::APIC_BASE, DEFAULT_BASE | bootstrap | ENABLE);
    apic::init();
}

fn switch_to_x2apic() {
    msr::write(Msr::APIC_BASE, msr::read(Msr::APIC_BASE) | ENABLE | EXTD);
}

fn run(l2: &mut L2, what: &str, code: fn()) {
    l2.restart(code);
    println!(" L2 {what}: {}", l2.run());
}

/// The vector that L1 takes when it lets interrupts in; 0 for none.
fn taken() -> u64 {
    LAST.store(0, Ordering::Relaxed);
    cpu::take_interrupts();
    LAST.load(Ordering::Relaxed)
}

fn in_service() -> u8 {
    [HIGH, LOW].into_iter().find(|&vector| apic::bit(Register::ISR, vector)).unwrap_or(0)
}

fn print_id() {
    if !is_without("id") {
        println!(" id {}", apic::id());
    }
}

/// In xAPIC mode: a self-IPI by a store, and the interrupt stays in service.
fn send_by_page(vector: u8) {
    memory::write_register(PAGE + u64::from(Register::ICR.0), TO_SELF | u32::from(vector));
}

/// x2APIC mode, with HIGH in service and LOW requested.
fn end_in_x2apic() {
    // Nothing is at the old page in x2APIC mode (SDM 3A 11.12.2 "x2APIC Register Address Space").
    memory::write_register(PAGE + u64::from(Register::EOI.0), 0);
    println!(" in service after a store to the old page: {:x}", in_service());
    // The switch keeps what is in service (SDM 3A 11.12.5), so that the lower request waits.
    msr::write(x2apic_msr(Register::SELF_IPI), LOW.into());
    println!(" held back: {:x}", taken());
    msr::write(x2apic_msr(Register::EOI), 0);
    println!(" in service after EOI: {:x}", in_service());
    println!(" taken {:x}, in service {:x}", taken(), in_service());
    msr::write(x2apic_msr(Register::EOI), 0);
    println!(" in service after EOI: {:x}", in_service());
}

/// xAPIC mode: all by loads and stores at the page, whose mapping is gone with nothing cached of it left.
fn all_by_page() {
    send_by_page(HIGH);
    println!(" taken {:x}, in service {:x}", taken(), in_service());
    send_by_page(LOW);
    println!(" held back: {:x}", taken());
    memory::write_register(PAGE + u64::from(Register::EOI.0), 0);
    println!(" taken {:x}, in service {:x}", taken(), in_service());
    memory::write_register(PAGE + u64::from(Register::EOI.0), 0);
    println!(" in service after EOI: {:x}", in_service());
}

fn from_xapic(l2: &mut L2) {
    println!("from xAPIC mode to x2APIC mode and back");
    change_id();
    // What was written is read.
    print_id();
    ask_the_other();
    send_by_page(HIGH);
    // It is taken, and no EOI ends it.
    println!(" taken {:x}, in service {:x}", taken(), in_service());
    run(l2, "switches to x2APIC mode", switch_to_x2apic);
    // The id of x2APIC mode is the one that the processor came with (SDM 3A 11.12.5.1 "x2APIC States").
    print_id();
    end_in_x2apic();
    ask_the_other();
    if is_without("return") {
        return;
    }
    run(l2, "returns to xAPIC mode and changes the id", || {
        return_to_xapic();
        change_id();
    });
    print_id();
    all_by_page();
    ask_the_other();
}

fn from_x2apic(l2: &mut L2) {
    println!("from x2APIC mode to xAPIC mode and back");
    switch_to_x2apic();
    // The id that was written is gone, as above.
    print_id();
    ask_the_other();
    msr::write(x2apic_msr(Register::SELF_IPI), HIGH.into());
    println!(" taken {:x}, in service {:x}", taken(), in_service());
    run(l2, "returns to xAPIC mode and changes the id", || {
        return_to_xapic();
        change_id();
    });
    print_id();
    // Disabling the APIC has ended everything (SDM 3A 11.4.3 "Enabling or Disabling the Local APIC").
    println!(" in service {:x}", in_service());
    ask_the_other();
    // The mapping of the page is gone and nothing cached of it is left: the stores reach the registers.
    send_by_page(HIGH);
    println!(" taken {:x}, in service {:x}", taken(), in_service());
    run(l2, "switches to x2APIC mode", switch_to_x2apic);
    print_id();
    end_in_x2apic();
    ask_the_other();
}

/// The other processor stays in xAPIC mode. It sends to this one's id, and itself; and where this one has another id, nobody has
/// the one that it came with.
fn ask_the_other() {
    if PAIR.load(Ordering::SeqCst) == 0 {
        return;
    }
    CROSSED.store(0, Ordering::SeqCst);
    OWNED.store(0, Ordering::SeqCst);
    ask(apic::id());
    println!(
        " the other processor: sent {}, took {} of its own",
        CROSSED.load(Ordering::SeqCst),
        OWNED.load(Ordering::SeqCst)
    );
    if apic::id() == OTHER_ID {
        ask(0);
        println!(" to the id of before: sent {}", CROSSED.load(Ordering::SeqCst) - 1);
    }
}

/// Lets interrupts in while the other processor sends.
fn ask(id: u32) {
    ASKED.store(id + 1, Ordering::SeqCst);
    while ASKED.load(Ordering::SeqCst) != 0 {
        cpu::take_interrupts();
    }
    cpu::take_interrupts();
}

fn second(_: u32) {
    apic::init();
    loop {
        let Some(id) = ASKED.load(Ordering::SeqCst).checked_sub(1) else {
            core::hint::spin_loop();
            continue;
        };
        apic::send(id, ASSERT | u32::from(CROSS));
        send_by_page(OWN);
        cpu::take_interrupts();
        guests::pm_timer::wait_microseconds(1000);
        ASKED.store(0, Ordering::SeqCst);
    }
}
