//! A guest that does what no kernel should. The first argument says what; without one it lists what there is.
//!
//! Some of it a machine survives: then the last line is `survived`, and what was refused is printed before it. Bochs itself
//! does not survive `port_storm` and the two `mmio_storm`s (it panics at what its devices lack), so these have no expected
//! log. The rest ends the machine or stops it for good; [`ENDS`] says how.
#![no_std]
#![no_main]
#![expect(clippy::cast_possible_truncation, reason = "ports, and halves of registers")]

mod apic_abuse;
mod ends;
mod l2_pages;
mod mmio_storm;
mod neighbour;
mod storms;

use guests::{Fault, apic, entry, exit, multiboot, pic, println};

entry!(main);

/// What a machine survives.
const SURVIVED: [(&str, fn()); 15] = [
    ("outside_memory", storms::outside_memory),
    ("jump_nowhere", storms::jump_nowhere),
    ("unknown_port", storms::unknown_port),
    ("unknown_msr", storms::unknown_msr),
    ("wild_cr", storms::wild_cr),
    ("cpuid_storm", storms::cpuid_storm),
    ("msr_storm", storms::msr_storm),
    ("port_storm", storms::port_storm),
    ("mmio_storm", mmio_storm::all),
    ("mmio_storm_ioapic", mmio_storm::ioapic),
    ("icr_storm", apic_abuse::icr_storm),
    ("apic_base_moved", apic_abuse::base_moved),
    // Takes all of a processor that it can get; `ticks=N` says for how many million ticks.
    ("spin_deaf", neighbour::spin_deaf),
    ("ipi_flood", neighbour::ipi_flood),
    ("l2_pages", l2_pages::all),
];

/// What ends the machine, or never ends.
const ENDS: [(&str, fn()); 12] = [
    // Shutdown, by three exceptions none of which has a handler.
    ("triple_fault", ends::triple_fault),
    // Shutdown, because the tables that exceptions need lie where no memory is.
    ("idt_outside", ends::idt_outside),
    ("gdt_outside", ends::gdt_outside),
    ("cr3_outside", ends::cr3_outside),
    // The exception's frame is pushed to where nothing keeps it: what the handler returns to is ones. May never end.
    ("stack_outside", ends::stack_outside),
    // Stops: nothing can wake it, or nothing it does ends.
    ("hlt_if0", ends::hlt_if0),
    ("endless_loop", ends::endless_loop),
    // Code in a device's registers.
    ("jump_apic", ends::jump_apic),
    // A second argument says by which instruction: what no driver does to a device's registers.
    ("mmio_other", mmio_storm::other),
    // The registers of the APIC over memory, which the manual allows; Nestling does not.
    ("apic_over_memory", apic_abuse::over_memory),
    // Starts the machine anew.
    ("init_self", ends::init_self),
    ("keyboard_reset", ends::keyboard_reset),
];

fn main() {
    let Some(word) = multiboot::arguments().next() else {
        SURVIVED.iter().chain(&ENDS).for_each(|(name, _)| println!("{name}"));
        return;
    };
    pic::remap();
    apic::init();
    if let Some((_, abuse)) = SURVIVED.iter().find(|(name, _)| *name == word) {
        println!("{word}");
        abuse();
        println!("survived");
    } else if let Some((_, abuse)) = ENDS.iter().find(|(name, _)| *name == word) {
        println!("{word}");
        guests::console::flush();
        abuse();
        println!("went on");
        exit(1);
    } else {
        println!("no abuse is called {word}");
        exit(2);
    }
}

/// Prints what came of something that may fault.
fn outcome(what: &str, fault: Option<Fault>) {
    match fault {
        Some(fault) => println!(" {what}: {fault}"),
        None => println!(" {what}: done"),
    }
}
