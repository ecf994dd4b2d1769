//! The operands of the instruction that exited, of those parts that the manual defines for it: SDM 3C 28.2.5 "Information for VM
//! Exits Due to Instruction Execution".

use core::fmt;

use vmcs::instruction_info::{MemoryOperand, Operand};
use vmcs::{ExitReason, InstructionInfo};

use super::setup;

/// In the qualification of an I/O instruction: IN or INS, and a string instruction.
const IO_IN: u64 = 1 << 3;
const IO_STRING: u64 = 1 << 4;

/// The instruction information of an exit for a reason, with its qualification.
pub(super) struct Operands(pub(super) ExitReason, pub(super) InstructionInfo, pub(super) u64);

impl fmt::Display for Operands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let &Self(reason, info, qualification) = self;
        match reason {
            ExitReason::VMCLEAR | ExitReason::VMPTRLD | ExitReason::VMPTRST | ExitReason::VMXON => {
                memory(f, info.memory())
            }
            ExitReason::VMREAD | ExitReason::VMWRITE => {
                operand(f, info.operand())?;
                write!(f, ", field in {:?}", info.register_2())
            }
            ExitReason::INVEPT | ExitReason::INVVPID | ExitReason::INVPCID => {
                memory(f, info.memory())?;
                write!(f, ", type in {:?}", info.register_2())
            }
            ExitReason::RDRAND | ExitReason::RDSEED => write!(f, ", {:?} {:?}", info.register_1(), info.operand_size()),
            ExitReason::GDTR_IDTR_ACCESS => {
                write!(f, ", {}", ["SGDT", "SIDT", "LGDT", "LIDT"][usize::from(info.identity())])?;
                memory(f, info.memory())
            }
            ExitReason::LDTR_TR_ACCESS => {
                write!(f, ", {}", ["SLDT", "STR", "LLDT", "LTR"][usize::from(info.identity())])?;
                operand(f, info.operand())
            }
            // INS and OUTS: IA32_VMX_BASIC bit 54. The segment can be chosen for OUTS only.
            ExitReason::IO
                if qualification & IO_STRING != 0 && setup::capabilities().basic.has_ins_outs_information() =>
            {
                write!(f, ", {:?} address", info.address_size())?;
                if qualification & IO_IN == 0 { write!(f, " in {:?}", info.segment()) } else { Ok(()) }
            }
            _ => Ok(()),
        }
    }
}

fn operand(f: &mut fmt::Formatter<'_>, operand: Operand) -> fmt::Result {
    match operand {
        Operand::Register(register) => write!(f, ", {register:?}"),
        Operand::Memory(operand) => memory(f, operand),
    }
}

fn memory(f: &mut fmt::Formatter<'_>, operand: MemoryOperand) -> fmt::Result {
    write!(f, ", {:?}:[", operand.segment)?;
    if let Some(base) = operand.base {
        write!(f, "{base:?}")?;
    }
    if let Some(index) = operand.index {
        write!(f, " + {index:?} * {}", operand.scale)?;
    }
    write!(f, "] {:?}", operand.address_size)
}
