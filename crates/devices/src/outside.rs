//! The one seam of this crate: what a platform asks of the world around it.

use arch::Width;
use arch::apic::Message;

/// What a guest asked of the machine as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum PowerRequest {
    /// Power off: ACPI S5, by SLP_TYP 0 and SLP_EN in the PM1a control register.
    Off,
    /// Reset: by port 0xcf9, port 0x92 or the keyboard controller.
    Reset,
    /// A write to the exit port 0xf4, with the value written (zero-extended from the width of the write).
    Exit(u32),
}

/// What the platform does to its surroundings. Each call is made at the moment the hardware would act, from within the
/// method of [`crate::Platform`] that caused it; an implementation must not call the platform back.
pub trait Outside {
    /// The IOAPIC sends `message` to the local APICs. An `ExtInt` message asks its target for a PIC acknowledge cycle
    /// ([`crate::Platform::pic_acknowledge`]); its vector field is then meaningless.
    fn interrupt(&mut self, message: Message);

    /// The INTR output of the PIC pair changed. On a PC it drives LINT0 of every local APIC. A level: it stays asserted
    /// until the request is acknowledged, masked or withdrawn.
    fn pic_output(&mut self, asserted: bool);

    /// COM1 sent `byte`.
    fn serial_out(&mut self, byte: u8);

    /// The guest asked for power-off, reset or exit.
    fn power(&mut self, request: PowerRequest);

    /// The guest accessed a port that no device answers: reads were all ones, a write went nowhere.
    fn unknown_port(&mut self, port: u16, width: Width, write: bool);
}
