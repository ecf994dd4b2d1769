//! Control, debug and extended control registers.

use core::arch::asm;

use arch::Msr;
use arch::control::{Cr0, Cr4, Efer};

use crate::{gdt, msr};

macro_rules! registers {
    ($($(#[$doc:meta])* $read:ident, $write:ident, $name:literal;)*) => { $(
        $(#[$doc])*
        #[inline(always)]
        #[must_use]
        pub fn $read() -> u64 {
            let value;
            // SAFETY: reading the register has no effect.
            unsafe { asm!(concat!("mov {}, ", $name), out(reg) value, options(nomem, nostack, preserves_flags)) };
            value
        }

        $(#[$doc])*
        /// # Safety
        /// The processor takes the value, and L0 stays sound with it.
        #[inline(always)]
        pub unsafe fn $write(value: u64) {
            // SAFETY: the caller's promise.
            unsafe { asm!(concat!("mov ", $name, ", {}"), in(reg) value, options(nostack, preserves_flags)) };
        }
    )* };
}

registers! {
    /// CR0 as a number.
    cr0_bits, write_cr0_bits, "cr0";
    /// CR2: the linear address of the last page fault. L0 takes none, so it holds the guest's.
    cr2, write_cr2, "cr2";
    /// CR3: the page tables.
    cr3, write_cr3, "cr3";
    /// CR4 as a number.
    cr4_bits, write_cr4_bits, "cr4";
    /// DR6, debug status.
    dr6, write_dr6, "dr6";
    /// DR7, debug control.
    dr7, write_dr7, "dr7";
}

/// CR0.
#[must_use]
pub fn cr0() -> Cr0 {
    Cr0::from_bits_retain(cr0_bits())
}

/// CR4.
#[must_use]
pub fn cr4() -> Cr4 {
    Cr4::from_bits_retain(cr4_bits())
}

/// IA32_EFER.
#[must_use]
pub fn efer() -> Efer {
    // SAFETY: 64-bit mode could not have been entered without the register.
    Efer::from_bits_retain(unsafe { msr::read(Msr::EFER) })
}

/// Loads XCR0.
///
/// # Safety
/// CR4.OSXSAVE is set and the processor takes the value. L0 keeps nothing in the state components.
#[inline(always)]
pub unsafe fn write_xcr0(value: u64) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!("xsetbv", in("ecx") 0, in("rax") value, in("rdx") value >> 32, options(nomem, nostack, preserves_flags));
    }
}

/// Writes back and invalidates the caches (WBINVD).
pub fn write_back_caches() {
    // SAFETY: WBINVD changes no architectural state.
    unsafe { asm!("wbinvd", options(nostack, preserves_flags)) };
}

/// Tells the processor that this is a waiting loop.
#[inline(always)]
pub fn pause() {
    core::hint::spin_loop();
}

/// Executes an IRET to the next instruction: NMIs can come again.
pub fn unblock_nmis() {
    // SAFETY: it goes on where it is, on its stack, with its flags; L0's stack has no red zone.
    unsafe {
        asm!(
            "mov {scratch}, rsp",
            "push {data}",
            "push {scratch}",
            "pushfq",
            "push {code}",
            "lea {scratch}, [rip + 2f]",
            "push {scratch}",
            "iretq",
            "2:",
            scratch = out(reg) _,
            data = const gdt::DATA,
            code = const gdt::CODE,
        );
    }
}
