//! From the boot loader to 64-bit Rust: headers, the one 32-bit entry, and the page tables of the first moments.
//!
//! Multiboot2 for GRUB on BIOS and UEFI; multiboot1 with the a.out address fields, which lets iPXE and `qemu -kernel` take
//! an ELF64. Both enter at `boot_entry` in 32-bit protected mode without paging, EAX and EBX saying who calls and where
//! the boot information lies. The boot page tables show the first 4 GiB twice, at their physical addresses and in the
//! direct map; the other processors start on them too, and nothing uses them after that.

use core::arch::global_asm;

use arch::HostPhys;

use crate::frames::PAGE_1G;
use crate::layout::{DIRECT_MAP, DIRECT_MAP_BYTES};
use crate::{cpuid, physmem};

/// Level-4 entry of the direct map.
const DIRECT_MAP_ENTRY: u64 = DIRECT_MAP >> 39 & 0x1ff;

/// What the linker script puts last into the image.
const LAST_WORD: u32 = 0x474e_4c54;

global_asm!(
    r#"
    .section .multiboot, "ax"
    .balign 8
multiboot2_header:
    .long 0xe85250d6                    // magic
    .long 0                             // architecture: 32-bit protected mode of i386
    .long multiboot2_end - multiboot2_header
    .long -(0xe85250d6 + multiboot2_end - multiboot2_header)
    .balign 8
    .short 1, 0                         // the loader must understand requests for
    .long 2f - 1f + 8
1:  .long 6                             //   the memory map
2:  .balign 8
    .short 6, 1                         // modules begin on page bounds; a loader may ignore this
    .long 8
    .balign 8
    .short 0, 0                         // end
    .long 8
multiboot2_end:

    .balign 4
multiboot1_header:
    .long 0x1badb002                    // magic
    .long 0x00010003                    // modules on page bounds, memory information, address fields
    .long -(0x1badb002 + 0x00010003)
    .long multiboot1_header
    .long image_start
    .long load_end
    .long bss_end
    .long boot_entry

    .section .text.boot, "ax"
    .code32
    .global boot_entry
boot_entry:
    cli
    cld
    cmp dword ptr [load_end - 4], {last_word}
    jne truncated
    mov esi, eax                        // the loader's magic; EBX keeps the address of its information
    // Not every loader of the address fields clears what is not in the file.
    mov edi, offset bss_start
    mov ecx, offset bss_end
    sub ecx, edi
    shr ecx, 2
    xor eax, eax
    rep stosd
    mov esp, offset boot_stack_top
    mov ebp, ebx
    mov edi, esi                        // EDI: magic, EBP: information, over what CPUID and RDMSR change

    mov eax, 0x80000000
    cpuid
    cmp eax, 0x80000001
    jb no_long_mode
    mov eax, 0x80000001
    cpuid
    bt edx, 29
    jnc no_long_mode

    // Level 4 -> level 3 -> four tables of 512 pages of 2 MiB, for both mappings.
    mov eax, offset boot_level3
    or eax, 3
    mov dword ptr [boot_level4], eax
    mov dword ptr [boot_level4 + {direct_map_entry} * 8], eax
    mov eax, offset boot_level2
    or eax, 3
    xor ecx, ecx
1:  mov dword ptr [boot_level3 + ecx * 8], eax
    add eax, 4096
    inc ecx
    cmp ecx, 4
    jb 1b
    mov eax, 0x83                       // present, writable, a 2-MiB page
    xor ecx, ecx
2:  mov dword ptr [boot_level2 + ecx * 8], eax
    add eax, 0x200000
    inc ecx
    cmp ecx, 2048
    jb 2b

    mov eax, cr4
    or eax, 0x20                        // PAE
    mov cr4, eax
    mov eax, offset boot_level4
    mov cr3, eax
    mov ecx, 0xc0000080                 // IA32_EFER
    rdmsr
    or eax, 0x100                       // LME
    wrmsr
    mov eax, 0x80010031                 // PG, WP, NE, ET, PE; caches on
    mov cr0, eax
    lgdt [boot_gdt_pointer]
    .byte 0xea                          // jmp 0x08:boot_entry64
    .long boot_entry64
    .short 0x08

    // A loader that takes the image by its address fields may start one whose end has not arrived.
truncated:
    mov esi, offset truncated_text
    jmp say
no_long_mode:
    mov esi, offset no_long_mode_text
    // The text goes to both usual serial ports, set to 115200 bit/s, 8 data bits, no parity: there is no driver yet.
say:
    .irp port, 0x3f8, 0x2f8
    mov edx, \port + 3                 // line control: the divisor's registers
    mov al, 0x80
    out dx, al
    mov edx, \port
    mov al, 1
    out dx, al
    mov edx, \port + 1
    mov al, 0
    out dx, al
    mov edx, \port + 3
    mov al, 3
    out dx, al
    .endr
3:  lodsb
    cmp al, 0xff
    je 5f
    mov ah, al
    mov ecx, 1000000                    // a port that is not there must not hang the message to the other
    mov edx, 0x3fd
4:  in al, dx
    test al, 0x20
    loopz 4b
    mov al, ah
    mov edx, 0x3f8
    out dx, al
    mov edx, 0x2f8
    out dx, al
    jmp 3b
5:  hlt
    jmp 5b

    .code64
boot_entry64:
    mov eax, 0x10
    mov ds, eax
    mov es, eax
    mov ss, eax
    xor eax, eax
    mov fs, eax
    mov gs, eax
    lldt ax
    mov rsp, offset boot_stack_top
    mov edi, edi                        // first argument: the magic
    mov esi, ebp                        // second argument: the information's address
    xor ebp, ebp
    call boot_main
    ud2

    // Here, near the start: they must be there when the end of the image is not. Zeros part them from what others said.
no_long_mode_text:
    .ascii "\0\r\nend of run: status 125: Nestling needs a 64-bit processor with VT-x: this one has no 64-bit mode\r\n\0\xff"
truncated_text:
    .ascii "\0\r\nend of run: status 125: the image is truncated: the boot loader brought only a part of it\r\n\0\xff"

    .section .rodata.boot, "a"
    .balign 8
    .global boot_gdt
boot_gdt:
    .quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff
boot_gdt_pointer:
    .short 23
    .long boot_gdt

    .section .bss.boot, "aw", @nobits
    .balign 4096
    .global boot_level4
boot_level4: .skip 4096
boot_level3: .skip 4096
boot_level2: .skip 4 * 4096
"#,
    direct_map_entry = const DIRECT_MAP_ENTRY,
    last_word = const LAST_WORD,
);

