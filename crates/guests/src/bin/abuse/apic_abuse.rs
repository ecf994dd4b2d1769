//! The APIC told everything there is to tell.

use arch::apic::{DEFAULT_BASE, Register};
use arch::msr::Msr;
use guests::{apic, cpu, expect_fault, interrupts, ioapic, memory, msr, println};

/// Writes nearly every kind of ICR. INIT and start-up for this processor are left out: they would be obeyed.
pub(crate) fn icr_storm() {
    for vector in 32..=255 {
        interrupts::handle(vector, |_| apic::eoi());
    }
    interrupts::handle(2, |_| ());
    for x2apic in [false, true] {
        if x2apic {
            if !apic::has_x2apic() {
                break;
            }
            apic::enable_x2apic();
            apic::init();
        }
        // Delivery mode, destination mode, delivery status, a reserved bit, level, trigger mode; shorthands; bits above.
        for bits in 0..0x2000_u32 {
            let (mode, shorthand) = (bits & 7, bits >> 10 & 3);
            // SMI goes to the firmware, INIT and start-up reach this processor by shorthand or by a broadcast.
            if matches!(mode, 2 | 5 | 6) && shorthand != 3 {
                continue;
            }
            for vector in [15, 0x60, 0xff] {
                for destination in [0, 1, u32::MAX] {
                    let low = vector | bits << 8;
                    let _ = expect_fault(|| {
                        if x2apic {
                            msr::write(apic::x2apic_msr(Register::ICR), u64::from(destination) << 32 | u64::from(low));
                        } else {
                            apic::write(Register::ICR_HIGH, destination << 24);
                            apic::write(Register::ICR, low);
                        }
                    });
                }
            }
            cpu::take_interrupts();
        }
        println!(" {} mode", if x2apic { "x2APIC" } else { "xAPIC" });
    }
    // It works still.
    for register in (0x800..0x900).filter(|&number| number != 0x830 && number != 0x83f) {
        for value in [0, 1, u64::from(u32::MAX), u64::MAX] {
            let _ = expect_fault(|| _ = msr::read(Msr(register)));
            let _ = expect_fault(|| msr::write(Msr(register), value));
        }
    }
    apic::init();
    cpu::take_interrupts();
}

/// The APIC's page over addresses where nothing is, over the IOAPIC's page, and back.
pub(crate) fn base_moved() {
    /// No machine of ours has anything here.
    const HOLE: u64 = 0xfeb0_0000;
    // Every APIC of today has 1 in the high half of its version.
    let version = |base: u64| memory::read_register(base + u64::from(Register::VERSION.0)) >> 4 & 0xf;
    move_to(HOLE);
    println!(" elsewhere, version {:x}", version(HOLE));
    println!(" where it was: {:x}", memory::read_register(DEFAULT_BASE + 0x30));
    move_to(DEFAULT_BASE);
    println!(" back, version {:x}", version(DEFAULT_BASE));
    let pins = ioapic::pins();
    move_to(0xfec0_0000);
    println!(" over the IOAPIC, version {:x}", version(0xfec0_0000));
    move_to(DEFAULT_BASE);
    println!(" back, the same pins: {}", ioapic::pins() == pins);
}

/// The APIC's page over memory.
pub(crate) fn over_memory() {
    /// Memory that belongs to nobody here.
    const SPARE: u64 = 48 << 20;
    move_to(SPARE);
    println!(" version {:x}", memory::read_register(SPARE + 0x30) >> 4 & 0xf);
}

fn move_to(base: u64) {
    msr::write(Msr::APIC_BASE, base | msr::read(Msr::APIC_BASE) & 0xfff);
}
