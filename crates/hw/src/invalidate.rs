//! INVEPT and INVVPID, for [`crate::vmx`], where they are found.
//!
//! SDM 3C, chapter "VMX Instruction Reference".

use core::arch::asm;

use crate::vmx::{VmFail, outcome};

/// What INVEPT or INVVPID drops (SDM 3C, "INVEPT", "INVVPID").
#[repr(C, align(16))]
struct Descriptor([u64; 2]);

macro_rules! invalidate {
    ($instruction:literal, $kind:expr, $descriptor:expr) => {{
        let descriptor = Descriptor($descriptor);
        let (invalid, valid): (u8, u8);
        // SAFETY: dropping cached translations changes nothing that a program may rely on.
        unsafe {
            asm!(
                concat!($instruction, " {kind}, [{descriptor}]"),
                "setc {invalid}",
                "setz {valid}",
                kind = in(reg) $kind,
                descriptor = in(reg) &descriptor,
                invalid = out(reg_byte) invalid,
                valid = out(reg_byte) valid,
                options(nostack),
            );
        }
        outcome((invalid, valid))
    }};
}

/// INVEPT, single context: what was cached by way of the EPT pointer `eptp`.
pub fn invept_single(eptp: u64) -> Result<(), VmFail> {
    invalidate!("invept", 1_u64, [eptp, 0])
}

/// INVEPT, all contexts.
pub fn invept_all() -> Result<(), VmFail> {
    invalidate!("invept", 2_u64, [0, 0])
}

/// INVVPID, individual address: what `vpid` has cached for the linear address `linear`.
pub fn invvpid_address(vpid: u16, linear: u64) -> Result<(), VmFail> {
    invalidate!("invvpid", 0_u64, [u64::from(vpid), linear])
}

/// INVVPID, single context: everything that `vpid` has cached.
pub fn invvpid_single(vpid: u16) -> Result<(), VmFail> {
    invalidate!("invvpid", 1_u64, [u64::from(vpid), 0])
}

/// INVVPID, all contexts but VPID 0, which is L0's own.
pub fn invvpid_all() -> Result<(), VmFail> {
    invalidate!("invvpid", 2_u64, [0, 0])
}
