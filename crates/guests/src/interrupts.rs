//! The interrupt descriptor table and who is called for a vector.

use core::arch::{asm, global_asm};
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::entry::{CODE64, TSS};
use crate::{exit, fault, memory, println};

/// What is on the stack while a handler runs.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
#[expect(missing_docs, reason = "the registers by their names")]
pub struct Frame {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rbp: u64,
    pub rdi: u64,
    pub rsi: u64,
    pub rdx: u64,
    pub rcx: u64,
    pub rbx: u64,
    pub rax: u64,
    pub vector: u64,
    pub error: u64,
    pub rip: u64,
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
}

/// Called with interrupts off. It may change the frame, which is what IRET returns to.
pub type Handler = fn(&mut Frame);

static HANDLERS: [AtomicUsize; 256] = [const { AtomicUsize::new(0) }; 256];
static IDT: [AtomicU64; 512] = [const { AtomicU64::new(0) }; 512];
/// The stack of the double-fault handler: a fault that could not push anything must not use the same stack again.
static DOUBLE_FAULT_STACK: [AtomicU64; 512] = [const { AtomicU64::new(0) }; 512];
/// The task-state segment: RSP0 at 4, IST1 at 36, the I/O map's offset at 102 (beyond the limit: no map).
static TASK_STATE: [AtomicU64; 13] = [const { AtomicU64::new(0) }; 13];

global_asm!(
    r#"
    .balign 16
    .global interrupt_stubs
interrupt_stubs:
    .set vector, 0
    .rept 256
    .balign 16
    .if !(vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21)
    push 0
    .endif
    .byte 0x68
    .long vector
    jmp interrupt_common
    .set vector, vector + 1
    .endr

interrupt_common:
    push rax
    push rbx
    push rcx
    push rdx
    push rsi
    push rdi
    push rbp
    push r8
    push r9
    push r10
    push r11
    push r12
    push r13
    push r14
    push r15
    cld
    mov rdi, rsp
    mov rbp, rsp
    and rsp, -16
    call {dispatch}
    mov rsp, rbp
    pop r15
    pop r14
    pop r13
    pop r12
    pop r11
    pop r10
    pop r9
    pop r8
    pop rbp
    pop rdi
    pop rsi
    pop rdx
    pop rcx
    pop rbx
    pop rax
    add rsp, 16
    iretq
    "#,
    dispatch = sym dispatch,
);

unsafe extern "C" {
    static interrupt_stubs: u8;
    static gdt: u8;
}

extern "C" fn dispatch(frame: &mut Frame) {
    let vector = frame.vector as usize & 0xff;
    let handler = HANDLERS[vector].load(Ordering::Relaxed);
    if handler != 0 {
        // SAFETY: only `handle` stores here, and it stores a `Handler`.
        let handler: Handler = unsafe { core::mem::transmute::<usize, Handler>(handler) };
        handler(frame);
    } else if vector >= 32 || !fault::recover(frame) {
        println!(
            "guest stopped: vector {vector} error {:#x} at rip {:#x}, which nobody expected",
            frame.error, frame.rip
        );
        exit(102)
    }
}

/// Calls `handler` for `vector` from now on.
pub fn handle(vector: u8, handler: Handler) {
    HANDLERS[usize::from(vector)].store(handler as usize, Ordering::Relaxed);
}

/// Nobody handles `vector` any more: if it comes, the guest stops and says so (an exception: unless it is expected).
pub fn forget(vector: u8) {
    HANDLERS[usize::from(vector)].store(0, Ordering::Relaxed);
}

/// Lets the gate of `vector` lead to `address` directly, on interrupt stack `ist` (0: the one in use).
pub fn set_gate(vector: u8, address: u64, ist: u64) {
    // Present, 64-bit interrupt gate: SDM 3A 6.14.1 "64-Bit Mode IDT".
    let low = (address & 0xffff) | u64::from(CODE64) << 16 | ist << 32 | 0x8e << 40 | (address >> 16 & 0xffff) << 48;
    IDT[usize::from(vector) * 2].store(low, Ordering::Relaxed);
    IDT[usize::from(vector) * 2 + 1].store(address >> 32, Ordering::Relaxed);
}

/// The gate that `vector` has from the start, which leads to its handler.
pub fn restore_gate(vector: u8) {
    let stub = (&raw const interrupt_stubs) as u64 + u64::from(vector) * 16;
    set_gate(vector, stub, if vector == 8 { 1 } else { 0 });
}

/// Lets interrupts of ring 3 start on the stack that ends at `top`.
pub fn set_ring0_stack(top: u64) {
    memory::write(task_state() + 4, top);
}

/// The address of the task-state segment.
pub fn task_state() -> u64 {
    &raw const TASK_STATE as u64
}

/// Fills the table and the task-state segment and loads both on the boot processor.
pub fn init() {
    for vector in 0..=255 {
        restore_gate(vector);
    }
    let task_state = task_state();
    memory::write(task_state + 36, &raw const DOUBLE_FAULT_STACK as u64 + 4096);
    memory::write(task_state + 102, 104_u16);
    // An available 64-bit TSS with limit 103: SDM 3A 7.2.3 "TSS Descriptor in 64-bit mode".
    let low = 103 | (task_state & 0xff_ffff) << 16 | 0x89 << 40 | (task_state >> 24 & 0xff) << 56;
    let descriptor = &raw const gdt as u64 + u64::from(TSS);
    memory::write(descriptor, low);
    memory::write(descriptor + 8, task_state >> 32);
    load();
    // SAFETY: the descriptor has just been filled.
    unsafe { asm!("ltr {:x}", in(reg) TSS, options(nostack)) }
}

/// Loads the interrupt descriptor table on this processor.
pub fn load() {
    #[repr(C, packed)]
    struct Pointer {
        limit: u16,
        base: u64,
    }
    let pointer = Pointer { limit: 4095, base: &raw const IDT as u64 };
    // SAFETY: the table has a gate for each vector and lives for ever.
    unsafe { asm!("lidt [{}]", in(reg) &pointer, options(nostack)) }
}
