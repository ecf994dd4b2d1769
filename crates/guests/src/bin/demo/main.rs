//! What `cargo xtask run` shows when it is given no guest: a small kernel that looks around, starts its processors, takes
//! timer interrupts, runs a guest of its own where it may, and switches the machine off.
#![no_std]
#![expect(clippy::cast_possible_truncation, reason = "a 64-bit machine, and numbers cut to what a register takes")]
#![no_main]

mod hypervisor;

use core::sync::atomic::{AtomicU32, Ordering};

use arch::apic::Register;
use guests::{acpi, apic, cpu, entry, exit, interrupts, multiboot, pic, pit, pm_timer, print, println, smp};

entry!(main);

/// Interrupts a second.
const RATE: u16 = 100;
/// Seconds the demo counts.
const SECONDS: u32 = 3;

static TICKS: AtomicU32 = AtomicU32::new(0);
static STARTED: AtomicU32 = AtomicU32::new(1);

fn main() {
    println!("Hello. This is a guest: a multiboot kernel in 64-bit mode.");
    show_machine();
    start_processors();
    count_ticks();
    hypervisor::show();
    println!("Switching the machine off through ACPI. Goodbye.");
    exit::power_off()
}

fn show_machine() {
    print!("  processor    ");
    print_text((0x8000_0002..=0x8000_0004).flat_map(|leaf| {
        let part = cpu::cpuid(leaf, 0);
        [part.eax, part.ebx, part.ecx, part.edx]
    }));
    print!("  hypervisor   ");
    if cpu::cpuid(1, 0).ecx & 1 << 31 == 0 {
        println!("none: this is the bare machine");
    } else {
        let part = cpu::cpuid(0x4000_0000, 0);
        print_text([part.ebx, part.ecx, part.edx].into_iter());
    }
    println!("  memory       {} MiB", multiboot::upper_kib().div_ceil(1024) + 1);
    println!("  command line {}", multiboot::command_line());
}

/// Prints the text that CPUID gives in registers, without the spaces around it.
fn print_text(registers: impl Iterator<Item = u32>) {
    let mut pending = 0;
    let mut begun = false;
    for byte in registers.flat_map(u32::to_le_bytes).take_while(|&byte| byte != 0) {
        if byte == b' ' {
            pending += 1;
            continue;
        }
        if begun {
            (0..pending).for_each(|_| print!(" "));
        }
        print!("{}", char::from(byte));
        (begun, pending) = (true, 0);
    }
    println!();
}

fn start_processors() {
    apic::init();
    smp::prepare(
        |_| {
            STARTED.fetch_add(1, Ordering::SeqCst);
            cpu::stop()
        },
        1,
    );
    let own = apic::id();
    let mut expected = 1;
    for id in acpi::processors().filter(|&id| id != own) {
        smp::start_processor(id);
        expected += 1;
        smp::wait_until(100, || STARTED.load(Ordering::SeqCst) == expected);
    }
    println!("  processors   {} of {expected} started", STARTED.load(Ordering::SeqCst));
}

fn count_ticks() {
    println!("The interval timer shall interrupt {RATE} times a second. A dot is a tenth of a second.");
    pic::remap();
    apic::write(Register::LVT_LINT0, 0x700);
    interrupts::handle(pic::FIRST_VECTOR, |_| {
        TICKS.fetch_add(1, Ordering::Relaxed);
        pic::eoi(0);
    });
    pit::start(0, 2, (pit::FREQUENCY / u32::from(RATE)) as u16);
    pic::unmask(0);
    for second in 1..=SECONDS {
        let start = pm_timer::now();
        print!("  ");
        for _ in 0..10 {
            let until = TICKS.load(Ordering::Relaxed) + u32::from(RATE) / 10;
            while TICKS.load(Ordering::Relaxed) < until {
                cpu::wait_for_interrupt();
            }
            print!(".");
        }
        let milliseconds = u64::from(pm_timer::since(start)) * 1000 / pm_timer::FREQUENCY;
        println!(" {} ticks, {milliseconds} ms by the power-management timer", second * u32::from(RATE));
    }
    pic::mask_all();
}
