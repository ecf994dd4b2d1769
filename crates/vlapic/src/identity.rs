//! How an APIC is addressed: what the others must know of it.

/// State of a local APIC, by IA32_APIC_BASE (SDM 3A 11.12.1 "Detecting and Enabling x2APIC Mode").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(u8)]
pub enum Mode {
    /// Globally disabled: as if the processor had no local APIC.
    Disabled = 0,
    /// Registers in memory, 8-bit ids.
    Xapic = 1,
    /// Registers in MSRs, 32-bit ids.
    X2apic = 2,
}

/// What a local APIC publishes about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Identity {
    /// APIC id: 8 bits in xAPIC mode, 32 in x2APIC mode.
    pub id: u32,
    /// Logical id of xAPIC mode (bits 31:24 of LDR). In x2APIC mode the logical id follows from `id`.
    pub logical_id: u8,
    /// Whether the destination format register selects the cluster model. It counts in xAPIC mode only.
    pub cluster: bool,
    /// State.
    pub mode: Mode,
    /// Whether the spurious-interrupt vector register enables the APIC.
    pub software_enabled: bool,
    /// Task priority, by which lowest-priority messages are arbitrated. A hint: it may lag behind.
    pub priority: u8,
}

/// The logical id that an x2APIC derives from its id: cluster in the high half, one bit of 16 in the low half
/// (SDM 3A 11.12.10.2 "Deriving Logical x2APIC ID from the Local x2APIC ID").
pub const fn logical_x2apic_id(id: u32) -> u32 {
    (id & 0xf_fff0) << 12 | 1 << (id & 0xf)
}
