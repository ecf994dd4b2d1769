//! The way to 32-bit mode with PAE paging and back, and what is done there: each attempt leaves a word of how it ended.

use core::arch::global_asm;

use guests::entry::CODE32;

/// A selector of the GDT's free slot: a data segment that ends within a page.
pub(crate) const SHORT: u64 = 0x50;
/// Another: a data segment that is read-only.
pub(crate) const READ_ONLY: u64 = 0x58;
/// Where L2 reads, and L1 after its exit: the two have different pages there.
pub(crate) const APART: u64 = 0xc000_0000;

global_asm!(
    r#"
    .global trip_32bit
trip_32bit:
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
    mov [t_rsp], rsp
    sidt [t_idt64]
    mov eax, offset t_down
    push {code32}
    push rax
    retfq

    .code32
t_down:
    mov eax, 0x10                       // what 64-bit mode did not look at counts again
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov eax, cr0
    and eax, 0x7fffffff
    mov cr0, eax
    mov ecx, 0xc0000080
    rdmsr
    and eax, ~0x100
    wrmsr
    mov eax, offset t_pointers
    mov cr3, eax
    mov eax, cr4
    or eax, 0x2000                      // VMXE
    mov cr4, eax
    mov eax, cr0
    or eax, 0x80000000
    mov cr0, eax
    jmp 1f
1:  lidt [t_idt32]
    mov [t_esp], esp
    mov edi, offset t_results

    // Executes an instruction with all status flags set, and keeps the flags after it, or what it faulted with.
    .macro attempt instruction:vararg
    mov dword ptr [t_recover], offset t_after_\@
    mov dword ptr [t_eax], eax
    mov eax, 0xd57f
    inc al
    sahf
    mov eax, [t_eax]
    \instruction
    pushfd
    pop ebp
    and ebp, 0x8d5
t_after_\@:
    mov [edi], ebp
    add edi, 4
    .endm

    attempt vmxon [t_vmxon]
    attempt vmclear [t_vmcs]
    attempt vmptrld [t_vmcs]
    attempt vmptrst [t_seen]
    // Registers of 32 bits, and 64-bit fields by halves.
    mov ecx, {rip}
    mov eax, 0x12345678
    attempt vmwrite ecx, eax
    attempt vmread edx, ecx
    mov [t_seen + 8], edx
    mov ecx, {offset} + 1
    attempt vmwrite ecx, eax
    mov ecx, {offset}
    attempt vmwrite ecx, eax
    attempt vmread edx, ecx
    mov [t_seen + 12], edx
    inc ecx
    attempt vmread edx, ecx
    mov [t_seen + 16], edx
    mov ecx, {rip}
    attempt vmread [t_seen + 20], ecx   // and not the word behind it
    mov dword ptr [t_seen + 28], 0x55
    attempt vmwrite ecx, [t_seen + 28]
    attempt vmread edx, ecx
    mov [t_seen + 32], edx
    mov ecx, 0x6dfe
    attempt vmread edx, ecx
    mov eax, 2
    attempt invept eax, [t_zero]
    attempt invvpid eax, [t_zero]

    // Segments.
    mov eax, {short}
    mov fs, eax
    attempt vmptrst fs:[0xff8]
    attempt vmptrst fs:[0xffc]
    attempt vmptrst fs:[0x1000]
    attempt vmptrst fs:[0xfffffffc]
    mov eax, {read_only}
    mov es, eax
    attempt vmptrld es:[t_vmcs]
    attempt vmptrst es:[t_seen]
    mov ecx, {rip}
    attempt vmread es:[t_seen], ecx
    attempt vmptrst cs:[t_seen]
    attempt vmptrld cs:[t_vmcs]
    xor eax, eax
    mov gs, eax
    attempt vmptrst gs:[t_seen]
    mov eax, 0x10
    mov es, eax

    // An L2 of 32 bits, made ready in 64-bit mode.
    attempt vmptrld [t_prepared]
    mov ecx, {host_rip}
    mov eax, offset t_exit
    attempt vmwrite ecx, eax
    mov ecx, {host_rsp}
    mov eax, esp
    attempt vmwrite ecx, eax
    mov eax, edi
    mov ebx, 0
    attempt vmlaunch
    jmp t_up
t_exit:
    mov edi, eax
    mov eax, [{apart}]
    mov [t_seen + 40], eax
    mov ecx, 0x4402                     // exit reason
    vmread edx, ecx
    mov [t_seen + 44], edx
    mov ecx, 0x4012                     // VM-entry controls
    vmread edx, ecx
    mov [t_seen + 48], edx
    mov dword ptr [edi], 0
    add edi, 4
    test ebx, ebx
    jnz t_up
    inc ebx
    mov eax, edi
    vmresume                            // L2 calls again: nothing has moved on
    ud2
t_up:
    vmclear [t_prepared]
    attempt vmxoff
    mov ebx, offset t_back
    mov eax, cr0
    and eax, 0x7fffffff
    mov cr0, eax
    jmp enter_long_mode

    .global t_l2
t_l2:
    mov esi, [{apart}]
    mov [t_seen + 36], esi
    vmcall

    .macro handler vector
    .global t_handler_\vector
t_handler_\vector:
    .if \vector == 6
    mov ebp, 0x80000000 | \vector << 16
    .else
    mov ebp, [esp]
    or ebp, 0x80000000 | \vector << 16
    .endif
    mov esp, [t_esp]
    jmp dword ptr [t_recover]
    .endm
    handler 6
    handler 12
    handler 13
    handler 14

    .code64
t_back:
    mov rsp, [t_rsp]
    lidt [t_idt64]
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    ret

    .section .data.trip, "aw"
    .balign 8
t_rsp: .quad 0
t_idt64: .quad 0, 0
    .global t_idt32
t_idt32: .quad 0
t_esp: .long 0
t_recover: .long 0
t_eax: .long 0
    .long 0
    .global t_vmxon
t_vmxon: .quad 0
    .global t_vmcs
t_vmcs: .quad 0
    .global t_prepared
t_prepared: .quad 0
    .balign 16
t_zero: .quad 0, 0
    .global t_results
t_results: .skip 256
    .global t_seen
t_seen: .skip 64
    .balign 32
    .global t_pointers
t_pointers:
    .quad boot_pd + 1
    .quad boot_pd + 0x1001
    .quad boot_pd + 0x2001
    .quad 0
    .section .text
    "#,
    code32 = const CODE32,
    short = const SHORT,
    read_only = const READ_ONLY,
    apart = const APART,
    rip = const 0x681e,
    offset = const 0x2010,
    host_rip = const 0x6c16,
    host_rsp = const 0x6c14,
);

unsafe extern "C" {
    pub(crate) fn trip_32bit();
    pub(crate) static t_idt32: u8;
    pub(crate) static t_vmxon: u8;
    pub(crate) static t_vmcs: u8;
    pub(crate) static t_prepared: u8;
    pub(crate) static t_results: u8;
    pub(crate) static t_seen: u8;
    pub(crate) static t_pointers: u8;
    pub(crate) static t_l2: u8;
    pub(crate) static t_handler_6: u8;
    pub(crate) static t_handler_12: u8;
    pub(crate) static t_handler_13: u8;
    pub(crate) static t_handler_14: u8;
    pub(crate) static gdt: u8;
}
