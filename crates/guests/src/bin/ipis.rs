//! Interrupts by the thousand, each ended by its handler: `self` sends them to the processor itself, in xAPIC mode and then in
//! x2APIC mode, `other` to another one that works with interrupts on, `flood` too, of all vectors and without waiting until they
//! are taken. With `moves` both first move their registers to and fro at the same time. `rounds=N` says how many in each mode. What they cost in exits only the hypervisor below can count.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use arch::apic::{DEFAULT_BASE, Register};
use arch::msr::Msr;
use guests::{apic, cpu, entry, exit, expect_fault, interrupts, memory, msr, multiboot, pic, println, smp};

entry!(main);

const VECTOR: u8 = 0x60;
/// ICR: level asserted; to the sender.
const ASSERT: u32 = 1 << 14;
const SELF: u32 = 1 << 18;

static TAKEN: AtomicU32 = AtomicU32::new(0);
static X2APIC: AtomicBool = AtomicBool::new(false);
/// The other processor takes interrupts.
static READY: AtomicBool = AtomicBool::new(false);
/// Rounds of its work.
static WORKED: AtomicU64 = AtomicU64::new(0);
/// How often the other one is to move its registers.
static TO_MOVE: AtomicU32 = AtomicU32::new(0);
static DONE: AtomicBool = AtomicBool::new(false);

fn main() {
    pic::remap();
    apic::init();
    let rounds = multiboot::number("rounds").unwrap_or(1);
    let is = |mode: &str| multiboot::arguments().any(|word| word == mode);
    let send: fn(u32) = if is("flood") {
        for vector in 32..255 {
            interrupts::handle(vector, |_| write(Register::EOI, 0));
        }
        |rounds| with_other(rounds, flood)
    } else if is("moves") {
        |rounds| with_other(rounds, moves)
    } else if is("other") {
        |rounds| with_other(rounds, one_by_one)
    } else {
        to_self
    };
    interrupts::handle(VECTOR, |_| {
        TAKEN.fetch_add(1, Ordering::SeqCst);
        write(Register::EOI, 0);
    });
    for x2apic in [false, true] {
        if x2apic {
            if !apic::has_x2apic() {
                break;
            }
            apic::enable_x2apic();
        }
        X2APIC.store(x2apic, Ordering::SeqCst);
        TAKEN.store(0, Ordering::SeqCst);
        send(rounds);
        println!("{} mode: {} taken", if x2apic { "x2APIC" } else { "xAPIC" }, TAKEN.load(Ordering::SeqCst));
        if is("self") {
            forbidden(x2apic);
        }
    }
}

/// Vectors that do not exist, and changes of mode that are not allowed. (Once its APIC is disabled, Bochs does not enable it
/// again.)
fn forbidden(x2apic: bool) {
    // Which of the two errors there are, Bochs says otherwise than the manual.
    let has_error = || {
        apic::write(Register::ESR, 0);
        apic::read(Register::ESR) != 0
    };
    for vector in [0, 15] {
        has_error();
        apic::send(0, SELF | ASSERT | vector);
        let by_command = has_error();
        if x2apic {
            msr::write(apic::x2apic_msr(Register::SELF_IPI), vector.into());
        }
        println!(" vector {vector}: an error {by_command}, by the register of its own {}", has_error());
    }
    let base = msr::read(Msr::APIC_BASE);
    for (name, value) in [
        ("enabled in no mode", base & !apic::ENABLE | apic::EXTD),
        ("xAPIC mode", base & !apic::EXTD),
        ("a reserved bit", base | 1 << 9),
        ("beyond the address width", base | 1 << 51),
    ] {
        match expect_fault(|| msr::write(Msr::APIC_BASE, value)) {
            Some(fault) => println!(" {name}: {fault}"),
            None => println!(" {name}: done"),
        }
    }
    println!(" still in x2APIC mode: {}", apic::is_x2apic());
}

