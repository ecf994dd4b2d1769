//! A guest that says what is typed on its console, line by line, until the line is `end`. It sleeps between keys.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU8, AtomicU32, AtomicUsize, Ordering::SeqCst};

use guests::console::COM1;
use guests::port::{in8, out8};
use guests::{apic, cpu, entry, exit, interrupts, pic, println};

entry!(main);

/// COM1's interrupt.
const LINE: u8 = 4;

/// The line so far; the keys after it are lost when it is full.
static TYPED: [AtomicU8; 80] = [const { AtomicU8::new(0) }; 80];
static LENGTH: AtomicUsize = AtomicUsize::new(0);
static INTERRUPTS: AtomicU32 = AtomicU32::new(0);

fn main() {
    pic::remap();
    apic::init();
    interrupts::handle(pic::FIRST_VECTOR + LINE, |_| {
        INTERRUPTS.fetch_add(1, SeqCst);
        pic::eoi(LINE);
    });
    // What the PIC says when a line fell before it was taken: keys are read as they come.
    interrupts::handle(pic::FIRST_VECTOR + 7, |_| ());
    pic::unmask(LINE);
    // Received data interrupts; `console::init` has let them through.
    out8(COM1 + 1, 1);
    println!("type");
    loop {
        while in8(COM1 + 5) & 1 != 0 {
            key(in8(COM1));
        }
        cpu::wait_for_interrupt();
    }
}

fn key(key: u8) {
    let length = LENGTH.load(SeqCst);
    if key != b'\r' {
        if let Some(place) = TYPED.get(length) {
            place.store(key, SeqCst);
            LENGTH.store(length + 1, SeqCst);
        }
        return;
    }
    let mut line = [0; TYPED.len()];
    line.iter_mut().zip(&TYPED).for_each(|(byte, typed)| *byte = typed.load(SeqCst));
    LENGTH.store(0, SeqCst);
    let line = core::str::from_utf8(&line[..length]).unwrap_or("no text");
    println!("typed {line:?}");
    if line == "end" {
        println!("by interrupts: {}", INTERRUPTS.load(SeqCst) > 0);
        exit(0);
    }
}
