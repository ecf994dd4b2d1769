//! The error status register: errors gather unseen until software writes it.

/// A vector below 16 was sent.
pub(crate) const SEND_ILLEGAL_VECTOR: u32 = 1 << 5;
/// A vector below 16 was received, or came from the local vector table or a self-IPI.
pub(crate) const RECEIVE_ILLEGAL_VECTOR: u32 = 1 << 6;
/// An xAPIC access to a reserved register address.
pub(crate) const ILLEGAL_REGISTER: u32 = 1 << 7;

/// Error status (SDM 3A 11.5.3 "Error Handling").
#[derive(Clone, Debug, Default)]
pub(crate) struct Errors {
    /// What a read shows: the errors up to the last write.
    visible: u32,
    /// The errors since.
    gathered: u32,
    /// The error interrupt has been raised since the last write; the next write arms it again.
    signalled: bool,
}

impl Errors {
    pub(crate) fn visible(&self) -> u32 {
        self.visible
    }

    /// A write by software, whatever the value.
    pub(crate) fn write(&mut self) {
        self.visible = self.gathered;
        self.gathered = 0;
        self.signalled = false;
    }

    pub(crate) fn gather(&mut self, errors: u32) {
        self.gathered |= errors;
    }

    /// Whether the error interrupt may be raised; it then may not until the next write.
    pub(crate) fn signal(&mut self) -> bool {
        !core::mem::replace(&mut self.signalled, true)
    }
}
