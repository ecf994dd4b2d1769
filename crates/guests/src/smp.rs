//! Starting the other processors. SDM 3A "Multiple-Processor (MP) Initialization", "Typical AP Initialization Sequence".

use core::arch::global_asm;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use crate::{acpi, apic, interrupts, memory, pm_timer};

/// The most processors that have a stack, with the boot processor.
pub const MOST: usize = 32;
/// Where the other processors begin in real-address mode; the SIPI vector is the page's number.
const TRAMPOLINE: u64 = 0x8000;

/// An INIT in the ICR: level asserted.
pub const INIT: u32 = 0x4500;
/// A start-up IPI for the trampoline in the ICR.
pub const START_UP: u32 = 0x4600 | 0x08;

/// The low half of the ICR: all processors but the sender.
pub const ALL_BUT_SELF: u32 = 3 << 18;

/// The function the next processors run.
static MAIN: AtomicUsize = AtomicUsize::new(0);
/// The number of the last processor that came; the boot processor is 0.
static LAST: AtomicU32 = AtomicU32::new(0);

global_asm!(
    r#"
    .code16
    .global trampoline_start
trampoline_start:
    cli
    cld
    mov ax, cs
    mov ds, ax
    mov ebx, offset trampoline_gdt_pointer
    sub ebx, offset trampoline_start
    lgdtd [bx]
    mov eax, 0x11                       // PE, ET; caches on
    mov cr0, eax
    .byte 0x66, 0xea                    // far jump with a 32-bit offset
    .long ap_entry32
    .short 0x18
    .balign 8
trampoline_gdt_pointer:
    .short 0x4f
    .long gdt
    .global trampoline_end
trampoline_end:

    .code32
ap_entry32:
    mov eax, 0x10
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov edi, 1
    lock xadd dword ptr [{last}], edi
    inc edi                             // this processor's number
    mov ebx, offset ap_entry64
    jmp enter_long_mode

    .code64
ap_entry64:
    mov edi, edi
    cmp edi, {most}
    jae 1f
    mov eax, edi
    shl eax, 13                         // 8 KiB for each
    lea rsp, [rax + ap_stacks + 8192]
    xor ebp, ebp
    call {start}
1:  cli
    hlt
    jmp 1b

    .section .bss.stacks, "aw", @nobits
    .balign 4096
ap_stacks: .skip 8192 * {most}
    .section .text
    "#,
    last = sym LAST,
    most = const MOST,
    start = sym start,
);

unsafe extern "C" {
    static trampoline_start: u8;
    static trampoline_end: u8;
}

extern "C" fn start(number: u32) {
    interrupts::load();
    let main = MAIN.load(Ordering::SeqCst);
    // SAFETY: `prepare` stores a function of this type before any processor is started.
    let main = unsafe { core::mem::transmute::<usize, fn(u32)>(main) };
    main(number);
}

/// Puts the trampoline in place. Processors that are started from now on run `main` with their number: `first` for the
/// next to come, and so on.
pub fn prepare(main: fn(u32), first: u32) {
    MAIN.store(main as usize, Ordering::SeqCst);
    LAST.store(first - 1, Ordering::SeqCst);
    let start = &raw const trampoline_start as u64;
    let length = &raw const trampoline_end as u64 - start;
    for offset in 0..length {
        memory::write(TRAMPOLINE + offset, memory::read::<u8>(start + offset));
    }
}

/// Starts the processor with APIC id `id` by INIT, start-up, start-up.
pub fn start_processor(id: u32) {
    apic::send(id, INIT);
    pm_timer::wait_microseconds(10_000);
    for _ in 0..2 {
        apic::send(id, START_UP);
        pm_timer::wait_microseconds(200);
    }
}

/// Starts a processor beside this one, which runs `main` with number 1: its APIC id, if there is one.
pub fn start_another(main: fn(u32)) -> Option<u32> {
    let own = apic::id();
    let other = acpi::processors().find(|&id| id != own)?;
    prepare(main, 1);
    start_processor(other);
    Some(other)
}

/// Waits until `done`; false when it did not happen within `milliseconds`.
pub fn wait_until(milliseconds: u32, mut done: impl FnMut() -> bool) -> bool {
    for _ in 0..milliseconds * 10 {
        if done() {
            return true;
        }
        pm_timer::wait_microseconds(100);
    }
    done()
}
