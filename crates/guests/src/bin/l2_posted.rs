//! Posted interrupts: one processor's L1 posts, the other one's L2 takes them. SDM 3C 30.6 "Posted-Interrupt Processing".
//!
//! The second processor is the L1 and prints; the first one posts when it is asked to, while L2 runs or halts. The descriptor
//! lies in a page of its own, since Bochs wants that.
#![no_std]
#![no_main]

use core::arch::asm;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use arch::apic::Register;
use arch::msr::Msr;
use guests::vmx::{Current, L2, VirtualApic, equal, pages, setup};
use guests::{apic, cpu, entry, exit, interrupts, pic, pm_timer, println, smp};
use vmcs::Access;
use vmcs::controls::{ExitControls, PinBased, PrimaryBased, SecondaryBased};
use vmcs::fields::{GUEST_ACTIVITY_STATE, GUEST_RFLAGS, MSR_BITMAP, POSTED_INTR_DESC_ADDR, POSTED_INTR_NV};

entry!(main);

/// The vector that tells of posts, and another one.
const NOTIFICATION: u8 = 0xe2;
const OTHER: u8 = 0xe5;
/// Bits of the descriptor's control word, bits 256 and 257 of all: a notification is outstanding; do not send any.
const OUTSTANDING: u64 = 1 << 0;
const SUPPRESS: u64 = 1 << 1;

/// What the first processor shall do; 0 when it has.
static ASKED: AtomicU32 = AtomicU32::new(0);
const POST: u32 = 1;
const NOTIFY: u32 = 2;
const SEND_OTHER: u32 = 3;
const SWITCH: u32 = 4;
const END: u32 = 5;

/// The vectors to post, a byte for each.
static VECTORS: AtomicU32 = AtomicU32::new(0);
/// How many interrupts L2 has taken, and shall take.
static TAKEN: AtomicU32 = AtomicU32::new(0);
static WANTED: AtomicU32 = AtomicU32::new(0);
/// The descriptor: request bits and control word.
static DESCRIPTOR: Descriptor = Descriptor([const { AtomicU64::new(0) }; 512]);

#[repr(align(4096))]
struct Descriptor([AtomicU64; 512]);

impl Descriptor {
    fn control(&self) -> &AtomicU64 {
        &self.0[4]
    }

    fn posted(&self) -> u64 {
        self.0[..4].iter().map(|word| u64::from(word.load(Ordering::SeqCst).count_ones())).sum()
    }

    /// Says whether to notify.
    fn post(&self, vector: u8) -> bool {
        self.0[usize::from(vector / 64)].fetch_or(1 << (vector % 64), Ordering::SeqCst);
        let before = self.control().load(Ordering::SeqCst);
        before & SUPPRESS == 0 && self.control().fetch_or(OUTSTANDING, Ordering::SeqCst) & OUTSTANDING == 0
    }
}

fn main() {
    setup::require();
    pic::remap();
    apic::init();
    let Some(other) = smp::start_another(second) else {
        println!("one processor only");
        exit(0);
    };
    loop {
        let asked = ASKED.load(Ordering::SeqCst);
        if asked == 0 {
            core::hint::spin_loop();
            continue;
        }
        // Whoever asked is where it wants to be by then.
        pm_timer::wait_microseconds(2000);
        match asked {
            POST => {
                let vectors = VECTORS.load(Ordering::SeqCst).to_le_bytes();
                let posts = vectors.iter().filter(|&&vector| vector != 0).filter(|&&vector| DESCRIPTOR.post(vector));
                if posts.count() > 0 {
                    apic::send(other, 0x4000 | u32::from(NOTIFICATION));
                }
            }
            NOTIFY => apic::send(other, 0x4000 | u32::from(NOTIFICATION)),
            SEND_OTHER => apic::send(other, 0x4000 | u32::from(OTHER)),
            SWITCH => apic::enable_x2apic(),
            _ => exit(0),
        }
        pm_timer::wait_microseconds(2000);
        ASKED.store(0, Ordering::SeqCst);
    }
}

/// Asks the first processor; it acts a while later.
fn ask(what: u32) {
    ASKED.store(what, Ordering::SeqCst);
}

fn ask_and_wait(what: u32) {
    ask(what);
    while ASKED.load(Ordering::SeqCst) != 0 {
        core::hint::spin_loop();
    }
}

/// L2 does nothing until it has taken what it shall take.
fn spin() {
    while TAKEN.load(Ordering::SeqCst) < WANTED.load(Ordering::SeqCst) {
        core::hint::spin_loop();
    }
}

/// L2 waits until what is asked for was posted and is in the descriptor no more.
fn until_processed() {
    while ASKED.load(Ordering::SeqCst) != 0 || DESCRIPTOR.posted() != 0 {
        core::hint::spin_loop();
    }
}

