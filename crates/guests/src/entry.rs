//! From the multiboot loader to 64-bit Rust.
//!
//! The multiboot1 header carries the a.out address fields: GRUB, QEMU and Nestling then load the file by them and need not
//! accept an ELF64. The 32-bit entry maps the first 4 GiB to themselves with 2-MiB pages and switches to 64-bit mode.

use core::arch::global_asm;

use crate::{console, interrupts, multiboot};

/// Code segment of 64-bit kernel code.
pub const CODE64: u16 = 0x08;
/// Data segment, flat, ring 0.
pub const DATA: u16 = 0x10;
/// Code segment of 32-bit kernel code, flat.
pub const CODE32: u16 = 0x18;
/// Code segment of 16-bit code with base 0 and limit 64 KiB, for the way to real-address mode.
pub const CODE16: u16 = 0x20;
/// Data segment that goes with [`CODE16`].
pub const DATA16: u16 = 0x28;
/// Data segment of ring 3, with its privilege level.
pub const USER_DATA: u16 = 0x33;
/// Code segment of 64-bit ring 3 code, with its privilege level; it follows the data segment as SYSRET wants it.
pub const USER_CODE64: u16 = 0x3b;
/// The task-state segment.
pub const TSS: u16 = 0x40;

/// What a loader of multiboot1 leaves in EAX.
const LOADER_MAGIC: u32 = 0x2bad_b002;

global_asm!(
    r#"
    .section .multiboot, "ax"
    .balign 4
multiboot_header:
    .long 0x1badb002
    .long 0x00010003                    // modules on page bounds, memory sizes, address fields
    .long -(0x1badb002 + 0x00010003)
    .long multiboot_header
    .long load_start
    .long load_end
    .long bss_end
    .long guest_entry

    .section .text.entry, "ax"
    .code32
    .global guest_entry
guest_entry:
    cli
    cld
    mov esp, offset boot_stack_top
    mov edi, eax                        // the loader's magic and information, out of the way of what follows
    mov esi, ebx

    // Level 4 -> level 3 -> four tables of 512 pages of 2 MiB.
    mov dword ptr [boot_pml4], offset boot_pdpt + 3
    mov eax, offset boot_pd + 3
    mov ecx, 0
1:  mov dword ptr [boot_pdpt + ecx * 8], eax
    add eax, 4096
    inc ecx
    cmp ecx, 4
    jne 1b
    mov eax, 0x83                       // present, writable, large
    mov ecx, 0
2:  mov dword ptr [boot_pd + ecx * 8], eax
    add eax, 0x200000
    inc ecx
    cmp ecx, 2048
    jne 2b

    mov ebx, offset bsp_entry64
    jmp enter_long_mode

    // 32-bit protected mode, flat, to the 64-bit code at EBX. Keeps ESI, EDI, EBP and ESP. Every processor comes by here.
    .global enter_long_mode
enter_long_mode:
    lgdt [gdt_pointer]
    mov eax, cr4
    or eax, 0x20                        // PAE
    mov cr4, eax
    mov eax, offset boot_pml4
    mov cr3, eax
    mov ecx, 0xc0000080                 // EFER.LME
    rdmsr
    or eax, 0x100
    wrmsr
    mov eax, 0x80010033                 // PG, WP, NE, ET, MP, PE
    mov cr0, eax
    .byte 0xea                          // far jump
    .long 3f
    .short 0x08
    .code64
3:  mov eax, 0x10
    mov ds, eax
    mov es, eax
    mov ss, eax
    xor eax, eax
    mov fs, eax
    mov gs, eax
    mov ebx, ebx
    jmp rbx

bsp_entry64:
    mov esp, offset boot_stack_top
    xor ebp, ebp
    mov edi, edi
    mov esi, esi
    call {start}
    ud2

    .section .data.gdt, "aw"
    .balign 8
    .global gdt
gdt:
    .quad 0
    .quad 0x00af9b000000ffff            // 08 code, 64-bit
    .quad 0x00cf93000000ffff            // 10 data
    .quad 0x00cf9b000000ffff            // 18 code, 32-bit
    .quad 0x00009b000000ffff            // 20 code, 16-bit
    .quad 0x000093000000ffff            // 28 data, 16-bit
    .quad 0x00cff3000000ffff            // 30 data, ring 3
    .quad 0x00affb000000ffff            // 38 code, 64-bit, ring 3
    .quad 0, 0                          // 40 task-state segment, filled by `interrupts`
    .quad 0, 0                          // 50 for the guest's own descriptors
    .global gdt_pointer
gdt_pointer:
    .short gdt_pointer - gdt - 1
    .quad gdt

    .section .bss.boot, "aw", @nobits
    .balign 4096
    .global boot_pml4
boot_pml4:  .skip 4096
    .global boot_pdpt
boot_pdpt:  .skip 4096
    .global boot_pd
boot_pd:    .skip 4096 * 4
boot_stack: .skip 65536
    .global boot_stack_top
boot_stack_top:
    .section .text
    "#,
    start = sym start,
);

unsafe extern "Rust" {
    safe fn guest_main();
}

extern "C" fn start(magic: u32, information: u32) -> ! {
    console::init();
    assert!(magic == LOADER_MAGIC, "not started by a multiboot loader");
    multiboot::init(information);
    interrupts::init();
    guest_main();
    crate::exit(0)
}

/// Names the function that the guest is. It ends with status 0 when it returns.
#[macro_export]
macro_rules! entry {
    ($main:ident) => {
        #[unsafe(no_mangle)]
        fn guest_main() {
            $main()
        }
    };
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    crate::println!("guest stopped: {}", info.message());
    crate::exit(101)
}
