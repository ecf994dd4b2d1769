//! The way into L2 and back, whatever host state the VMCS has: `guests::vmx::enter` needs its own.

use core::arch::{asm, global_asm};
use core::sync::atomic::{AtomicU64, Ordering};

use guests::entry::{CODE64, DATA};

/// How VMLAUNCH ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Launched {
    /// There was a VM exit: of L2, or because the entry failed late.
    Exited,
    /// VMfail.
    Failed,
}

/// Where L1's stack is while L2 runs. Not from the VMCS, so that rounds may put anything there.
static STACK: AtomicU64 = AtomicU64::new(0);
/// L1's GDTR and IDTR, ten bytes each, which an exit replaces.
static TABLES: [AtomicU64; 4] = [const { AtomicU64::new(0) }; 4];

global_asm!(
    r#"
    .global enter_l2
enter_l2:
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
    mov [{stack}], rsp
    xor eax, eax                        // L2 finds nothing but zeros in its registers
    xor ebx, ebx
    xor ecx, ecx
    xor edx, edx
    xor esi, esi
    xor edi, edi
    xor ebp, ebp
    xor r8d, r8d
    xor r9d, r9d
    xor r10d, r10d
    xor r11d, r11d
    xor r12d, r12d
    xor r13d, r13d
    xor r14d, r14d
    xor r15d, r15d
    vmlaunch
    mov eax, 1
    jmp 1f

    .global l2_exited
l2_exited:                              // with whatever host state the round had
    mov rsp, [{stack}]
    lgdt [{tables}]
    lidt [{tables} + 16]
    mov eax, {data}
    mov ds, eax
    mov es, eax
    mov ss, eax
    xor eax, eax
    mov fs, eax
    mov gs, eax
    push {code}
    lea rax, [rip + 2f]
    push rax
    retfq
2:  xor eax, eax
1:  pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    ret
    "#,
    stack = sym STACK,
    tables = sym TABLES,
    code = const CODE64,
    data = const DATA,
);

unsafe extern "C" {
    fn enter_l2() -> u32;
    safe static l2_exited: u8;
}

/// Where an exit has to continue: for the field HOST_RIP.
pub(crate) fn exit_address() -> u64 {
    &raw const l2_exited as u64
}

/// Remembers L1's descriptor tables; returns their bases, the GDT's first.
pub(crate) fn remember_tables() -> [u64; 2] {
    let tables = &raw const TABLES as u64;
    // SAFETY: stores ten bytes within TABLES.
    unsafe { asm!("sgdt [{}]", in(reg) tables, options(nostack)) }
    // SAFETY: stores ten bytes within TABLES.
    unsafe { asm!("sidt [{}]", in(reg) tables + 16, options(nostack)) }
    [0, 2].map(|first| {
        let [low, high] = [0, 1].map(|word| TABLES[first + word].load(Ordering::Relaxed));
        low >> 16 | high << 48
    })
}

/// VMLAUNCH of the current VMCS.
pub(crate) fn launch() -> Launched {
    // SAFETY: L2 has memory of its own, and L1's state is put back on the way out.
    if unsafe { enter_l2() } == 0 { Launched::Exited } else { Launched::Failed }
}
