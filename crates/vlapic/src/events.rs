//! What reaches a processor beside interrupt vectors.

/// Events that a local APIC hands to its processor instead of keeping them in IRR.
///
/// Each is a fact to be acted on once by whoever receives the value. INIT comes before a start-up: when both are
/// there, the INIT arrived first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[must_use = "an event that nobody acts on is lost"]
pub struct Events {
    /// A non-maskable interrupt.
    pub nmi: bool,
    /// INIT: the receiver calls [`LocalApic::init`](crate::LocalApic::init) when it acts on it.
    pub init: bool,
    /// Start-up IPI with its vector: execution starts at `vector << 12`. Only a processor that waits for it cares.
    pub startup: Option<u8>,
    /// System-management interrupt.
    pub smi: bool,
    /// An interrupt whose vector the PIC supplies arrived as a message.
    pub extint: bool,
}

impl Events {
    /// No event.
    pub const NONE: Self = Self { nmi: false, init: false, startup: None, smi: false, extint: false };

    /// Both, these first. A start-up IPI that an INIT follows is void, as in a mailbox.
    #[cold]
    pub const fn then(self, later: Self) -> Self {
        let startup = match self.startup {
            Some(page) if !later.init => Some(page),
            _ => later.startup,
        };
        Self {
            nmi: self.nmi | later.nmi,
            init: self.init | later.init,
            startup,
            smi: self.smi | later.smi,
            extint: self.extint | later.extint,
        }
    }

    /// Whether there is no event.
    pub const fn is_empty(&self) -> bool {
        !(self.nmi | self.init | self.smi | self.extint | self.startup.is_some())
    }
}
