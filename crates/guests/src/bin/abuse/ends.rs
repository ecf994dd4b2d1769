//! What ends the machine, or never ends.

use core::arch::asm;

use guests::{apic, cpu, multiboot, port};

/// Where no memory is: 1 GiB behind the end, or as near to 3 GiB as that gets.
pub(crate) fn nowhere() -> u64 {
    ((u64::from(multiboot::upper_kib()) << 10) + (1 << 30)).min(0xb000_0000) & !0xfff
}

fn load_idt(base: u64, limit: u16) {
    let mut pointer = [0_u8; 10];
    pointer[..2].copy_from_slice(&limit.to_le_bytes());
    pointer[2..].copy_from_slice(&base.to_le_bytes());
    // SAFETY: what comes of it is the subject.
    unsafe { asm!("lidt [{}]", in(reg) &pointer) }
}

fn undefined() {
    // SAFETY: an exception.
    unsafe { asm!("ud2") }
}

pub(crate) fn triple_fault() {
    load_idt(0, 0);
    undefined();
}

pub(crate) fn idt_outside() {
    load_idt(nowhere(), 0xfff);
    undefined();
}

pub(crate) fn gdt_outside() {
    let mut pointer = [0_u8; 10];
    pointer[..2].copy_from_slice(&0xffff_u16.to_le_bytes());
    pointer[2..].copy_from_slice(&nowhere().to_le_bytes());
    // SAFETY: as above. The exception looks for its code segment there.
    unsafe { asm!("lgdt [{}]", in(reg) &pointer) }
    undefined();
}

pub(crate) fn cr3_outside() {
    cpu::write_cr3(nowhere());
}

pub(crate) fn stack_outside() {
    // SAFETY: as above. There is no memory to push to, nor for the exception, if there is one.
    unsafe { asm!("mov rsp, {}", "push rax", "pop rax", "ud2", in(reg) nowhere() + 2048, options(noreturn)) }
}

pub(crate) fn hlt_if0() {
    cpu::stop()
}

pub(crate) fn endless_loop() {
    // SAFETY: goes nowhere.
    unsafe { asm!("cli", "2: jmp 2b", options(noreturn)) }
}

pub(crate) fn jump_apic() {
    // SAFETY: as above.
    unsafe { asm!("jmp {}", in(reg) 0xfee0_0000_u64, options(noreturn)) }
}

pub(crate) fn init_self() {
    apic::send(apic::id(), guests::smp::INIT);
    guests::pm_timer::wait_microseconds(10_000);
}

pub(crate) fn keyboard_reset() {
    port::out8(0x64, 0xfe);
    guests::pm_timer::wait_microseconds(10_000);
}
