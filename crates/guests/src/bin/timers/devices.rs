//! Interrupts of the platform's devices.

use core::sync::atomic::{AtomicU64, Ordering};

use arch::apic::Register;
use guests::console::COM1;
use guests::pic::FIRST_VECTOR;
use guests::port::{in8, out8};
use guests::{apic, cpu, interrupts, ioapic, pic, pit, pm_timer, println};

use crate::{equal, listen, near, note, order, reset, taken, wait_for};

const PIT_LINE: u8 = 0;
const UART_LINE: u8 = 4;
const RTC_LINE: u8 = 8;
/// The PIT's pin: the MADT of the machines we run on says so.
const PIT_PIN: u32 = 2;
/// The vector of interrupts through the IOAPIC.
const VECTOR: u8 = 0x48;
/// Counts of the PIT that are 10 ms.
const TEN_MILLISECONDS: u16 = (pit::FREQUENCY / 100) as u16;

pub(crate) fn through_pic() {
    println!("PIT through the PIC");
    apic::write(Register::LVT_LINT0, 0x700);
    interrupts::handle(FIRST_VECTOR, |frame| {
        note(frame);
        pic::eoi(PIT_LINE);
    });
    pit_modes(|| pic::unmask(PIT_LINE), pic::mask_all);

    // An interrupt of the PIC is none of the APIC's.
    interrupts::handle(FIRST_VECTOR, |frame| {
        note(frame);
        equal("in service in the PIC", pic::in_service(PIT_LINE).into(), 1);
        equal("in service in the APIC", apic::bit(Register::ISR, FIRST_VECTOR).into(), 0);
        pic::eoi(PIT_LINE);
    });
    pic::unmask(PIT_LINE);
    reset();
    pit::start(0, 0, 1000);
    wait_for(1);
    pic::mask_all();

    println!("PIT without interrupts");
    pit_counts();
    println!("RTC through the PIC");
    interrupts::handle(FIRST_VECTOR + RTC_LINE, |frame| {
        note(frame);
        rtc_read(0x0c);
        pic::eoi(RTC_LINE);
    });
    rtc(|| pic::unmask(RTC_LINE), pic::mask_all);
    println!("priorities of the PIC");
    pic_priorities();
    apic::write(Register::LVT_LINT0, apic::MASKED);
}

fn pit_modes(open: fn(), close: fn()) {
    reset();
    pit::start(0, 0, TEN_MILLISECONDS);
    open();
    near("mode 0, one count of 10 ms", wait_for(1), 10_000, 2);
    listen(30_000);
    equal("mode 0, once only", taken().into(), 1);
    for mode in [2, 3] {
        pit::start(0, mode, TEN_MILLISECONDS);
        reset();
        wait_for(1);
        let what = if mode == 2 { "mode 2, 10 periods of 10 ms" } else { "mode 3, 10 periods of 10 ms" };
        near(what, wait_for(11), 100_000, 2);
    }
    // Quiet again: mode 0 ends with its output high and stays so.
    pit::start(0, 0, 1000);
    listen(2_000);
    close();
    reset();
    listen(30_000);
    equal("closed", taken().into(), 0);
}

fn pit_counts() {
    pit::start(0, 2, TEN_MILLISECONDS);
    let first = pit::count(0);
    // Long against what a hypervisor may do between the two and the reading.
    pm_timer::wait_microseconds(5_000);
    near("mode 2, counts down", (first.wrapping_sub(pit::count(0))).into(), 5966, 5);
    // Read-back of status and count of channel 0: status first. Null count and output are not looked at.
    out8(0x43, 0xc2);
    equal("read-back status", (in8(0x40) & 0x3f).into(), 0x34);
    in8(0x40);
    in8(0x40);
    // Channel 2 counts while its gate, bit 0 of port 61, is open; bit 5 is its output.
    out8(0x61, in8(0x61) & 0xfc | 1);
    pit::start(2, 0, TEN_MILLISECONDS);
    let (start, before) = (pm_timer::now(), in8(0x61) >> 5 & 1);
    while in8(0x61) & 0x20 == 0 {}
    let took = u64::from(pm_timer::since(start)) * 1_000_000 / pm_timer::FREQUENCY;
    equal("channel 2, output before", before.into(), 0);
    near("channel 2, counts 10 ms", took, 10_000, 2);
    out8(0x61, in8(0x61) & 0xfc);
}