struct Guest {
    l2: L2,
    apic: VirtualApic,
}

impl Guest {
    fn new() -> Option<Self> {
        let mut l2 = L2::new(|| {});
        let has = l2.control(|controls| {
            controls.pin |= PinBased::EXTERNAL_INTERRUPT_EXITING | PinBased::PROCESS_POSTED_INTERRUPTS;
            controls.primary |= PrimaryBased::USE_TPR_SHADOW | PrimaryBased::USE_MSR_BITMAPS;
            controls.secondary |= SecondaryBased::VIRTUALIZE_X2APIC_MODE
                | SecondaryBased::APIC_REGISTER_VIRTUALIZATION
                | SecondaryBased::VIRTUAL_INTERRUPT_DELIVERY;
            controls.exit |= ExitControls::ACKNOWLEDGE_INTERRUPT_ON_EXIT;
        });
        let apic = VirtualApic::for_current();
        let mut current = Current;
        current.write(MSR_BITMAP, pages::take());
        if has {
            current.write(POSTED_INTR_NV, NOTIFICATION.into());
            current.write(POSTED_INTR_DESC_ADDR, &raw const DESCRIPTOR as u64);
        }
        has.then_some(Self { l2, apic })
    }

    /// Lets L2 run `code` until it has taken `wanted` interrupts; `vectors` are posted meanwhile.
    fn run(&mut self, what: &str, vectors: [u8; 4], wanted: u32, code: fn()) {
        self.apic.set(0, 0);
        self.prepare(vectors, wanted, code);
        ask(POST);
        self.finish(what);
    }

    /// L2 is to begin with interrupts on.
    fn prepare(&mut self, vectors: [u8; 4], wanted: u32, code: fn()) {
        VECTORS.store(u32::from_le_bytes(vectors), Ordering::SeqCst);
        TAKEN.store(0, Ordering::SeqCst);
        WANTED.store(wanted, Ordering::SeqCst);
        self.l2.restart(code);
        Current.write(GUEST_RFLAGS, 0x202);
    }

    fn finish(&mut self, what: &str) {
        println!(" {what}: {}", self.l2.run());
        while ASKED.load(Ordering::SeqCst) != 0 {
            core::hint::spin_loop();
        }
        self.show();
    }

    fn show(&self) {
        let control = DESCRIPTOR.control().load(Ordering::SeqCst);
        println!("  {}; {} posted, control {control:x}", self.apic, DESCRIPTOR.posted());
        let bits = [Register::IRR, Register::ISR].map(|register| apic::bit(register, NOTIFICATION));
        if bits != [false; 2] {
            println!("  L1's APIC has the notification: requested {}, in service {}", bits[0], bits[1]);
        }
    }
}

fn second(_: u32) {
    apic::init();
    setup::on();
    println!("posted interrupts");
    let Some(mut guest) = Guest::new() else {
        println!(" skip: the machine has none of this");
        ask(END);
        cpu::stop();
    };
    for vector in [0x41, 0x51, 0x61, 0x71] {
        interrupts::handle(vector, |frame| {
            println!("  L2 takes {:x}", frame.vector);
            msr_end();
            TAKEN.fetch_add(1, Ordering::SeqCst);
        });
    }
    refused(&mut guest);
    all(&mut guest);
    if apic::has_x2apic() {
        println!("with L1 in x2APIC mode");
        ask_and_wait(SWITCH);
        apic::enable_x2apic();
        all(&mut guest);
    }
    println!("done");
    ask(END);
    cpu::stop();
}

/// L2 ends the interrupt in service.
fn msr_end() {
    guests::msr::write(Msr(0x80b), 0);
}

/// The rules of VM entry, and a vector that no APIC takes.
fn refused(guest: &mut Guest) {
    let descriptor = &raw const DESCRIPTOR as u64;
    let mut current = Current;
    for (what, at) in [("not aligned", descriptor | 0x20), ("too far", 1 << 52)] {
        current.write(POSTED_INTR_DESC_ADDR, at);
        println!(" descriptor {what}: {}", guest.l2.run());
    }
    current.write(POSTED_INTR_DESC_ADDR, descriptor);
    for vector in [0x100, 0xffff, 0, 0xf] {
        current.write(POSTED_INTR_NV, vector);
        guest.l2.restart(|| {});
        println!(" notification vector {vector:x}: {}", guest.l2.run());
    }
    current.write(POSTED_INTR_NV, NOTIFICATION.into());
    guest.l2.control(|controls| controls.exit -= ExitControls::ACKNOWLEDGE_INTERRUPT_ON_EXIT);
    println!(" without acknowledge: {}", guest.l2.run());
    guest.l2.control(|controls| {
        controls.exit |= ExitControls::ACKNOWLEDGE_INTERRUPT_ON_EXIT;
        controls.secondary -= SecondaryBased::VIRTUAL_INTERRUPT_DELIVERY;
    });
    println!(" without delivery: {}", guest.l2.run());
    guest.l2.control(|controls| controls.secondary |= SecondaryBased::VIRTUAL_INTERRUPT_DELIVERY);
}

