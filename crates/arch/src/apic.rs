//! The local APIC's registers and interrupt messages (SDM 3A chapter 11 "Advanced Programmable Interrupt Controller").

/// Default physical address of the xAPIC register page (SDM 3A 11.4.1 "The Local APIC Block Diagram").
pub const DEFAULT_BASE: u64 = 0xfee0_0000;

/// A register of the local APIC by its xAPIC offset (a multiple of 0x10); x2APIC's MSR is `0x800 + offset / 16`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Register(pub u16);

#[expect(missing_docs, reason = "the manual's names: SDM 3A table 11-1 \"Local APIC Register Address Map\"")]
impl Register {
    pub const ID: Self = Self(0x20);
    pub const VERSION: Self = Self(0x30);
    pub const TPR: Self = Self(0x80);
    pub const APR: Self = Self(0x90);
    pub const PPR: Self = Self(0xa0);
    pub const EOI: Self = Self(0xb0);
    pub const RRD: Self = Self(0xc0);
    pub const LDR: Self = Self(0xd0);
    pub const DFR: Self = Self(0xe0);
    pub const SVR: Self = Self(0xf0);
    pub const ISR: Self = Self(0x100);
    pub const TMR: Self = Self(0x180);
    pub const IRR: Self = Self(0x200);
    pub const ESR: Self = Self(0x280);
    pub const LVT_CMCI: Self = Self(0x2f0);
    pub const ICR: Self = Self(0x300);
    pub const ICR_HIGH: Self = Self(0x310);
    pub const LVT_TIMER: Self = Self(0x320);
    pub const LVT_THERMAL: Self = Self(0x330);
    pub const LVT_PERFMON: Self = Self(0x340);
    pub const LVT_LINT0: Self = Self(0x350);
    pub const LVT_LINT1: Self = Self(0x360);
    pub const LVT_ERROR: Self = Self(0x370);
    pub const INITIAL_COUNT: Self = Self(0x380);
    pub const CURRENT_COUNT: Self = Self(0x390);
    pub const DIVIDE: Self = Self(0x3e0);
    pub const SELF_IPI: Self = Self(0x3f0);
}

impl core::fmt::Debug for Register {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "APIC register {:#x}", self.0)
    }
}

/// How a message is delivered (SDM 3A 11.6.1 "Interrupt Command Register (ICR)"; same encoding in LVTs, IOAPIC and MSI).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(u8)]
pub enum DeliveryMode {
    /// To all named processors.
    Fixed = 0,
    /// To the one of lowest priority among those named.
    LowestPriority = 1,
    /// System-management interrupt.
    Smi = 2,
    /// Reserved encoding 3 (remote read on old parts).
    Reserved = 3,
    /// Non-maskable interrupt.
    Nmi = 4,
    /// INIT.
    Init = 5,
    /// Start-up IPI (in LVTs and IOAPIC: reserved).
    StartUp = 6,
    /// External interrupt: the vector comes from the PIC.
    ExtInt = 7,
}

impl DeliveryMode {
    /// The mode with encoding `bits`; only the low three bits count.
    pub const fn from_bits(bits: u32) -> Self {
        match bits & 7 {
            0 => Self::Fixed,
            1 => Self::LowestPriority,
            2 => Self::Smi,
            3 => Self::Reserved,
            4 => Self::Nmi,
            5 => Self::Init,
            6 => Self::StartUp,
            _ => Self::ExtInt,
        }
    }
}

/// Whom an IPI goes to without looking at its destination field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Shorthand {
    /// No shorthand: the destination field counts.
    None,
    /// The sender only.
    Myself,
    /// All, the sender too.
    AllIncludingSelf,
    /// All but the sender.
    AllExcludingSelf,
}

/// One interrupt message: from an ICR, an IOAPIC entry or an MSI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Message {
    /// Vector; the start page for a start-up IPI.
    pub vector: u8,
    /// Delivery mode.
    pub mode: DeliveryMode,
    /// Logical destination mode; physical otherwise.
    pub logical: bool,
    /// Level triggered; edge otherwise.
    pub level_triggered: bool,
    /// Destination: 8 bits from an xAPIC, IOAPIC or MSI, 32 bits from an x2APIC.
    pub destination: u32,
    /// Whether `destination` is an xAPIC's 8-bit value (0xff is then the broadcast).
    pub xapic_destination: bool,
    /// Shorthand; `None` except from an ICR.
    pub shorthand: Shorthand,
}