fn rtc_read(register: u8) -> u8 {
    out8(0x70, register);
    in8(0x71)
}

fn rtc_write(register: u8, value: u8) {
    out8(0x70, register);
    out8(0x71, value);
}

fn rtc(open: fn(), close: fn()) {
    let (a, b) = (rtc_read(0x0a), rtc_read(0x0b));
    // 1,024 a second.
    rtc_write(0x0a, 0x26);
    rtc_read(0x0c);
    open();
    rtc_write(0x0b, b | 0x40);
    reset();
    wait_for(1);
    near("periodic, 102 of 1024 a second", wait_for(103), 99_609, 2);
    rtc_write(0x0b, b & !0x70);
    // One may have come while we printed; its handler reads register C.
    listen(1_000);
    reset();
    listen(10_000);
    equal("off", taken().into(), 0);
    rtc_read(0x0c);
    rtc_write(0x0b, b & !0x70 | 0x10);
    reset();
    wait_for(1);
    near("update-ended, 1 s", wait_for(2), 1_000_000, 2);
    rtc_write(0x0b, b);
    rtc_write(0x0a, a);
    close();
}

/// With interrupts off the PIT, the UART and the RTC request; then they are taken by the PIC's priority: line 0, the
/// second controller on line 2, line 4.
fn pic_priorities() {
    static NESTED: AtomicU64 = AtomicU64::new(0);
    static IN_SERVICE: AtomicU64 = AtomicU64::new(0);
    interrupts::handle(FIRST_VECTOR, |frame| {
        note(frame);
        pic::eoi(PIT_LINE);
    });
    interrupts::handle(FIRST_VECTOR + UART_LINE, |frame| {
        note(frame);
        out8(COM1 + 1, 0);
        pic::eoi(UART_LINE);
    });
    interrupts::handle(FIRST_VECTOR + RTC_LINE, |frame| {
        note(frame);
        let b = rtc_read(0x0b);
        rtc_write(0x0b, b & !0x40);
        rtc_read(0x0c);
        pic::eoi(RTC_LINE);
    });
    let request_all = || {
        guests::console::flush();
        out8(COM1 + 1, 2);
        rtc_write(0x0a, 0x26);
        let b = rtc_read(0x0b);
        rtc_read(0x0c);
        rtc_write(0x0b, b & !0x70 | 0x40);
        pit::start(0, 0, 1000);
        pm_timer::wait_microseconds(5_000);
        reset();
    };
    request_all();
    equal("requested, first controller", (pic::requested(0) & 0x15).into(), 0x11);
    equal("requested, second controller", (pic::requested(8) & 1).into(), 1);
    pic::unmask_these(1 << PIT_LINE | 1 << UART_LINE | 1 << RTC_LINE);
    listen(1_000);
    equal("order", order(), 0x20_28_24);

    // A handler that lets interrupts in is interrupted by a higher line and not by a lower one.
    interrupts::handle(FIRST_VECTOR + RTC_LINE, |frame| {
        note(frame);
        let b = rtc_read(0x0b);
        rtc_write(0x0b, b & !0x40);
        rtc_read(0x0c);
        pit::start(0, 0, 1000);
        listen(5_000);
        NESTED.store(order(), Ordering::SeqCst);
        IN_SERVICE.store(pic::in_service(0).into(), Ordering::SeqCst);
        pic::eoi(RTC_LINE);
    });
    pic::mask_all();
    request_all();
    pic::unmask_these(1 << PIT_LINE | 1 << UART_LINE | 1 << RTC_LINE);
    listen(1_000);
    equal("nested", NESTED.load(Ordering::SeqCst), 0x20_28_20);
    equal("in service meanwhile", IN_SERVICE.load(Ordering::SeqCst), 4);
    equal("order after the nested one", order(), 0x20_28_20_24);
    pic::mask_all();
    // A request that nobody takes because its line is masked stays requested.
    pit::start(0, 0, 1000);
    reset();
    listen(5_000);
    equal("masked, requested", (pic::requested(0) & 1).into(), 1);
    equal("masked, taken", taken().into(), 0);
    pic::unmask(PIT_LINE);
    listen(1_000);
    equal("unmasked, taken", taken().into(), 1);
    pic::mask_all();
    // Initialising it again forgets that.
    pic::remap();
}

fn open_ioapic() {
    ioapic::route(PIT_PIN, apic::id(), VECTOR.into());
}

