//! The operands of the instruction that exited (SDM 3C 28.2.5 "Information for VM Exits Due to Instruction Execution").

use arch::Gpr;
use arch::access::Width;
use arch::segment::SegmentName;

/// The VM-exit instruction-information field, bits 31:0. Which of its parts are defined depends on the instruction; each
/// part sits at the same place wherever it is defined.
///
/// | part | bits | defined for |
/// |---|---|---|
/// | scale, segment, index, base | 1:0, 17:15, 22:18, 27:23 | all with a memory operand |
/// | first register | 6:3 | VMREAD, VMWRITE, LLDT, LTR, SLDT, STR, RDRAND, RDSEED, TPAUSE, UMWAIT, LOADIWKEY |
/// | address size | 9:7 | all with a memory operand, INS, OUTS |
/// | operand is a register | 10 | VMREAD, VMWRITE, LLDT, LTR, SLDT, STR |
/// | operand size | 11 (descriptor tables), 12:11 (RDRAND and its like) | |
/// | which instruction | 29:28 | LGDT, LIDT, SGDT, SIDT, LLDT, LTR, SLDT, STR |
/// | second register | 31:28 | VMREAD, VMWRITE, INVEPT, INVPCID, INVVPID, LOADIWKEY |
#[derive(Clone, Copy, PartialEq, Eq, Default)]
#[repr(transparent)]
pub struct InstructionInfo(pub u32);

/// A memory operand: base plus index times scale plus displacement, in a segment. The displacement is the exit
/// qualification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct MemoryOperand {
    /// The segment register.
    pub segment: SegmentName,
    /// Base register, if there is one.
    pub base: Option<Gpr>,
    /// Index register, if there is one.
    pub index: Option<Gpr>,
    /// What the index is multiplied by: 1, 2, 4 or 8.
    pub scale: u8,
    /// Width of the address calculation: word, dword or qword; the sum is truncated to it.
    pub address_size: Width,
}

/// What an instruction that takes a register or memory operates on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Operand {
    /// A register.
    Register(Gpr),
    /// Memory.
    Memory(MemoryOperand),
}

impl InstructionInfo {
    const fn register(self, shift: u32) -> Gpr {
        Gpr::from_number((self.0 >> shift & 0xf) as u8)
    }

    /// Bit 10: the operand of VMREAD and VMWRITE, and of LLDT, LTR, SLDT and STR, is a register, [`Self::number_1`].
    #[inline(always)]
    pub const fn is_register(self) -> bool {
        self.0 >> 10 & 1 != 0
    }

    /// Number of the first register operand, bits 6:3.
    #[inline(always)]
    pub const fn number_1(self) -> u32 {
        self.0 >> 3 & 0xf
    }

    /// Number of the second register operand, bits 31:28.
    #[inline(always)]
    pub const fn number_2(self) -> u32 {
        self.0 >> 28
    }

    /// Number of the memory operand's base register, bits 26:23, if there is one.
    #[inline(always)]
    pub const fn base_number(self) -> Option<u32> {
        if self.0 >> 27 & 1 == 0 { Some(self.0 >> 23 & 0xf) } else { None }
    }

    /// Number of the memory operand's index register, bits 21:18, if there is one.
    #[inline(always)]
    pub const fn index_number(self) -> Option<u32> {
        if self.0 >> 22 & 1 == 0 { Some(self.0 >> 18 & 0xf) } else { None }
    }

    /// Bits 1:0: the index is shifted left by this.
    #[inline(always)]
    pub const fn index_shift(self) -> u32 {
        self.0 & 3
    }

    /// Bits 6:3: the first register operand.
    pub const fn register_1(self) -> Gpr {
        self.register(3)
    }

    /// Bits 31:28: the second register operand.
    pub const fn register_2(self) -> Gpr {
        self.register(28)
    }

    /// Bits 9:7: width of addresses.
    pub const fn address_size(self) -> Width {
        match self.0 >> 7 & 7 {
            0 => Width::Word,
            1 => Width::Dword,
            _ => Width::Qword,
        }
    }

    /// Bits 12:11: width of the register operand of RDRAND, RDSEED, TPAUSE and UMWAIT.
    pub const fn operand_size(self) -> Width {
        match self.0 >> 11 & 3 {
            0 => Width::Word,
            1 => Width::Dword,
            _ => Width::Qword,
        }
    }

    /// Bit 11: LGDT, LIDT, SGDT and SIDT have 32-bit operand size, not 16-bit. Undefined in 64-bit mode.
    pub const fn is_operand_size_32(self) -> bool {
        self.0 >> 11 & 1 != 0
    }

    /// Bits 17:15: the segment register of the memory operand, and of OUTS.
    #[inline]
    pub const fn segment(self) -> SegmentName {
        match self.0 >> 15 & 7 {
            0 => SegmentName::Es,
            1 => SegmentName::Cs,
            2 => SegmentName::Ss,
            3 => SegmentName::Ds,
            4 => SegmentName::Fs,
            _ => SegmentName::Gs,
        }
    }

    /// The memory operand of an instruction that has one.
    pub const fn memory(self) -> MemoryOperand {
        let index = if self.0 >> 22 & 1 == 0 { Some(self.register(18)) } else { None };
        let base = if self.0 >> 27 & 1 == 0 { Some(self.register(23)) } else { None };
        MemoryOperand {
            segment: self.segment(),
            base,
            index,
            scale: 1 << (self.0 & 3),
            address_size: self.address_size(),
        }
    }

    /// The operand of VMREAD, VMWRITE, LLDT, LTR, SLDT or STR: a register or memory, by bit 10.
    pub const fn operand(self) -> Operand {
        if self.0 >> 10 & 1 != 0 { Operand::Register(self.register_1()) } else { Operand::Memory(self.memory()) }
    }

    /// Bits 29:28: which of SGDT, SIDT, LGDT, LIDT (0 to 3), or of SLDT, STR, LLDT, LTR.
    pub const fn identity(self) -> u8 {
        (self.0 >> 28 & 3) as u8
    }
}

impl core::fmt::Debug for InstructionInfo {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

#[cfg(feature = "defmt")]
impl defmt::Format for InstructionInfo {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "{=u32:#x}", self.0);
    }
}

/// An instruction's memory operand, not decoded yet: its displacement and the instruction information.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct InstructionOperand {
    /// The displacement, sign-extended; for RIP-relative operands the sum of it and the next instruction's RIP.
    pub displacement: u64,
    /// The rest.
    pub info: InstructionInfo,
}

/// Which instruction accessed a descriptor-table register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[expect(missing_docs, reason = "the instructions' names")]
pub enum DescriptorTableInstruction {
    Sgdt,
    Sidt,
    Lgdt,
    Lidt,
    Sldt,
    Str,
    Lldt,
    Ltr,
}

impl DescriptorTableInstruction {
    /// The one that exited with "access to GDTR or IDTR".
    pub const fn from_gdtr_idtr(info: InstructionInfo) -> Self {
        match info.identity() {
            0 => Self::Sgdt,
            1 => Self::Sidt,
            2 => Self::Lgdt,
            _ => Self::Lidt,
        }
    }

    /// The one that exited with "access to LDTR or TR".
    pub const fn from_ldtr_tr(info: InstructionInfo) -> Self {
        match info.identity() {
            0 => Self::Sldt,
            1 => Self::Str,
            2 => Self::Lldt,
            _ => Self::Ltr,
        }
    }
}
