//! Out of 64-bit mode and back: real-address mode, and protected mode with each of its kinds of paging.

use core::arch::{asm, global_asm};

use guests::entry::CODE32;
use guests::{memory, println};

use crate::equal;

/// Where the 16-bit code runs.
const LOW: u64 = 0x7000;
/// Where the trips leave what they saw.
const SEEN: u64 = 0x7e00;

global_asm!(
    r#"
    // Goes to 32-bit mode without paging, on by EDI (0: real-address mode, 1: 32-bit paging, 2: PAE paging), and back.
    .global mode_trip
mode_trip:
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
    mov [trip_rsp], rsp
    sidt [trip_idt]
    mov esi, edi
    mov eax, offset trip32
    push {code32}
    push rax
    retfq

    .code32
trip32:
    mov eax, 0x10                       // what 64-bit mode did not look at counts again
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov eax, cr0
    and eax, 0x7fffffff
    mov cr0, eax
    mov ecx, 0xc0000080
    rdmsr
    mov [{seen} + 0x40], eax            // LMA is off now
    and eax, ~0x100
    wrmsr
    mov eax, cr4
    and eax, ~0x20
    mov cr4, eax
    cmp esi, 1
    je 1f
    cmp esi, 2
    je 2f
    .byte 0xea
    .long {low}
    .short 0x20

1:  mov eax, cr4
    or eax, 0x10                        // PSE
    mov cr4, eax
    mov eax, offset trip_directory
    mov cr3, eax
    jmp 3f
2:  mov eax, cr4
    or eax, 0x20                        // PAE
    mov cr4, eax
    mov eax, offset trip_pointers
    mov cr3, eax
3:  mov eax, cr0
    or eax, 0x80000000
    mov cr0, eax
    jmp 4f
4:  mov eax, [0xc0000000 + {seen}]      // the same memory, by another address
    mov [{seen} + 4], eax
    mov dword ptr [0xc0000000 + {seen} + 8], 0x5eed
    mov eax, 0x12
    xor ecx, ecx
    cpuid
    in al, 0x21
    mov [{seen} + 12], al
    mov eax, cr3
    mov cr3, eax
    mov eax, cr0
    and eax, 0x7fffffff
    mov cr0, eax
    mov eax, cr4
    and eax, ~0x10
    mov cr4, eax
trip_back:
    mov ebx, offset trip64
    mov esp, [trip_rsp]
    jmp enter_long_mode

trip_back_real:
    mov eax, 0x10
    mov ds, eax
    mov es, eax
    mov ss, eax
    jmp trip_back

    .code64
trip64:
    mov esp, [trip_rsp]
    lidt [trip_idt]
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    ret

    .code16
    .global trip_low_start
trip_low_start:
    mov ax, 0x28
    mov ds, ax
    mov es, ax
    mov fs, ax
    mov gs, ax
    mov ss, ax
    mov eax, cr0
    and al, 0xfe
    mov cr0, eax
    .byte 0xea
    .short {low} + 5f - trip_low_start
    .short 0
5:  xor ax, ax
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov sp, 0x7000
    .byte 0xbb                          // mov bx, the address of
    .short {low} + trip_low_idt - trip_low_start
    lidt [bx]
    mov di, {seen}
    mov eax, [di]
    mov [di + 4], eax
    mov eax, cr0
    mov [di + 8], eax
    int 0x77
    ud2
    xor eax, eax
    xor ecx, ecx
    cpuid
    mov di, {seen}
    mov [di + 24], ebx
    in al, 0x21
    mov [di + 12], al
    out 0x80, al
    mov ax, 0xffff                      // with A20 on, FFFF:0010 is 1 MiB
    mov fs, ax
    mov eax, fs:[0x10]
    mov [di + 28], eax
    mov ax, 0x1234                      // a segment is its value times 16
    mov gs, ax
    mov eax, gs:[0x20]
    mov [di + 32], eax
    pushf
    pop ax
    mov [di + 36], ax
    mov eax, cr0
    or al, 1
    mov cr0, eax
    .byte 0x66, 0xea
    .long trip_back_real
    .short {code32}

    .global trip_low_interrupt
trip_low_interrupt:                     // vector 77
    push di
    mov di, {seen}
    inc dword ptr [di + 16]
    pop di
    iret
    .global trip_low_undefined
trip_low_undefined:                     // vector 6: steps over UD2
    push bp
    mov bp, sp
    add word ptr [bp + 2], 2
    push di
    mov di, {seen}
    inc dword ptr [di + 20]
    pop di
    pop bp
    iret
    .balign 4
trip_low_idt:
    .short 0x3ff
    .long 0
    .global trip_low_end
trip_low_end:
    .code64

    .section .data.trip, "aw"
    .balign 8
trip_rsp: .quad 0
trip_idt: .quad 0, 0

    // 32-bit paging with pages of 4 MiB: everything is itself, but 3 GiB is 0.
    .balign 4096
trip_directory:
    .set page, 0
    .rept 768
    .long page + 0x83
    .set page, page + 0x400000
    .endr
    .set page, 0
    .rept 256
    .long page + 0x83
    .set page, page + 0x400000
    .endr
    // PAE paging through the tables of 64-bit mode, with the first of them at 3 GiB too.
    .balign 32
trip_pointers:
    .quad boot_pd + 1
    .quad boot_pd + 0x1001
    .quad boot_pd + 0x2001
    .quad boot_pd + 1
    .section .text
    "#,
    code32 = const CODE32,
    low = const LOW,
    seen = const SEEN,
);