/// Writes a register without asking the APIC for its mode, which takes an exit.
fn write(register: Register, value: u32) {
    if X2APIC.load(Ordering::SeqCst) {
        msr::write(apic::x2apic_msr(register), value.into());
    } else {
        memory::write_register(DEFAULT_BASE + u64::from(register.0), value);
    }
}

fn to_self(rounds: u32) {
    let (register, value) =
        if X2APIC.load(Ordering::SeqCst) { (Register::SELF_IPI, 0) } else { (Register::ICR, SELF | ASSERT) };
    cpu::sti();
    for _ in 0..rounds {
        write(register, value | u32::from(VECTOR));
    }
    cpu::cli();
}

fn with_other(rounds: u32, send: fn(u32, u32)) {
    READY.store(false, Ordering::SeqCst);
    DONE.store(false, Ordering::SeqCst);
    let Some(other) = smp::start_another(work) else {
        println!("there is no other processor");
        exit(1)
    };
    if !smp::wait_until(1000, || READY.load(Ordering::SeqCst)) {
        println!("the other processor did not start");
        exit(1)
    }
    send(other, rounds);
    DONE.store(true, Ordering::SeqCst);
    smp::wait_until(1000, || !READY.load(Ordering::SeqCst));
}

fn one_by_one(other: u32, rounds: u32) {
    for sent in 0..rounds {
        apic::send(other, ASSERT | u32::from(VECTOR));
        while TAKEN.load(Ordering::SeqCst) == sent {
            core::hint::spin_loop();
        }
    }
}

/// The other one gets on with its work meanwhile, and the last interrupt still arrives.
fn flood(other: u32, rounds: u32) {
    let before = WORKED.load(Ordering::SeqCst);
    for sent in 0..rounds {
        let vector = match sent & 0xff {
            // The gates of exceptions expect an error code here and there; Bochs does not end the spurious vector.
            16..32 | 255 => 15,
            vector if vector == u32::from(VECTOR) => 0,
            vector => vector,
        };
        apic::send(other, ASSERT | vector);
    }
    apic::send(other, ASSERT | u32::from(VECTOR));
    let is_taken = smp::wait_until(1000, || TAKEN.load(Ordering::SeqCst) == 1);
    println!("flood: the other one worked {}, the last came {is_taken}", WORKED.load(Ordering::SeqCst) > before);
}

/// Each move concerns the other one too, where a hypervisor makes the registers: two that tell each other go on.
fn moves(other: u32, rounds: u32) {
    TO_MOVE.store(rounds, Ordering::SeqCst);
    to_and_fro(rounds);
    let is_done = smp::wait_until(1000, || TO_MOVE.load(Ordering::SeqCst) == 0);
    println!("both moved {rounds} times: {is_done}");
    one_by_one(other, 5);
}

fn to_and_fro(rounds: u32) {
    /// No machine of ours has anything here.
    const HOLE: u64 = 0xfeb0_0000;
    let flags = msr::read(Msr::APIC_BASE) & 0xfff;
    for _ in 0..rounds {
        msr::write(Msr::APIC_BASE, HOLE | flags);
        msr::write(Msr::APIC_BASE, DEFAULT_BASE | flags);
    }
}

/// What the other processor does: nothing but count time, and move its registers when it is asked to.
fn work(_: u32) {
    if X2APIC.load(Ordering::SeqCst) && !apic::is_x2apic() {
        apic::enable_x2apic();
    }
    apic::init();
    cpu::sti();
    READY.store(true, Ordering::SeqCst);
    while !DONE.load(Ordering::SeqCst) {
        WORKED.fetch_add(1, Ordering::SeqCst);
        let rounds = TO_MOVE.load(Ordering::SeqCst);
        if rounds > 0 {
            to_and_fro(rounds);
            TO_MOVE.store(0, Ordering::SeqCst);
        }
    }
    cpu::cli();
    READY.store(false, Ordering::SeqCst);
}
