//! The interrupt descriptor table and the entry code of exceptions and interrupts. One table serves all processors.

use core::arch::global_asm;
use core::cell::UnsafeCell;

use x86::dtables::DescriptorTablePointer;

use crate::gdt::{self, ist};

// Every vector has a stub of 8 bytes: an error code where the processor pushes none, then a call, whose return address says
// which stub it was. 6.15 "Exception and Interrupt Reference" (SDM 3A) says which vectors have error codes.
global_asm!(
    r#"
    .section .text.interrupt, "ax"
    .macro stubs count
    .rept \count
    .balign 8
    push 0
    call interrupt_entry
    .endr
    .endm
    .macro error_stubs count
    .rept \count
    .balign 8
    call interrupt_entry
    .endr
    .endm

    .balign 8
interrupt_stubs:
    stubs 8
    error_stubs 1                       // 8: double fault
    stubs 1
    error_stubs 5                       // 10 to 14: TSS, not present, stack, protection, page
    stubs 2
    error_stubs 1                       // 17: alignment check
    stubs 3
    error_stubs 1                       // 21: control protection
    stubs 234
    .balign 8
interrupt_stubs_end:

interrupt_entry:
    push r15
    push r14
    push r13
    push r12
    push r11
    push r10
    push r9
    push r8
    push rdi
    push rsi
    push rbp
    push rbx
    push rdx
    push rcx
    push rax
    // The return address of the stub's call becomes the vector.
    mov rax, offset interrupt_stubs
    mov rcx, [rsp + 15 * 8]
    sub rcx, rax
    dec rcx
    shr rcx, 3
    mov [rsp + 15 * 8], rcx
    cld
    mov rdi, rsp
    mov rbx, rsp                        // kept over the call; the stack may be misaligned by 8
    and rsp, -16
    call {handler}
    mov rsp, rbx
    pop rax
    pop rcx
    pop rdx
    pop rbx
    pop rbp
    pop rsi
    pop rdi
    pop r8
    pop r9
    pop r10
    pop r11
    pop r12
    pop r13
    pop r14
    pop r15
    add rsp, 16                         // vector and error code
    iretq
"#,
    handler = sym crate::interrupts::entered,
);

unsafe extern "C" {
    static interrupt_stubs: u8;
}

/// What the entry code leaves on the stack: registers, vector, error code, and what the processor pushed.
#[derive(Debug)]
#[repr(C)]
#[expect(missing_docs, reason = "the registers' names")]
pub struct Frame {
    pub rax: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rbx: u64,
    pub rbp: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r11: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
    pub vector: u64,
    pub error_code: u64,
    pub rip: u64,
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
}

/// An interrupt gate of 16 bytes (SDM 3A, 6.14.1 "64-Bit Mode IDT").
type Gate = [u64; 2];

#[repr(align(16))]
struct Table(UnsafeCell<[Gate; 256]>);

// SAFETY: written once, by the boot processor before any other runs; read by hardware after.
unsafe impl Sync for Table {}

static TABLE: Table = Table(UnsafeCell::new([[0; 2]; 256]));

const fn gate(handler: u64, ist: u8) -> Gate {
    const PRESENT_INTERRUPT_GATE: u64 = 0x8e << 40;
    let low = handler & 0xffff
        | (gdt::CODE as u64) << 16
        | (ist as u64) << 32
        | PRESENT_INTERRUPT_GATE
        | (handler >> 16 & 0xffff) << 48;
    [low, handler >> 32]
}

/// Fills the table.
///
/// # Safety
/// Called once, by the boot processor, before any other processor runs.
pub unsafe fn fill() {
    // SAFETY: the caller's promise: nobody else reaches the table now.
    let table = unsafe { &mut *TABLE.0.get() };
    let stubs = (&raw const interrupt_stubs).addr() as u64;
    for (vector, entry) in table.iter_mut().enumerate() {
        let ist = match vector {
            2 => ist::NMI,
            8 => ist::DOUBLE_FAULT,
            18 => ist::MACHINE_CHECK,
            _ => 0,
        };
        *entry = gate(stubs + 8 * vector as u64, ist);
    }
}

/// Makes the table this processor's.
///
/// # Safety
/// The table is filled. Before the processor has its own GDT and stacks, an NMI or double fault would end the machine.
pub unsafe fn load() {
    let pointer = DescriptorTablePointer::<Gate> { base: TABLE.0.get().cast(), limit: 256 * 16 - 1 };
    // SAFETY: the caller's promise; the table is static.
    unsafe { x86::dtables::lidt(&pointer) };
}

/// Linear address of the table.
pub(crate) fn base() -> u64 {
    TABLE.0.get().addr() as u64
}
