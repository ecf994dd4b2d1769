//! What the guest executes, in 16, 32 and 64 bits.

use core::arch::global_asm;

use guests::entry::{CODE32, DATA};
use guests::vmx::DONE;

/// Where the 16-bit code runs.
pub(crate) const LOW: u64 = 0x7000;
/// What the code changes.
pub(crate) const SEEN: u64 = 0x7e00;
/// A selector of the GDT's free slot.
pub(crate) const FREE: u64 = 0x50;

global_asm!(
    r#"
    .code16
    .global l2_low_start
l2_low_start:
    mov di, {seen}
    mov eax, 0x16
    vmcall
    int 0x77
    xor eax, eax
    cpuid
    sti
    hlt
    cli
    in al, 0x21
    mov eax, cr0
    .byte 0x66, 0x2e, 0x0f, 0x01, 0x16 // lgdt of 32 bits, cs:[
    .short l2_low_gdt - l2_low_start
    or al, 1
    mov cr0, eax
    .byte 0x66, 0xea
    .long l2_protected
    .short {code32}
    .global l2_low_interrupt
l2_low_interrupt:
    inc dword ptr [di]
    iret
    .balign 4
l2_low_gdt:
    .short 0x5f
    .long gdt
    .global l2_low_end
l2_low_end:

    .code32
l2_protected:
    mov eax, {data}
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov esp, [l2_stack]
    mov eax, 0x32
    vmcall
    mov eax, offset l2_directory        // 32-bit paging, pages of 4 MiB
    mov cr3, eax
    mov eax, cr4
    or eax, 0x10
    mov cr4, eax
    mov eax, cr0
    or eax, 0x80000000
    mov cr0, eax
    jmp 1f
1:  mov eax, [0xc0000000 + {seen}]      // the same memory by another address
    mov [{seen} + 4], eax
    mov eax, 0x320
    vmcall
    mov eax, cr0
    and eax, 0x7fffffff
    mov cr0, eax
    mov eax, offset l2_pointers         // PAE paging
    mov cr3, eax
    mov eax, cr4
    or eax, 0x20
    mov cr4, eax
    mov eax, cr0
    or eax, 0x80000000
    mov cr0, eax
    jmp 2f
2:  mov eax, [0xc0000000 + {seen}]
    mov [{seen} + 8], eax
    mov eax, 0x36
    vmcall
    mov eax, cr0
    and eax, 0x7fffffff
    mov cr0, eax
    mov ebx, offset l2_long
    jmp enter_long_mode
    .code64
l2_long:
    mov eax, 0x64
    vmcall
    mov eax, {done}
    vmcall
    ud2

    .code32
    .global l2_paged
l2_paged:                               // entered with paging on
    mov eax, [0xc0000000 + {seen}]
    mov [{seen} + 8], eax
    mov eax, 0x36
    vmcall
    mov eax, cr3
    mov cr3, eax
    mov eax, [0xc0000000 + {seen}]
    mov [{seen} + 8], eax
    mov eax, {done}
    vmcall
    ud2
    .global l2_jump
l2_jump:
    .byte 0xea
    .long 0
    .short {free}
    ud2
    .global l2_call
l2_call:
    .byte 0x9a
    .long 0
    .short {free}
    ud2
    .code64

    .section .data.modes, "aw"
    .balign 8
    .global l2_stack
l2_stack: .quad 0
    // 32-bit paging: everything is itself, but 3 GiB is 0.
    .balign 4096
l2_directory:
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
    .global l2_pointers
l2_pointers:
    .quad boot_pd + 1
    .quad boot_pd + 0x1001
    .quad boot_pd + 0x2001
    .quad boot_pd + 1
    .section .text
    "#,
    seen = const SEEN,
    code32 = const CODE32,
    data = const DATA,
    done = const DONE,
    free = const FREE,
);

unsafe extern "C" {
    pub(crate) static l2_low_start: u8;
    pub(crate) static l2_low_interrupt: u8;
    pub(crate) static l2_low_end: u8;
    pub(crate) static l2_stack: u8;
    pub(crate) static l2_pointers: u8;
    pub(crate) static l2_paged: u8;
    pub(crate) static l2_jump: u8;
    pub(crate) static l2_call: u8;
    pub(crate) static gdt: u8;
}
