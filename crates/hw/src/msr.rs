//! Model-specific registers.

use core::arch::asm;

use arch::Msr;

/// The instruction raised a general-protection fault: no such register here, or a value that it does not take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GeneralProtection;

/// RDMSR of a register that is known to exist.
///
/// # Safety
/// The processor has the register; otherwise the general-protection fault ends the run.
#[inline(always)]
#[must_use]
pub unsafe fn read(msr: Msr) -> u64 {
    // SAFETY: the caller's promise; reading an MSR has no effect on memory.
    unsafe { x86::msr::rdmsr(msr.0) }
}

/// WRMSR.
///
/// # Safety
/// The processor has the register and takes the value, and L0 stays sound with it.
#[inline(always)]
pub unsafe fn write(msr: Msr, value: u64) {
    // SAFETY: the caller's promise.
    unsafe { x86::msr::wrmsr(msr.0, value) }
}

/// RDMSR of a register that need not exist.
pub fn try_read(msr: Msr) -> Result<u64, GeneralProtection> {
    let (low, high, failed): (u64, u64, u32);
    // SAFETY: RDMSR changes EDX and EAX only; if it faults, the exception handler finds the instruction in the fixup table and
    // goes on behind it, with `failed` still 1.
    unsafe {
        asm!(
            "mov {failed:e}, 1",
            "2: rdmsr",
            "mov {failed:e}, 0",
            "3:",
            ".pushsection .fixups, \"a\"",
            ".quad 2b, 3b",
            ".popsection",
            failed = out(reg) failed,
            in("ecx") msr.0,
            out("rax") low,
            out("rdx") high,
            options(nomem, nostack, preserves_flags),
        );
    }
    if failed == 0 { Ok(high << 32 | low & 0xffff_ffff) } else { Err(GeneralProtection) }
}

/// WRMSR where the register may not exist or not take the value; it is then unchanged.
///
/// # Safety
/// L0 stays sound if the processor does take the value.
pub unsafe fn try_write(msr: Msr, value: u64) -> Result<(), GeneralProtection> {
    let failed: u32;
    // SAFETY: the effect of the write is the caller's promise; a fault goes on behind the instruction, as in `try_read`.
    unsafe {
        asm!(
            "mov {failed:e}, 1",
            "2: wrmsr",
            "mov {failed:e}, 0",
            "3:",
            ".pushsection .fixups, \"a\"",
            ".quad 2b, 3b",
            ".popsection",
            failed = out(reg) failed,
            in("ecx") msr.0,
            in("rax") value,
            in("rdx") value >> 32,
            options(nostack, preserves_flags),
        );
    }
    if failed == 0 { Ok(()) } else { Err(GeneralProtection) }
}
