//! General-purpose registers.

/// A general-purpose register, numbered as instructions and exit qualifications number them
/// (SDM 3C 28.2.1 "Basic VM-Exit Information", table "Exit Qualification for Control-Register Accesses").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(u8)]
#[expect(missing_docs, reason = "a register's name says what it is")]
pub enum Gpr {
    Rax = 0,
    Rcx = 1,
    Rdx = 2,
    Rbx = 3,
    Rsp = 4,
    Rbp = 5,
    Rsi = 6,
    Rdi = 7,
    R8 = 8,
    R9 = 9,
    R10 = 10,
    R11 = 11,
    R12 = 12,
    R13 = 13,
    R14 = 14,
    R15 = 15,
}

impl Gpr {
    /// All registers in the order of their numbers.
    pub const ALL: [Self; 16] = [
        Self::Rax,
        Self::Rcx,
        Self::Rdx,
        Self::Rbx,
        Self::Rsp,
        Self::Rbp,
        Self::Rsi,
        Self::Rdi,
        Self::R8,
        Self::R9,
        Self::R10,
        Self::R11,
        Self::R12,
        Self::R13,
        Self::R14,
        Self::R15,
    ];

    /// The register with number `number`; only the low four bits count.
    #[inline]
    pub const fn from_number(number: u8) -> Self {
        Self::ALL[(number & 15) as usize]
    }
}

/// A guest's general-purpose registers while L0 runs. `repr(C)`: the entry code in `hw` addresses them by number.
///
/// RSP is in the VMCS (field GUEST_RSP); its slot here is scratch that the entry code never loads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C, align(16))]
pub struct GuestRegs {
    values: [u64; 16],
}

impl GuestRegs {
    /// The value of `register`; for RSP see the type's note.
    #[inline(always)]
    pub const fn get(&self, register: Gpr) -> u64 {
        self.values[register as usize]
    }

    /// The value of the register with number `number`, of which only the low four bits count.
    #[inline(always)]
    pub const fn get_numbered(&self, number: u32) -> u64 {
        self.values[(number & 15) as usize]
    }

    /// Sets all 64 bits of the register with number `number`.
    #[inline(always)]
    pub const fn set_numbered(&mut self, number: u32, value: u64) {
        self.values[(number & 15) as usize] = value;
    }

    /// Sets all 64 bits of `register`.
    #[inline(always)]
    pub const fn set(&mut self, register: Gpr, value: u64) {
        self.values[register as usize] = value;
    }

    /// EAX.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "the low half is what is asked for")]
    pub const fn eax(&self) -> u32 {
        self.values[Gpr::Rax as usize] as u32
    }

    /// ECX.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "the low half is what is asked for")]
    pub const fn ecx(&self) -> u32 {
        self.values[Gpr::Rcx as usize] as u32
    }

    /// EDX:EAX, as RDMSR, WRMSR, RDTSC and XSETBV use the pair.
    #[inline(always)]
    pub const fn edx_eax(&self) -> u64 {
        self.values[Gpr::Rdx as usize] << 32 | self.values[Gpr::Rax as usize] & 0xffff_ffff
    }

    /// Sets RDX and RAX to the halves of `value`, their upper halves to zero.
    #[inline(always)]
    pub const fn set_edx_eax(&mut self, value: u64) {
        self.values[Gpr::Rdx as usize] = value >> 32;
        self.values[Gpr::Rax as usize] = value & 0xffff_ffff;
    }
}