unsafe extern "C" {
    fn mode_trip(mode: u32);
    static trip_low_start: u8;
    static trip_low_interrupt: u8;
    static trip_low_undefined: u8;
    static trip_low_end: u8;
}

/// What is at `offset` of what a trip saw.
fn seen(offset: u64) -> u64 {
    memory::read::<u32>(SEEN + offset).into()
}

fn trip(mode: u32) {
    for offset in (0..0x80).step_by(4) {
        memory::write(SEEN + offset, 0_u32);
    }
    memory::write(SEEN, 0x600d_u32 + mode);
    // SAFETY: the trip comes back with everything as it was but the registers that a call may change.
    unsafe { mode_trip(mode) }
    equal("here again; LMA was off there", seen(0x40) & 0x400, 0);
    equal("memory", seen(4), u64::from(0x600d + mode));
    equal("PIC mask", seen(12) & 0xff, 0xa7);
}

pub(crate) fn all() {
    guests::port::out8(0x21, 0xa7);
    println!("real-address mode");
    real();
    println!("32-bit paging");
    trip(1);
    equal("written by the other address", seen(8), 0x5eed);
    println!("PAE paging");
    trip(2);
    equal("written by the other address", seen(8), 0x5eed);
    guests::port::out8(0x21, 0xff);
    let mut flags = 0_u64;
    // SAFETY: reads the flags.
    unsafe { asm!("pushfq", "pop {}", out(reg) flags) };
    equal("interrupts are off", flags & 0x200, 0);
}

fn real() {
    let start = &raw const trip_low_start as u64;
    for offset in 0..&raw const trip_low_end as u64 - start {
        memory::write(LOW + offset, memory::read::<u8>(start + offset));
    }
    // Two vectors of the table at 0, which belonged to the firmware.
    let vectors = [(0x77_u64, &raw const trip_low_interrupt as u64), (6, &raw const trip_low_undefined as u64)];
    let before = vectors.map(|(vector, _)| memory::read::<u32>(vector * 4));
    for (vector, handler) in vectors {
        memory::write(vector * 4, (LOW + handler - start) as u32);
    }
    memory::write(0x1_2360, 0x0bad_cafe_u32);
    trip(0);
    for ((vector, _), before) in vectors.into_iter().zip(before) {
        memory::write(vector * 4, before);
    }
    equal("CR0: PE and PG are off", seen(8) & 0x8000_0001, 0);
    equal("software interrupts", seen(16), 1);
    equal("undefined instructions", seen(20), 1);
    equal("CPUID", seen(24), guests::cpu::cpuid(0, 0).ebx.into());
    equal("above 1 MiB", seen(28), memory::read::<u32>(0x10_0000).into());
    equal("a segment", seen(32), 0x0bad_cafe);
    equal("flags", seen(36) & 0x2_0202, 2);
}
