//! The seam to the VM: what lies around one vCPU — memory, devices, the other vCPUs.

use arch::{GuestPhys, Msr, Width};
use nested::{Explanation, L1Memory, Posted};
use vlapic::{Bus, Mailbox, Reason};

use crate::stop::Stop;

/// What one vCPU sees of its VM. Each vCPU has a `World` of its own; what is shared lies behind it.
///
/// [`Bus`] is the part that the local APIC talks to: interrupt messages and EOI broadcasts.
pub trait World: Bus {
    /// L1's RAM.
    type Memory: L1Memory;

    /// L1's RAM.
    fn memory(&self) -> &Self::Memory;

    /// What others have posted to this vCPU.
    fn mailbox(&self) -> &Mailbox;

    /// IN: the value in the low bits, the rest zero. `now` is the machine's TSC.
    fn port_in(&self, port: u16, width: Width, now: u64) -> u32;

    /// OUT. Asks for power-off by [`World::stop`].
    fn port_out(&self, port: u16, width: Width, value: u32, now: u64);

    /// A read of device memory; `None` when no device answers there.
    fn mmio_read(&self, at: GuestPhys, width: Width, now: u64) -> Option<u64>;

    /// A write of device memory; `false` when no device answers there.
    fn mmio_write(&self, at: GuestPhys, width: Width, value: u64, now: u64) -> bool;

    /// The INTA cycle: the vector that the PIC gives for its output.
    fn pic_acknowledge(&self) -> u8;

    /// Whether the PIC's output is asserted.
    fn pic_asserted(&self) -> bool;

    /// When the devices next want [`World::tick`], in the machine's TSC; `u64::MAX` for never. Cheap: the run loop
    /// asks before every entry.
    fn deadline(&self) -> u64;

    /// Whether somebody else wants this processor now: the run ends as if the slice were over.
    fn wanted_elsewhere(&self) -> bool;

    /// Lets the devices do what is due.
    fn tick(&self, now: u64);

    /// Why the VM must stop, once somebody said so.
    fn stop(&self) -> Option<Stop>;

    /// This vCPU's APIC has, or has no longer, a reason for which the VM does without the processor's help. All vCPUs learn of
    /// it before they run their guests again.
    fn inhibit(&self, reason: Reason, holds: bool);

    /// Whether the VM does without the processor's help for APICs.
    fn is_apic_inhibited(&self) -> bool;

    /// L1 has entered VMX operation on this vCPU: what runs may be an L2 from now on.
    fn becomes_hypervisor(&self) {}

    /// From now on the processor takes in by itself what L1 posts for this vCPU's L2, and need only be notified; or no longer. An
    /// interrupt with the vector for that is then posted by [`Mailbox::post_for_l2`].
    fn l2_takes_posts(&self, posted: Option<&Posted>);

    /// Something that a user wants to know: for the log, never on the fast path.
    fn report(&self, report: Report);
}

/// What is worth a line in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Report {
    /// RDMSR or WRMSR of a register that L1's machine does not have: #GP was injected.
    UnknownMsr {
        /// The register.
        msr: Msr,
        /// Whether it was a write.
        write: bool,
    },
    /// An instruction fetch from an address where neither RAM nor a device answers: #UD was injected, as the bytes are ones.
    FetchFromNothing {
        /// The address.
        at: GuestPhys,
    },
    /// An entry of L1 into L2 failed.
    EntryOfL1Failed(Explanation),
    /// The machine stored a wrong RIP at a VM exit, and it was put right: an error of an emulator.
    LostRip,
    /// An access to an address where neither RAM nor a device answers: reads are all ones, writes are lost.
    NothingThere {
        /// The address.
        at: GuestPhys,
        /// Whether it was a write.
        write: bool,
    },
}
