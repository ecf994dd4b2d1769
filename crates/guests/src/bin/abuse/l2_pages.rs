//! An L2 whose APIC lies where nobody should look: over devices, firmware, nothing, and what L1 gave the processor for something
//! else. Entries and exits may come of it, and values that mean nothing; neither L1 nor the other processor is harmed.

use core::sync::atomic::{AtomicU32, Ordering};

use arch::apic::Register;
use arch::msr::Msr;
use guests::vmx::{Current, L2, pages, setup};
use guests::{apic, cpu, expect_fault, fault, interrupts, memory, msr, println, smp};
use vmcs::Access;
use vmcs::controls::{ExitControls, PinBased, PrimaryBased, SecondaryBased};
use vmcs::field::{Field, W64};
use vmcs::fields::*;

/// Devices, the video memory, firmware, the end of memory and what lies beyond, where L0 may be. The guest's own come to these.
const PLACES: [u64; 12] = [
    0xfee0_0000,
    0xfec0_0000,
    0xa_0000,
    0xf_f000,
    0x2000_0000,
    0x2040_0000,
    0x2200_0000,
    0x2ff0_0000,
    0xffff_f000,
    1 << 32,
    0x1_2000_0000,
    0xff_ffff_f000,
];
/// The fields that name a page.
const FIELDS_OF_PAGES: [Field<W64>; 3] = [VIRTUAL_APIC_PAGE_ADDR, APIC_ACCESS_ADDR, POSTED_INTR_DESC_ADDR];
const NOTIFICATION: u8 = 0xe2;
const OWN: u8 = 0x71;

/// Self-IPIs of the other processor that did not arrive, or arrived twice.
static LOST: AtomicU32 = AtomicU32::new(0);
static ROUNDS: AtomicU32 = AtomicU32::new(0);
static TAKEN: AtomicU32 = AtomicU32::new(0);
static STOP: AtomicU32 = AtomicU32::new(0);

pub(crate) fn all() {
    setup::require();
    let other = smp::start_another(second);
    let vmxon = setup::on();
    let mut l2 = L2::new(|| {});
    let bitmap = pages::take();
    let good = pages::take_several(3);
    let own = [vmxon, l2.region, bitmap, good, good + 4096, good + 2 * 4096];
    for place in PLACES.into_iter().chain(own) {
        for (which, field) in FIELDS_OF_PAGES.into_iter().enumerate() {
            for delivers in [false, true] {
                prepare(&mut l2, bitmap, good, delivers);
                if has(&l2, which) {
                    Current.write(field, place);
                    run(&mut l2);
                }
            }
        }
    }
    // It still works.
    prepare(&mut l2, bitmap, good, false);
    println!(" L2 afterwards: {}", l2.run());
    if other.is_some() {
        STOP.store(1, Ordering::SeqCst);
        while STOP.load(Ordering::SeqCst) != 2 {
            core::hint::spin_loop();
        }
        let is_busy = ROUNDS.load(Ordering::SeqCst) > 100;
        println!(" the other processor was busy: {is_busy}, lost {}", LOST.load(Ordering::SeqCst));
    }
}

/// Whether L2 has what the field is for.
fn has(l2: &L2, which: usize) -> bool {
    match which {
        0 => l2.controls.primary.contains(PrimaryBased::USE_TPR_SHADOW),
        1 => l2.controls.secondary.contains(SecondaryBased::VIRTUALIZE_APIC_ACCESSES),
        _ => l2.controls.pin.contains(PinBased::PROCESS_POSTED_INTERRUPTS),
    }
}

/// An L2 with an APIC that is where it should be: its page recognized, or its MSRs and all of delivery.
fn prepare(l2: &mut L2, bitmap: u64, good: u64, delivers: bool) {
    for offset in (0..4096).step_by(8) {
        memory::write(bitmap + offset, 0_u64);
    }
    l2.reset(touch);
    l2.control(|controls| controls.primary |= PrimaryBased::USE_TPR_SHADOW | PrimaryBased::USE_MSR_BITMAPS);
    if delivers {
        l2.control(|controls| {
            controls.pin |= PinBased::EXTERNAL_INTERRUPT_EXITING | PinBased::PROCESS_POSTED_INTERRUPTS;
            controls.exit |= ExitControls::ACKNOWLEDGE_INTERRUPT_ON_EXIT;
            controls.secondary |= SecondaryBased::VIRTUALIZE_X2APIC_MODE
                | SecondaryBased::APIC_REGISTER_VIRTUALIZATION
                | SecondaryBased::VIRTUAL_INTERRUPT_DELIVERY;
        });
    } else {
        l2.control(|controls| controls.secondary |= SecondaryBased::VIRTUALIZE_APIC_ACCESSES);
    }
    let mut current = Current;
    current.write(MSR_BITMAP, bitmap);
    for (which, field) in FIELDS_OF_PAGES.into_iter().enumerate().filter(|&(which, _)| has(l2, which)) {
        current.write(field, good + 4096 * which as u64);
    }
    if has(l2, 2) {
        current.write(POSTED_INTR_NV, NOTIFICATION.into());
    }
}

/// L2 uses its APIC in all ways.
fn touch() {
    _ = expect_fault(|| cpu::write_cr8(cpu::cr8() ^ 5));
    _ = expect_fault(|| msr::write(Msr(0x808), 0x20));
    _ = expect_fault(|| msr::write(Msr(0x83f), 0x61));
    _ = expect_fault(|| msr::write(Msr(0x80b), 0));
    _ = expect_fault(|| _ = msr::read(Msr(0x80a)));
}

/// Enters a few times, with a notification on its way.
fn run(l2: &mut L2) {
    // What comes of it is anything, and does not matter.
    apic::write(Register::ICR, 0x4_4000 | u32::from(NOTIFICATION));
    for _ in 0..3 {
        let report = l2.run();
        fault::forget();
        if report.is_done() || report.reason().is_none() {
            break;
        }
        if report.is_instruction() {
            l2.skip();
        }
    }
    // An exit that acknowledged it has left it in service.
    interrupts::handle(NOTIFICATION, |_| {});
    cpu::take_interrupts();
    while apic::bit(Register::ISR, NOTIFICATION) {
        apic::eoi();
    }
}

/// Sends itself interrupts, one after the other, and counts what comes of it.
fn second(_: u32) {
    apic::init();
    interrupts::handle(OWN, |_| {
        TAKEN.fetch_add(1, Ordering::SeqCst);
        apic::eoi();
    });
    while STOP.load(Ordering::SeqCst) == 0 {
        TAKEN.store(0, Ordering::SeqCst);
        apic::write(Register::ICR, 0x4_4000 | u32::from(OWN));
        cpu::take_interrupts();
        ROUNDS.fetch_add(1, Ordering::SeqCst);
        LOST.fetch_add(u32::from(TAKEN.load(Ordering::SeqCst) != 1), Ordering::SeqCst);
    }
    STOP.store(2, Ordering::SeqCst);
    cpu::stop();
}