/// What a multiboot1 loader leaves in EAX.
pub const MULTIBOOT1_MAGIC: u32 = 0x2bad_b002;
/// What a multiboot2 loader leaves in EAX.
pub const MULTIBOOT2_MAGIC: u32 = 0x36d7_6289;

unsafe extern "C" {
    /// The level-3 table of the first moments, which both mappings share.
    static boot_level3: u8;
}

/// Shows the gigabyte around `at` in the direct map of the first moments too, which shows the first four from the start: a
/// screen's memory may lie above. Returns whether the processor can, by a page of 1 GiB.
///
/// # Safety
/// The page tables are those of the first moments, and only what the caller says lies there is reached by it.
#[must_use]
pub unsafe fn show_gigabyte(at: HostPhys) -> bool {
    /// Present, writable, past all caches, a large page.
    const DEVICE_PAGE: u64 = 1 << 0 | 1 << 1 | 1 << 3 | 1 << 4 | 1 << 7;
    if at.0 >= DIRECT_MAP_BYTES || !cpuid::has_1g_pages() {
        return false;
    }
    let table = HostPhys((&raw const boot_level3).addr() as u64);
    let entry = physmem::pointer::<u64>(table.add((at.0 >> 30) * 8));
    // SAFETY: the entry lies in the table, whose other users are processors that walk it; an entry that was not present is in
    // no TLB.
    unsafe { entry.write_volatile(at.0 & !(PAGE_1G - 1) | DEVICE_PAGE) };
    true
}