fn all(guest: &mut Guest) {
    while_l2_runs(guest);
    while_l2_halts(guest);
    while_l1_runs(guest);
    others(guest);
}

fn while_l2_runs(guest: &mut Guest) {
    guest.run("one", [0x61, 0, 0, 0], 1, spin);
    guest.run("three", [0x51, 0x71, 0x61, 0], 3, spin);
    guest.run("of which its task priority lets one in", [0x51, 0x71, 0x61, 0], 1, || {
        cpu::write_cr8(6);
        spin();
    });
    guest.run("one, and one in service", [0x51, 0, 0, 0], 0, || {
        interrupts::handle(0x61, |_| {
            println!("  L2 takes 61 and keeps it");
            until_processed();
            cpu::take_interrupts();
            println!("  L2 ends it");
            msr_end();
        });
        guests::msr::write(Msr(0x83f), 0x61);
        cpu::take_interrupts();
    });
    interrupts::handle(0x61, |_| {
        println!("  L2 takes 61");
        msr_end();
        TAKEN.fetch_add(1, Ordering::SeqCst);
    });
    // It is processed whatever L2's flag says.
    guest.run("interrupts off", [0x61, 0, 0, 0], 1, || {
        cpu::cli();
        until_processed();
        println!("  L2 lets it in");
        cpu::sti();
        spin();
    });
}

fn while_l2_halts(guest: &mut Guest) {
    fn halt() {
        while TAKEN.load(Ordering::SeqCst) < WANTED.load(Ordering::SeqCst) {
            // Bochs delivers what it has found in the descriptor an instruction late.
            // SAFETY: every vector has a gate.
            unsafe { asm!("sti", "hlt", "nop", "nop", "cli", options(nostack)) };
            println!("  L2 woke");
        }
    }
    guest.run("one, in HLT", [0x61, 0, 0, 0], 1, halt);
    guest.run("two, in HLT", [0x61, 0x71, 0, 0], 2, halt);
    guest.apic.set(0, 0);
    guest.prepare([0x61, 0, 0, 0], 1, || println!("  L2 goes on"));
    Current.write(GUEST_ACTIVITY_STATE, 1);
    ask(POST);
    guest.finish("one, entered in HLT");
    equal("active", Current.read(GUEST_ACTIVITY_STATE).into(), 0);
}

/// For L1 the notification is an interrupt like any other; the descriptor is the processor's only while L2 runs.
fn while_l1_runs(guest: &mut Guest) {
    guest.apic.set(0, 0);
    guest.prepare([0x61, 0x51, 0, 0], 2, spin);
    ask_and_wait(POST);
    println!(" while L1 runs, interrupts off");
    guest.show();
    guest.finish("then L2 does");
    guest.apic.set(0, 0);
    guest.prepare([0x61, 0, 0, 0], 0, spin);
    interrupts::handle(NOTIFICATION, |_| {
        println!("  L1 takes the notification");
        apic::eoi();
    });
    ask_and_wait(POST);
    cpu::take_interrupts();
    guest.finish("while L1 runs, interrupts on");
    // L2 has seen nothing of it. Sent again, it is processed at the entry.
    guest.prepare([0; 4], 1, spin);
    send_to_self();
    guest.finish("sent again");
    interrupts::forget(NOTIFICATION);
}

fn send_to_self() {
    if apic::is_x2apic() {
        guests::msr::write(Msr(0x83f), NOTIFICATION.into());
    } else {
        apic::write(Register::ICR, 0x4_4000 | u32::from(NOTIFICATION));
    }
}

fn others(guest: &mut Guest) {
    // Nobody may notify: it waits until somebody does.
    DESCRIPTOR.control().store(SUPPRESS | 0xab00, Ordering::SeqCst);
    guest.run("suppressed", [0x61, 0, 0, 0], 0, spin);
    guest.prepare([0; 4], 1, spin);
    ask(NOTIFY);
    guest.finish("a notification nevertheless");
    DESCRIPTOR.control().store(0, Ordering::SeqCst);
    interrupts::handle(OTHER, |_| println!("nobody takes it"));
    guest.prepare([0; 4], 1, spin);
    ask(SEND_OTHER);
    guest.finish("another vector");
    equal("in service", apic::bit(Register::ISR, OTHER).into(), 1);
    apic::eoi();
    interrupts::forget(OTHER);
}
