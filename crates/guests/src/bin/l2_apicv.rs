//! L2 changes what L1's APIC is while it runs: mode, page, priorities, interrupts pending and in service. L1's processor helps with
//! its APIC or does not, and each change may switch the one to the other; back in L1 all must be as on the machine.
//!
//! Only what a bare Bochs can do is here: there an APIC that was globally disabled stays so, which is the only way back from x2APIC
//! mode.
//!
//! SDM 3A chapter 11 "Advanced Programmable Interrupt Controller (APIC)"; APIC_BASE and the x2APIC's MSRs are passed through to L2.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU32, Ordering};

use arch::apic::{DEFAULT_BASE, Register};
use arch::msr::Msr;
use guests::apic::{ENABLE, EXTD, x2apic_msr};
use guests::vmx::{Current, L2, pages, setup};
use guests::{apic, cpu, entry, interrupts, memory, msr, pic, println};
use vmcs::Access;
use vmcs::controls::PrimaryBased;
use vmcs::fields::MSR_BITMAP;

entry!(main);

/// Nothing of this machine is here: where L1 moves its APIC.
const ELSEWHERE: u64 = 0xfeb0_0000;
const HIGH: u8 = 0xe0;
const LOW: u8 = 0x61;
const LOWER: u8 = 0x51;
/// A self-IPI, by shorthand.
const TO_SELF: u32 = 0x4_4000;

/// Interrupts taken, four bits of each vector's class, the last in the lowest.
static TAKEN: AtomicU32 = AtomicU32::new(0);

fn main() {
    setup::require();
    if !apic::has_x2apic() {
        println!("no x2APIC");
        guests::exit(0);
    }
    pic::remap();
    apic::init();
    setup::on();
    for vector in [HIGH, LOW, LOWER] {
        interrupts::handle(vector, |frame| {
            TAKEN.store(
                TAKEN.load(Ordering::Relaxed) << 4 | u32::try_from(frame.vector).unwrap_or(0) >> 4,
                Ordering::Relaxed,
            );
        });
    }
    let mut l2 = L2::new(|| {});
    l2.control(|controls| controls.primary |= PrimaryBased::USE_MSR_BITMAPS);
    // All zeros: no MSR exits.
    Current.write(MSR_BITMAP, pages::take());

    in_xapic(&mut l2);
    to_x2apic(&mut l2);
    in_x2apic(&mut l2);
    println!("done");
}

fn taken() -> u32 {
    cpu::take_interrupts();
    TAKEN.swap(0, Ordering::Relaxed)
}

fn run(l2: &mut L2, what: &str, code: fn()) {
    l2.restart(code);
    println!(" L2 {what}: {}", l2.run());
}

fn set_base(base: u64, mode: u64) {
    msr::write(Msr::APIC_BASE, base | mode | msr::read(Msr::APIC_BASE) & 1 << 8);
}

/// The highest vector in service, out of ISR.
fn in_service() -> u8 {
    [HIGH, LOW, LOWER].into_iter().find(|&vector| apic::bit(Register::ISR, vector)).unwrap_or(0)
}

fn self_ipi(vector: u8) {
    apic::write(Register::ICR, TO_SELF | u32::from(vector));
}

/// The page of the APIC when it is elsewhere.
fn page(register: Register) -> u64 {
    ELSEWHERE + u64::from(register.0)
}

fn in_xapic(l2: &mut L2) {
    println!("in xAPIC mode");
    self_ipi(HIGH);
    println!(" taken {:x}, in service {:x}", taken(), in_service());
    run(l2, "moves it", || set_base(ELSEWHERE, ENABLE));
    println!(" where it was: {:x}", memory::read_register(DEFAULT_BASE + u64::from(Register::VERSION.0)));
    memory::write_register(page(Register::ICR), TO_SELF | u32::from(LOW));
    println!(" held back: {:x}", taken());
    memory::write_register(page(Register::EOI), 0);
    println!(" after EOI: {:x}", taken());
    run(l2, "moves it back", || set_base(DEFAULT_BASE, ENABLE));
    println!(" in service {:x}", in_service());
    self_ipi(LOWER);
    println!(" held back: {:x}", taken());
    apic::eoi();
    println!(" after EOI: {:x}, in service {:x}", taken(), in_service());
    run(l2, "ends the interrupt", apic::eoi);
    println!(" in service {:x}", in_service());
    interrupts_while_l2_runs(l2);
}

fn to_x2apic(l2: &mut L2) {
    println!("from xAPIC mode to x2APIC mode");
    set_base(ELSEWHERE, ENABLE);
    memory::write_register(page(Register::ICR), TO_SELF | u32::from(HIGH));
    println!(" moved, taken {:x}, version {:x}", taken(), memory::read_register(page(Register::VERSION)) >> 4 & 0xf);
    run(l2, "switches to x2APIC mode at the usual place", || set_base(DEFAULT_BASE, ENABLE | EXTD));
    memory::write_register(page(Register::EOI), 0);
    memory::write_register(DEFAULT_BASE + u64::from(Register::EOI.0), 0);
    println!(" in service after two stores to where it was: {:x}", in_service());
    self_ipi(LOW);
    println!(" held back: {:x}", taken());
    apic::eoi();
    println!(" after EOI: {:x}, in service {:x}", taken(), in_service());
    apic::eoi();
}

fn in_x2apic(l2: &mut L2) {
    println!("in x2APIC mode");
    self_ipi(HIGH);
    println!(" taken {:x}, in service {:x}", taken(), in_service());
    msr::write(x2apic_msr(Register::SELF_IPI), LOW.into());
    run(l2, "ends the interrupt", || msr::write(x2apic_msr(Register::EOI), 0));
    println!(" in service {:x}, taken {:x}, in service {:x}", in_service(), taken(), in_service());
    apic::eoi();
    interrupts_while_l2_runs(l2);
}

/// In either mode.
fn interrupts_while_l2_runs(l2: &mut L2) {
    run(l2, "sends itself two", || {
        self_ipi(LOWER);
        self_ipi(LOW);
    });
    println!(" taken {:x}, in service {:x}", taken(), in_service());
    run(l2, "ends one", apic::eoi);
    println!(" taken {:x}, in service {:x}", taken(), in_service());
    apic::eoi();
    run(l2, "raises the task priority", || apic::write(Register::TPR, 0x70));
    self_ipi(LOW);
    println!(" taken {:x}, cr8 {:x}", taken(), cpu::cr8());
    run(l2, "lowers it by CR8", || cpu::write_cr8(5));
    println!(" taken {:x}, task priority {:x}", taken(), apic::read(Register::TPR));
    apic::eoi();
    self_ipi(LOWER);
    println!(" taken {:x}", taken());
    cpu::write_cr8(0);
    println!(" taken {:x}", taken());
    apic::eoi();
}
