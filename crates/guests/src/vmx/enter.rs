//! VMLAUNCH and VMRESUME.

use core::arch::global_asm;

use arch::{Gpr, GuestRegs};
use vmcs::Access;
use vmcs::fields::{HOST_RIP, HOST_RSP};

use super::Current;
use super::instructions::{VmResult, outcome};

global_asm!(
    r#"
    // rdi: the guest's registers, esi: whether to resume. Returns the flags after a failure, 0 after a VM exit.
    .global vmx_enter
vmx_enter:
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
    push rdi
    mov eax, {host_rsp}
    vmwrite rax, rsp
    test esi, esi
    mov rax, [rdi + {rax}]
    mov rcx, [rdi + {rcx}]
    mov rdx, [rdi + {rdx}]
    mov rbx, [rdi + {rbx}]
    mov rbp, [rdi + {rbp}]
    mov rsi, [rdi + {rsi}]
    mov r8,  [rdi + {r8}]
    mov r9,  [rdi + {r9}]
    mov r10, [rdi + {r10}]
    mov r11, [rdi + {r11}]
    mov r12, [rdi + {r12}]
    mov r13, [rdi + {r13}]
    mov r14, [rdi + {r14}]
    mov r15, [rdi + {r15}]
    mov rdi, [rdi + {rdi}]
    jnz 1f
    vmlaunch
    jmp 2f
1:  vmresume
2:  pushfq
    pop rax
    pop rdi
    jmp 3f

    .global vmx_exit
vmx_exit:                               // HOST_RIP; HOST_RSP points at the pointer to the registers
    push rdi
    mov rdi, [rsp + 8]
    mov [rdi + {rax}], rax
    mov [rdi + {rcx}], rcx
    mov [rdi + {rdx}], rdx
    mov [rdi + {rbx}], rbx
    mov [rdi + {rbp}], rbp
    mov [rdi + {rsi}], rsi
    mov [rdi + {r8}],  r8
    mov [rdi + {r9}],  r9
    mov [rdi + {r10}], r10
    mov [rdi + {r11}], r11
    mov [rdi + {r12}], r12
    mov [rdi + {r13}], r13
    mov [rdi + {r14}], r14
    mov [rdi + {r15}], r15
    pop rax
    mov [rdi + {rdi}], rax
    pop rdi
    xor eax, eax
3:  pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    ret
    "#,
    host_rsp = const 0x6c14,
    rax = const 8 * Gpr::Rax as usize,
    rcx = const 8 * Gpr::Rcx as usize,
    rdx = const 8 * Gpr::Rdx as usize,
    rbx = const 8 * Gpr::Rbx as usize,
    rbp = const 8 * Gpr::Rbp as usize,
    rsi = const 8 * Gpr::Rsi as usize,
    rdi = const 8 * Gpr::Rdi as usize,
    r8 = const 8 * Gpr::R8 as usize,
    r9 = const 8 * Gpr::R9 as usize,
    r10 = const 8 * Gpr::R10 as usize,
    r11 = const 8 * Gpr::R11 as usize,
    r12 = const 8 * Gpr::R12 as usize,
    r13 = const 8 * Gpr::R13 as usize,
    r14 = const 8 * Gpr::R14 as usize,
    r15 = const 8 * Gpr::R15 as usize,
);

const _: () = assert!(HOST_RSP.encoding().0 == 0x6c14, "what vmx_enter writes");

unsafe extern "C" {
    fn vmx_enter(regs: *mut GuestRegs, resume: u32) -> u64;
    fn vmx_exit();
}

/// Lets VM exits of the current VMCS come back to where [`enter`] waits for them.
pub fn write_exit_address() {
    Current.write(HOST_RIP, vmx_exit as *const () as u64);
}

/// Enters the guest of the current VMCS by VMLAUNCH or VMRESUME, and comes back with its registers at the next VM exit, or
/// when the instruction failed. HOST_RSP is written each time, as hypervisors do whose stack is not always the same.
#[inline(always)]
pub fn enter(regs: &mut GuestRegs, resume: bool) -> VmResult {
    // SAFETY: a VM exit comes back with stack and call-saved registers as they were.
    let flags = unsafe { vmx_enter(regs, resume.into()) };
    if flags == 0 { Ok(()) } else { outcome(flags) }
}
