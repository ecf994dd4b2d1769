//! Every register, port and leaf there could be.

use core::arch::asm;

use arch::msr::Msr;
use guests::{cpu, expect_fault, memory, msr, multiboot, pic, port, println};

use crate::outcome;

/// Addresses without memory or device: behind the memory (and its ACPI tables), in the hole below 4 GiB.
fn nowhere() -> [u64; 2] {
    [((u64::from(multiboot::upper_kib()) << 10) + (64 << 20)) & !0xfff, 0xb000_0000]
}

pub(crate) fn outside_memory() {
    for address in nowhere() {
        println!(" 8 bits: {:x}", memory::read::<u8>(address + 1));
        println!(" 16 bits: {:x}", memory::read::<u16>(address + 2));
        println!(" 32 bits: {:x}", memory::read::<u32>(address + 4));
        println!(" 64 bits: {:x}", memory::read::<u64>(address + 8));
        memory::write(address, 0_u64);
        memory::write(address + 3, 0_u32);
        println!(" written: {:x}", memory::read::<u64>(address));
        let mut copy = [0_u8; 64];
        // SAFETY: reads ones into the array.
        unsafe {
            asm!("rep movsb", inout("rsi") address => _, inout("rdi") copy.as_mut_ptr() => _, inout("rcx") copy.len() => _);
        }
        println!(" copied: {}", copy.iter().all(|&byte| byte == 0xff));
        // SAFETY: writes where nothing is.
        unsafe { asm!("rep stosb", in("al") 0_u8, inout("rdi") address => _, inout("rcx") 4096_u64 => _) };
        // SAFETY: as above.
        unsafe { asm!("lock add qword ptr [{}], 1", in(reg) address) };
    }
}

/// Code where no memory is: ones, which are no instruction.
pub(crate) fn jump_nowhere() {
    // SAFETY: whatever comes of it is expected.
    outcome("fetch", expect_fault(|| unsafe { asm!("call {}", in(reg) crate::ends::nowhere(), clobber_abi("C")) }));
}

pub(crate) fn unknown_port() {
    for number in [0x0ffc, 0x5678, 0x9000, 0xfffc] {
        port::out8(number, 1);
        port::out16(number, 1);
        port::out32(number, 1);
        println!(" {:x} {:x} {:x}", port::in8(number), port::in16(number), port::in32(number));
    }
}

pub(crate) fn unknown_msr() {
    for number in [0x2, 0x1234, 0x2000, 0x3fff_ffff, 0xc000_2000, 0xffff_ffff] {
        outcome("read", expect_fault(|| _ = msr::read(Msr(number))));
        for value in [0, 1, u64::MAX] {
            outcome("write", expect_fault(|| msr::write(Msr(number), value)));
        }
    }
}

/// Values that no control register takes.
pub(crate) fn wild_cr() {
    for value in [0, u64::MAX, 1 << 31, 1 << 29 | 1 << 31 | 1, 1 << 63 | 1 << 31 | 1] {
        outcome("CR0", expect_fault(|| cpu::write_cr0(value)));
    }
    for value in [0, u64::MAX, 1 << 5 | 1 << 15, 1 << 5 | 1 << 63, 1 << 5 | 1 << 12] {
        outcome("CR4", expect_fault(|| cpu::write_cr4(value)));
    }
    for value in [u64::MAX, 1 << 63, 1 << 60, 1 << 52] {
        outcome("CR3", expect_fault(|| cpu::write_cr3(value)));
    }
    for value in [u64::MAX, 16, 1 << 32] {
        outcome("CR8", expect_fault(|| cpu::write_cr8(value)));
    }
    for value in [u64::MAX, 1 << 32] {
        outcome("DR7", expect_fault(|| cpu::write_dr7(value)));
    }
    // All two bits of CR0 and CR4: whatever is taken is taken back.
    let (cr0, cr4) = (cpu::cr0(), cpu::cr4());
    for first in 0..64 {
        for second in 0..64 {
            let bits = 1_u64 << first | 1 << second;
            // Without paging or protection this code would not go on; the machine may grant that.
            if bits & 0x8000_0001 == 0 {
                let _ = expect_fault(|| cpu::write_cr0(cr0 ^ bits));
                cpu::write_cr0(cr0);
            }
            // SMEP and SMAP are harmless here, CET is not.
            let _ = expect_fault(|| cpu::write_cr4(cr4 ^ bits & !(1 << 23)));
            cpu::write_cr4(cr4);
        }
    }
}

pub(crate) fn cpuid_storm() {
    let bases =
        [0, 0x2000_0000, 0x4000_0000, 0x4000_0100, 0x7fff_ff80, 0x8000_0000, 0x8fff_ff00, 0xc000_0000, 0xffff_ff80];
    for leaf in bases.into_iter().flat_map(|base: u32| base..=base + 0x7f) {
        for subleaf in (0..66).chain([0xff, 0xffff, 0x8000_0000, u32::MAX]) {
            cpu::cpuid(leaf, subleaf);
        }
    }
}

/// Every MSR that a bitmap covers: read, written back, written with ones, and put back.
pub(crate) fn msr_storm() {
    /// Loading microcode, and the counters that the rest of the run is measured with.
    const LEFT_ALONE: [u32; 4] = [0x10, 0x3b, 0x79, 0x6e0];
    let (mut there, mut refused) = (0_u32, 0_u32);
    for number in (0..0x2000).chain(0x2000..0x4000).chain(0xc000_0000..0xc000_2000) {
        let mut value = 0;
        if expect_fault(|| value = msr::read(Msr(number))).is_some() {
            refused += 1;
            continue;
        }
        there += 1;
        if LEFT_ALONE.contains(&number) {
            continue;
        }
        let _ = expect_fault(|| msr::write(Msr(number), value));
        // The APIC and long mode are needed below; ones in their registers are refused, but do not rely on it.
        if number != Msr::APIC_BASE.0 && number != Msr::EFER.0 {
            let _ = expect_fault(|| msr::write(Msr(number), u64::MAX));
            let _ = expect_fault(|| msr::write(Msr(number), value));
        }
    }
    println!(" some are there: {}, some are refused: {}", there > 20, refused > 10_000);
}

/// Every port but those that stop, reset or blind the machine.
pub(crate) fn port_storm() {
    // Gate A20 and reset, keyboard controller, exit port, SMI command, console, reset control, power management, Bochs.
    let left_alone = [
        0x5d..=0x67,
        0x8f..=0x92,
        0xaf..=0xb3,
        0xf1..=0xf7,
        0x3f5..=0x3ff,
        0xcf6..=0xcff,
        0xb000..=0xb03f,
        0x88fd..=0x8903,
    ];
    for number in 0..=u16::MAX {
        if left_alone.iter().any(|range| range.contains(&number)) {
            continue;
        }
        port::in8(number);
        port::in16(number);
        port::in32(number);
        for value in [0, u32::MAX] {
            port::out8(number, value as u8);
            port::out16(number, value as u16);
            port::out32(number, value);
        }
    }
    pic::remap();
    guests::console::init();
    let mut buffer = [0_u8; 256];
    for number in [0x0ffc_u16, 0x40, 0x21, 0x71, 0xfffe] {
        // SAFETY: the buffer is larger than what is read into it.
        unsafe {
            asm!("rep insd", in("dx") number, inout("rdi") buffer.as_mut_ptr() => _, inout("rcx") 32_u64 => _);
        }
        // SAFETY: reads the buffer.
        unsafe {
            asm!("rep outsw", in("dx") number, inout("rsi") buffer.as_ptr() => _, inout("rcx") 32_u64 => _);
        }
    }
    pic::remap();
}
