//! The local vector table: how the APIC's own sources are delivered.

use arch::apic::{DeliveryMode, Register};

/// Mask bit of an entry.
pub(crate) const MASKED: u32 = 1 << 16;
/// Trigger mode of a LINT entry: level when set.
const LEVEL: u32 = 1 << 15;
/// A level-triggered LINT interrupt was accepted and its EOI is still to come; read-only for the guest.
pub(crate) const REMOTE_IRR: u32 = 1 << 14;
/// Always 0 here: nothing is ever on its way. Read-only for the guest.
const DELIVERY_STATUS: u32 = 1 << 12;

/// A source with an entry of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Source {
    Cmci,
    Timer,
    Thermal,
    PerformanceMonitor,
    Lint0,
    Lint1,
    Error,
}

impl Source {
    /// The source whose entry is `register`.
    pub(crate) const fn from_register(register: Register) -> Option<Self> {
        Some(match register {
            Register::LVT_CMCI => Self::Cmci,
            Register::LVT_TIMER => Self::Timer,
            Register::LVT_THERMAL => Self::Thermal,
            Register::LVT_PERFMON => Self::PerformanceMonitor,
            Register::LVT_LINT0 => Self::Lint0,
            Register::LVT_LINT1 => Self::Lint1,
            Register::LVT_ERROR => Self::Error,
            _ => return None,
        })
    }

    /// The bits that software sets (SDM 3A 11.5.1 "Local Vector Table", figure "Local Vector Table (LVT)").
    const fn writable(self) -> u32 {
        match self {
            Self::Timer => 0x0007_00ff,
            Self::Cmci | Self::Thermal | Self::PerformanceMonitor => 0x0001_07ff,
            Self::Lint0 | Self::Lint1 => 0x0001_a7ff,
            Self::Error => 0x0001_00ff,
        }
    }

    /// The bits that are neither writable nor read-only: in x2APIC mode, setting one is #GP.
    pub(crate) const fn reserved(self) -> u32 {
        let read_only = match self {
            Self::Lint0 | Self::Lint1 => DELIVERY_STATUS | REMOTE_IRR,
            _ => DELIVERY_STATUS,
        };
        !(self.writable() | read_only)
    }
}

/// One entry's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry(pub(crate) u32);

impl Entry {
    pub(crate) const fn is_masked(self) -> bool {
        self.0 & MASKED != 0
    }

    pub(crate) const fn vector(self) -> u8 {
        (self.0 & 0xff) as u8
    }

    /// The delivery mode; Fixed in the timer's and the error's entry, where the field is reserved and 0.
    pub(crate) const fn mode(self) -> DeliveryMode {
        DeliveryMode::from_bits(self.0 >> 8)
    }

    /// Level triggered. Only fixed delivery has a choice: NMI, SMI and INIT are edges whatever the bit says.
    pub(crate) const fn is_level(self) -> bool {
        self.0 & LEVEL != 0 && matches!(self.mode(), DeliveryMode::Fixed)
    }

    pub(crate) const fn remote_irr(self) -> bool {
        self.0 & REMOTE_IRR != 0
    }
}

/// All entries.
#[derive(Clone, Debug)]
pub(crate) struct Table([Entry; 7]);

impl Table {
    /// After RESET, INIT, or re-enabling: all masked, all else 0.
    pub(crate) const RESET: Self = Self([Entry(MASKED); 7]);

    pub(crate) const fn get(&self, source: Source) -> Entry {
        self.0[source as usize]
    }

    /// A write by software. While the APIC is software-disabled the mask cannot be cleared
    /// (SDM 3A 11.4.7.2 "Local APIC State After It Has Been Software Disabled").
    pub(crate) fn set(&mut self, source: Source, value: u32, software_enabled: bool) {
        let entry = &mut self.0[source as usize];
        let forced = if software_enabled { 0 } else { MASKED };
        let remote_irr = if value & LEVEL != 0 { entry.0 & REMOTE_IRR } else { 0 };
        *entry = Entry(value & source.writable() | remote_irr | forced);
    }

    pub(crate) fn set_remote_irr(&mut self, source: Source, set: bool) {
        let entry = &mut self.0[source as usize].0;
        *entry = if set { *entry | REMOTE_IRR } else { *entry & !REMOTE_IRR };
    }

    /// What software-disabling does to the table.
    pub(crate) fn mask_all(&mut self) {
        for entry in &mut self.0 {
            entry.0 |= MASKED;
        }
    }
}