fn close_ioapic() {
    ioapic::mask(PIT_PIN);
}

pub(crate) fn through_ioapic() {
    println!("IOAPIC");
    equal("24 pins", ioapic::pins().into(), 24);
    interrupts::handle(VECTOR, |frame| {
        note(frame);
        apic::eoi();
    });
    pit_modes(open_ioapic, close_ioapic);

    // By the logical id.
    apic::write(Register::DFR, u32::MAX);
    apic::write(Register::LDR, 0x20 << 24);
    ioapic::route(PIT_PIN, 0x20, u32::from(VECTOR) | ioapic::LOGICAL);
    reset();
    pit::start(0, 0, 1000);
    wait_for(1);
    println!(" logical destination: ok");
    ioapic::route(PIT_PIN, 0x40, u32::from(VECTOR) | ioapic::LOGICAL);
    reset();
    pit::start(0, 0, 1000);
    listen(5_000);
    equal("nobody's logical destination", taken().into(), 0);
    ioapic::mask(PIT_PIN);

    // As an NMI, which no flag keeps out.
    interrupts::handle(2, |frame| note(frame));
    ioapic::route(PIT_PIN, apic::id(), 4 << 8);
    reset();
    pit::start(0, 0, 1000);
    pm_timer::wait_microseconds(5_000);
    equal("as an NMI", order(), 2);
    ioapic::mask(PIT_PIN);
    interrupts::forget(2);

    println!("RTC through the IOAPIC");
    interrupts::handle(VECTOR, |frame| {
        note(frame);
        rtc_read(0x0c);
        apic::eoi();
    });
    rtc(|| ioapic::route(RTC_LINE.into(), apic::id(), VECTOR.into()), || ioapic::mask(RTC_LINE.into()));
}

/// The UART's interrupt that its transmitter is empty, and its loop.
pub(crate) fn uart() {
    println!("UART");
    static SEEN: AtomicU64 = AtomicU64::new(0);
    interrupts::handle(VECTOR, |frame| {
        note(frame);
        let identified = u64::from(in8(COM1 + 2) & 0xf);
        SEEN.store(u64::from(apic::bit(Register::TMR, VECTOR)) << 4 | identified, Ordering::SeqCst);
        apic::eoi();
    });
    for (what, level, seen) in [
        ("transmitter empty, edge-triggered", 0, 0x02),
        ("transmitter empty, level-triggered", ioapic::LEVEL, 0x12),
        ("transmitter empty, edge-triggered again", 0, 0x02),
    ] {
        ioapic::route(UART_LINE.into(), apic::id(), u32::from(VECTOR) | level);
        guests::console::flush();
        reset();
        out8(COM1 + 1, 2);
        listen(1_000);
        out8(COM1 + 1, 0);
        ioapic::mask(UART_LINE.into());
        equal(what, SEEN.load(Ordering::SeqCst), seen);
        equal("once", taken().into(), 1);
    }

    interrupts::handle(VECTOR, |frame| {
        note(frame);
        apic::eoi();
    });
    ioapic::route(UART_LINE.into(), apic::id(), VECTOR.into());
    guests::console::flush();
    // Loop: no FIFO, received data interrupts.
    out8(COM1 + 2, 0);
    out8(COM1 + 4, 0x1b);
    out8(COM1 + 1, 1);
    reset();
    let before = in8(COM1 + 5) & 1;
    out8(COM1, 0xa5);
    pm_timer::wait_microseconds(1_000);
    cpu::take_interrupts();
    let (interrupt, status, byte) = (in8(COM1 + 2) & 0xf, in8(COM1 + 5) & 1, in8(COM1));
    let after = in8(COM1 + 5) & 1;
    let modem = in8(COM1 + 6) >> 4;
    out8(COM1 + 1, 0);
    guests::console::init();
    ioapic::mask(UART_LINE.into());
    equal("loop, data ready", u64::from(before) << 8 | u64::from(status) << 4 | u64::from(after), 0x010);
    equal("loop, byte", byte.into(), 0xa5);
    equal("loop, interrupt", interrupt.into(), 4);
    equal("loop, interrupts", taken().into(), 1);
    equal("loop, modem lines", modem.into(), 0xb);
    // The scratch register keeps what it is given.
    out8(COM1 + 7, 0x5a);
    equal("scratch", in8(COM1 + 7).into(), 0x5a);
}
