//! Event words: the one format that entry injection, exit interruption information and IDT-vectoring information share.

use arch::Vector;

/// What kind of event a word describes: bits 10:8 of it (SDM 3C 25.8.3 "VM-Entry Controls for Event Injection").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(u8)]
pub enum EventKind {
    /// External interrupt.
    ExternalInterrupt = 0,
    /// Reserved; not used by the processor.
    Reserved = 1,
    /// Non-maskable interrupt.
    Nmi = 2,
    /// Hardware exception.
    HardwareException = 3,
    /// Software interrupt: INT n.
    SoftwareInterrupt = 4,
    /// Privileged software exception: INT1.
    PrivilegedSoftwareException = 5,
    /// Software exception: INT3 or INTO.
    SoftwareException = 6,
    /// Other event; vector 0 is a pending monitor trap flag.
    Other = 7,
}

impl EventKind {
    const ALL: [Self; 8] = [
        Self::ExternalInterrupt,
        Self::Reserved,
        Self::Nmi,
        Self::HardwareException,
        Self::SoftwareInterrupt,
        Self::PrivilegedSoftwareException,
        Self::SoftwareException,
        Self::Other,
    ];

    /// Whether an instruction raised the event, so that its delivery needs the instruction's length.
    #[inline]
    pub const fn is_software(self) -> bool {
        matches!(self, Self::SoftwareInterrupt | Self::PrivilegedSoftwareException | Self::SoftwareException)
    }
}

/// An event word: VM-entry interruption information, VM-exit interruption information or IDT-vectoring information
/// (SDM 3C 25.8.3, 25.9.2 "Information for VM Exits Due to Vectored Events" and 25.9.3 "Information for VM Exits That
/// Occur During Event Delivery").
///
/// Bits 7:0 are the vector, 10:8 the kind, 11 says that there is an error code, 31 that the word is valid. Bit 12 means
/// "NMI unblocking due to IRET" in exit interruption information; it is undefined in IDT-vectoring information and must
/// be clear for injection.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
#[repr(transparent)]
pub struct EventInfo(pub u32);

impl EventInfo {
    /// No event.
    pub const NONE: Self = Self(0);

    const ERROR_CODE: u32 = 1 << 11;
    const NMI_UNBLOCKING: u32 = 1 << 12;
    const VALID: u32 = 1 << 31;

    const fn new(kind: EventKind, vector: u8, error_code: bool) -> Self {
        let error_code = if error_code { Self::ERROR_CODE } else { 0 };
        Self(Self::VALID | error_code | (kind as u32) << 8 | vector as u32)
    }

    /// An external interrupt.
    pub const fn external(vector: u8) -> Self {
        Self::new(EventKind::ExternalInterrupt, vector, false)
    }

    /// A non-maskable interrupt.
    pub const fn nmi() -> Self {
        Self::new(EventKind::Nmi, Vector::NMI.0, false)
    }

    /// An exception that the processor found. `has_error`: whether it delivers an error code, which is written to a
    /// field of its own; it must be false while CR0.PE is clear.
    pub const fn hardware_exception(vector: Vector, has_error: bool) -> Self {
        Self::new(EventKind::HardwareException, vector.0, has_error)
    }

    /// INT n.
    pub const fn software_interrupt(vector: u8) -> Self {
        Self::new(EventKind::SoftwareInterrupt, vector, false)
    }

    /// INT1 (the opcode 0xf1): a #DB that ignores privilege.
    pub const fn privileged_software_exception() -> Self {
        Self::new(EventKind::PrivilegedSoftwareException, Vector::DB.0, false)
    }

    /// INT3 (#BP) or INTO (#OF).
    pub const fn software_exception(vector: Vector) -> Self {
        Self::new(EventKind::SoftwareException, vector.0, false)
    }

    /// A monitor-trap-flag exit right after the entry (SDM 3C 27.6.2 "Injection of Pending MTF VM Exits").
    pub const fn pending_mtf() -> Self {
        Self::new(EventKind::Other, 0, false)
    }

    /// Bit 31: there is an event.
    #[inline(always)]
    pub const fn is_valid(self) -> bool {
        self.0 & Self::VALID != 0
    }

    /// Bits 7:0.
    #[inline(always)]
    pub const fn vector(self) -> Vector {
        Vector((self.0 & 0xff) as u8)
    }

    /// Bits 10:8.
    #[inline]
    pub const fn kind(self) -> EventKind {
        EventKind::ALL[(self.0 >> 8 & 7) as usize]
    }

    /// Bit 11: an error code is delivered, or was.
    #[inline(always)]
    pub const fn has_error_code(self) -> bool {
        self.0 & Self::ERROR_CODE != 0
    }

    /// Bit 12, of exit interruption information only: an IRET had unblocked NMIs when the event occurred.
    #[inline(always)]
    pub const fn is_nmi_unblocking(self) -> bool {
        self.0 & Self::NMI_UNBLOCKING != 0
    }

    /// Whether this is a valid event of `kind`.
    #[inline]
    pub fn is(self, kind: EventKind) -> bool {
        self.is_valid() && self.kind() == kind
    }

    /// Whether this is hardware exception `vector`.
    #[inline]
    pub fn is_exception(self, vector: Vector) -> bool {
        self.is(EventKind::HardwareException) && self.vector() == vector
    }

    /// The word to inject again an event whose delivery an exit interrupted, given its IDT-vectoring information: the
    /// bits that injection reserves are cleared (SDM 3C 25.9.3 leaves bit 12 undefined).
    #[inline]
    pub fn for_injection(self) -> Self {
        Self(self.0 & !0x7fff_f000)
    }
}

impl core::fmt::Debug for EventInfo {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        if !self.is_valid() {
            return f.write_str("no event");
        }
        write!(f, "{:?} {}", self.kind(), self.vector().0)?;
        if self.has_error_code() { f.write_str(" with error code") } else { Ok(()) }
    }
}

#[cfg(feature = "defmt")]
impl defmt::Format for EventInfo {
    fn format(&self, f: defmt::Formatter<'_>) {
        if self.is_valid() {
            defmt::write!(f, "{} {=u8}", self.kind(), self.vector().0);
        } else {
            defmt::write!(f, "no event");
        }
    }
}
