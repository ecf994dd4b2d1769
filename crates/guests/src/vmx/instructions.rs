//! The VMX instructions, each with how it ended. SDM 3C, "VMX Instruction Reference".

use core::arch::asm;
use core::fmt;

use vmcs::{Encoding, InstructionError};

/// Carry, parity, auxiliary carry, zero, sign, overflow: what a VMX instruction sets or clears, all of them.
const STATUS_FLAGS: u64 = 0x8d5;
const CARRY: u64 = 1 << 0;
const ZERO: u64 = 1 << 6;

/// How a VMX instruction failed. SDM 3C 31.2 "Conventions".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VmFail {
    /// VMfailInvalid: there is no current VMCS that could hold a number.
    Invalid,
    /// VMfailValid with the VM-instruction error.
    Valid(InstructionError),
    /// The flags are of none of the three outcomes.
    Flags(u64),
}

impl fmt::Display for VmFail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid => write!(f, "VMfailInvalid"),
            Self::Valid(error) => write!(f, "VMfail {}, {}", error.0, error.text()),
            Self::Flags(flags) => write!(f, "flags {flags:#x}, which are no outcome"),
        }
    }
}

/// What came of a VMX instruction.
pub type VmResult<T = ()> = Result<T, VmFail>;

/// The outcome that the status flags tell.
pub fn outcome(flags: u64) -> VmResult {
    match flags & STATUS_FLAGS {
        0 => Ok(()),
        CARRY => Err(VmFail::Invalid),
        ZERO => Err(VmFail::Valid(error())),
        flags => Err(VmFail::Flags(flags)),
    }
}

/// The VM-instruction error of the current VMCS.
fn error() -> InstructionError {
    let error: u64;
    // SAFETY: reads a field that every VMCS has.
    unsafe {
        asm!("vmread {}, {}", out(reg) error, in(reg) u64::from(vmcs::fields::VM_INSTRUCTION_ERROR.encoding().0))
    };
    InstructionError(error as u32)
}

/// The value of something that cannot fail here; the guest stops and says what failed if it does.
pub fn must<T>(what: &str, result: VmResult<T>) -> T {
    match result {
        Ok(value) => value,
        Err(failure) => {
            crate::println!("guest stopped: {what}: {failure}");
            crate::exit(103)
        }
    }
}

/// Executes an instruction with all six status flags set before it; gives the flags after it.
#[macro_export]
macro_rules! vmx_flags {
    ($instruction:literal $(, $($operand:tt)*)?) => {{
        let flags: u64;
        // SAFETY: the machine is ours.
        unsafe {
            core::arch::asm!(
                "mov eax, 0xd57f",          // AH: SF, ZF, AF, PF, CF; the increment of AL overflows
                "inc al",
                "sahf",
                $instruction,
                "pushfq",
                "pop rax",
                out("rax") flags,
                $($($operand)*)?
            );
        }
        flags
    }};
}

macro_rules! with_pointer {
    ($($(#[$doc:meta])* $name:ident $instruction:literal;)*) => {$(
        $(#[$doc])*
        pub fn $name(pointer: u64) -> VmResult {
            outcome(vmx_flags!($instruction, in("rcx") &raw const pointer))
        }
    )*};
}

with_pointer! {
    /// VMXON with the region at `pointer`.
    vmxon "vmxon [rcx]";
    /// VMCLEAR of the VMCS at `pointer`.
    vmclear "vmclear [rcx]";
    /// VMPTRLD of the VMCS at `pointer`.
    vmptrld "vmptrld [rcx]";
}

/// VMXOFF.
pub fn vmxoff() -> VmResult {
    outcome(vmx_flags!("vmxoff"))
}

/// VMPTRST: the current-VMCS pointer, all ones without one.
pub fn vmptrst() -> VmResult<u64> {
    let mut pointer = 0_u64;
    outcome(vmx_flags!("vmptrst [rcx]", in("rcx") &raw mut pointer))?;
    Ok(pointer)
}

/// VMREAD of what `encoding` names, whether it exists or not.
pub fn vmread(encoding: Encoding) -> VmResult<u64> {
    let value: u64;
    outcome(vmx_flags!("vmread rdx, rcx", in("rcx") u64::from(encoding.0), out("rdx") value))?;
    Ok(value)
}

/// VMWRITE to what `encoding` names, whether it exists or not.
pub fn vmwrite(encoding: Encoding, value: u64) -> VmResult {
    outcome(vmx_flags!("vmwrite rcx, rdx", in("rcx") u64::from(encoding.0), in("rdx") value))
}

/// INVEPT of this type with this descriptor.
pub fn invept(kind: u64, descriptor: [u64; 2]) -> VmResult {
    outcome(vmx_flags!("invept rcx, [rdx]", in("rcx") kind, in("rdx") &raw const descriptor))
}

/// INVVPID of this type with this descriptor.
pub fn invvpid(kind: u64, descriptor: [u64; 2]) -> VmResult {
    outcome(vmx_flags!("invvpid rcx, [rdx]", in("rcx") kind, in("rdx") &raw const descriptor))
}
