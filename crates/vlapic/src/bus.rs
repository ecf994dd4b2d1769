//! What a local APIC needs from outside.

use arch::apic::Message;

use crate::identity::Identity;

/// The way out of a local APIC: the seam of this crate.
pub trait Bus {
    /// Sends an IPI. The message is never one to the sender alone by shorthand: the APIC keeps those to itself.
    /// Whom it addresses, [`Directory::targets`](crate::Directory::targets) says; how it gets there,
    /// [`Mailbox::deliver`](crate::Mailbox::deliver).
    fn send(&self, message: Message);

    /// Tells the IOAPICs that the service of a level-triggered interrupt with `vector` has ended
    /// (SDM 3A 11.8.5 "Signaling Interrupt Servicing Completion").
    fn end_of_interrupt(&self, vector: u8);

    /// What others must know to address this APIC has changed: for [`Directory::publish`](crate::Directory::publish).
    fn published(&self, identity: Identity);
}
