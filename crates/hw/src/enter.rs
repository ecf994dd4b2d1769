//! Into the guest and back: the hot path's few instructions.
//!
//! The processor loads and saves neither general registers nor anything that says where they are kept, so HOST_RSP is made to
//! point at the guest's [`GuestRegs`]: the code behind a VM exit stores all of them relative to RSP and finds L0's own RSP in
//! the slot of the one register that the VMCS keeps. HOST_RSP changes only with the `GuestRegs`, so it is written when they
//! meet a VMCS for the first time; [`crate::vmx::load`] and [`crate::vmx::clear`] make every meeting a first one.

use core::arch::{asm, global_asm};
use core::sync::atomic::Ordering;

use arch::{Gpr, GuestRegs};
use vmcs::Access;
use vmcs::fields::{HOST_RIP, HOST_RSP};

use crate::percpu;
use crate::vmx::{CurrentVmcs, VmFail};

// VM exits clear RFLAGS (SDM 3C, "Loading Host RIP, RSP, SSP, and RFLAGS"), so that at the final RET carry and zero are
// clear after a VM exit and tell after a failed instruction how it failed. MOV, POP and RET leave them alone.
// "VMX Instruction Reference", "Conventions": carry means VMfailInvalid, zero VMfailValid.
global_asm!(
    r#"
    .section .text.enter, "ax"
    .macro guest_registers instruction
    mov [rdi + {rsp}], rsp
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
    .endm

    .balign 64
vm_launch:
    guest_registers
    vmlaunch
    ret

    .balign 64
vm_resume:
    guest_registers
    vmresume
    ret

    .balign 64
    .global vm_exit
vm_exit:
    mov [rsp + {rax}], rax
    mov [rsp + {rcx}], rcx
    mov [rsp + {rdx}], rdx
    mov [rsp + {rbx}], rbx
    mov [rsp + {rbp}], rbp
    mov [rsp + {rsi}], rsi
    mov [rsp + {rdi}], rdi
    mov [rsp + {r8}],  r8
    mov [rsp + {r9}],  r9
    mov [rsp + {r10}], r10
    mov [rsp + {r11}], r11
    mov [rsp + {r12}], r12
    mov [rsp + {r13}], r13
    mov [rsp + {r14}], r14
    mov [rsp + {r15}], r15
    mov rsp, [rsp + {rsp}]
    ret
"#,
    rax = const 8 * Gpr::Rax as usize,
    rcx = const 8 * Gpr::Rcx as usize,
    rdx = const 8 * Gpr::Rdx as usize,
    rbx = const 8 * Gpr::Rbx as usize,
    rsp = const 8 * Gpr::Rsp as usize,
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

unsafe extern "C" {
    static vm_exit: u8;
}

/// Saves over the call what an `asm!` block cannot declare as changed, and goes to `$failed` when the instruction failed.
macro_rules! enter_by {
    ($routine:literal, $regs:expr, $failed:block) => {
        asm!(
            "push rbx",
            "push rbp",
            concat!("call ", $routine),
            "pop rbp",
            "pop rbx",
            "jbe {failed}",
            failed = label $failed,
            inout("rdi") $regs => _,
            out("rax") _, out("rcx") _, out("rdx") _, out("rsi") _,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
            out("r12") _, out("r13") _, out("r14") _, out("r15") _,
        )
    };
}

/// Enters the guest of the current VMCS with the registers `regs`, and comes back at its next VM exit with what they are
/// then. `launched` says whether the VMCS has been launched since it was last cleared.
///
/// # Safety
/// A VMCS was loaded on this processor by [`crate::vmx::load`]; its host state is that of
/// [`crate::vmx::write_host_state`], and its guest cannot reach L0's memory. Interrupts are disabled.
#[inline(always)]
pub unsafe fn enter(regs: &mut GuestRegs, launched: bool) -> Result<(), VmFail> {
    let regs = core::ptr::from_mut(regs);
    if percpu::entered() != regs.addr() as u64 {
        // SAFETY: the caller's promise.
        return unsafe { enter_first(regs, launched) };
    }
    // SAFETY: the caller's promise; HOST_RSP points at `regs`, and HOST_RIP at the code that stores the registers there
    // and returns to behind the call.
    unsafe {
        enter_by!("vm_resume", regs, {
            return Err(failure());
        });
    }
    Ok(())
}

/// [`enter`] for a VMCS and `regs` that meet for the first time.
///
/// # Safety
/// As for [`enter`].
#[cold]
#[inline(never)]
unsafe fn enter_first(regs: *mut GuestRegs, launched: bool) -> Result<(), VmFail> {
    // SAFETY: the caller's promise.
    let mut vmcs = unsafe { CurrentVmcs::assume() };
    vmcs.write(HOST_RSP, regs.addr() as u64);
    vmcs.write(HOST_RIP, (&raw const vm_exit).addr() as u64);
    if launched {
        // SAFETY: the caller's promise; HOST_RSP and HOST_RIP were just written.
        unsafe {
            enter_by!("vm_resume", regs, {
                return Err(failure());
            });
        }
    } else {
        // SAFETY: as above.
        unsafe {
            enter_by!("vm_launch", regs, {
                return Err(failure());
            });
        }
    }
    percpu::this().entered.store(regs.addr() as u64, Ordering::Relaxed);
    Ok(())
}

/// How the entry failed: without a current VMCS there was no place to write an error number to.
#[cold]
pub(crate) fn failure() -> VmFail {
    if percpu::current_vmcs().is_some() { VmFail::Valid } else { VmFail::Invalid }
}
