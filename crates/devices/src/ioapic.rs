//! The IOAPIC (Intel 82093AA data sheet, section 3 "Register Description"): 24 pins, version 0x11.
//!
//! Version 0x11, as in Bochs, has no EOI register: a level-triggered pin is released by the EOI that the local APIC
//! broadcasts, or by a driver that switches the pin to edge for a moment.
//!
//! Lines are logical: a pin is asserted when its device asks, whatever polarity the entry names, because no device here
//! has a polarity of its own. Messages are delivered at once, so the delivery-status bit always reads 0. The arbitration
//! register follows the ID register, which has four bits; Bochs keeps eight and arbitrates with 0.

use arch::apic::{DeliveryMode, Message, Shorthand};
use arch::{GuestPhys, Width};

/// The register page of the IOAPIC.
pub const IOAPIC_BASE: GuestPhys = GuestPhys(0xfec0_0000);
/// Interrupt inputs.
pub(crate) const PINS: u8 = 24;

const VERSION: u32 = 0x11 | (PINS as u32 - 1) << 16;
const REG_ID: u8 = 0x00;
const REG_VERSION: u8 = 0x01;
const REG_ARBITRATION: u8 = 0x02;
const REG_REDIRECTION: u8 = 0x10;

/// Bits 27:24 of the ID register (data sheet 3.2.1 "IOAPICID—IOAPIC Identification Register").
const ID_BITS: u8 = 0xf;
/// Entry bits that a write changes: all of 31:0 that exist, but delivery status (12) and remote IRR (14).
const WRITABLE: u32 = 0x0001_afff;
const REMOTE_IRR: u32 = 1 << 14;
const LEVEL: u32 = 1 << 15;
const MASKED: u32 = 1 << 16;
const LOGICAL: u32 = 1 << 11;

#[derive(Clone, Copy, Debug)]
struct Entry {
    low: u32,
    high: u32,
}

impl Entry {
    fn mode(self) -> DeliveryMode {
        DeliveryMode::from_bits(self.low >> 8)
    }

    /// Whether the pin waits for an EOI. Only fixed and lowest-priority interrupts have one: for the other modes
    /// the data sheet demands edge, and a level bit is taken as edge.
    fn level(self) -> bool {
        self.low & LEVEL != 0 && matches!(self.mode(), DeliveryMode::Fixed | DeliveryMode::LowestPriority)
    }

    fn masked(self) -> bool {
        self.low & MASKED != 0
    }

    fn vector(self) -> u8 {
        self.low.to_le_bytes()[0]
    }

    fn message(self) -> Message {
        Message {
            vector: self.vector(),
            mode: self.mode(),
            logical: self.low & LOGICAL != 0,
            level_triggered: self.level(),
            destination: self.high >> 24,
            xapic_destination: true,
            shorthand: Shorthand::None,
        }
    }
}

/// Register state of the IOAPIC.
#[derive(Debug)]
pub(crate) struct IoApic {
    id: u8,
    select: u8,
    /// Pins that are asserted now.
    lines: u32,
    entries: [Entry; PINS as usize],
}

impl IoApic {
    /// All pins masked. `id` is the APIC ID it starts with: as in Bochs, the number of processors.
    pub(crate) fn new(id: u8) -> Self {
        Self { id: id & ID_BITS, select: 0, lines: 0, entries: [Entry { low: MASKED, high: 0 }; PINS as usize] }
    }

    /// Whether pin `pin` is masked.
    pub(crate) fn masked(&self, pin: u8) -> bool {
        self.entries.get(usize::from(pin)).is_none_or(|entry| entry.masked())
    }

    /// Pin `pin` is asserted from the start, which is no edge.
    pub(crate) fn start_high(&mut self, pin: u8) {
        self.lines |= 1 << pin;
    }

    /// Pin `pin` changes; the message that it sends now. An edge at a masked pin is lost (data sheet, "Interrupt Mask").
    pub(crate) fn set_pin(&mut self, pin: u8, asserted: bool) -> Option<Message> {
        let entry = *self.entries.get(usize::from(pin))?;
        let bit = 1 << pin;
        let rising = asserted && self.lines & bit == 0;
        self.lines = if asserted { self.lines | bit } else { self.lines & !bit };
        if entry.level() {
            return self.serve(pin);
        }
        (rising && !entry.masked()).then(|| entry.message())
    }

    /// An EOI for `vector` came from a local APIC: level-triggered entries with it may ask again, and `send` is
    /// called for those whose line is still asserted.
    pub(crate) fn end_of_interrupt(&mut self, vector: u8, mut send: impl FnMut(Message)) {
        for pin in 0..PINS {
            let entry = &mut self.entries[usize::from(pin)];
            if entry.low & REMOTE_IRR != 0 && entry.vector() == vector {
                entry.low &= !REMOTE_IRR;
                if let Some(message) = self.serve(pin) {
                    send(message);
                }
            }
        }
    }

    /// Reads `width` bytes at `offset` into the register page. Only IOREGSEL (0x00) and IOWIN (0x10) exist; the rest
    /// of the page reads 0. Narrower reads see their part of the register.
    pub(crate) fn read(&self, offset: u64, width: Width) -> u64 {
        let register = match offset & 0xfc {
            0x00 => u32::from(self.select),
            0x10 => self.read_register(),
            _ => 0,
        };
        (u64::from(register) >> (8 * (offset & 3))) & width.mask()
    }

    /// Writes to the register page. The data sheet wants 32-bit accesses; narrower ones count as zero-extended, of a
    /// wider one the low half counts.
    pub(crate) fn write(&mut self, offset: u64, width: Width, value: u64) -> Option<Message> {
        let [a, b, c, d, ..] = (value & width.mask()).to_le_bytes();
        match offset & 0xff {
            0x00 => {
                self.select = a;
                None
            }
            0x10 => self.write_register(u32::from_le_bytes([a, b, c, d])),
            _ => None,
        }
    }

    /// The pin and half that the selected register is of, if it is a redirection entry.
    fn selected(&self) -> Option<(u8, bool)> {
        let index = self.select.checked_sub(REG_REDIRECTION)?;
        (index / 2 < PINS).then_some((index / 2, index & 1 != 0))
    }

    fn read_register(&self) -> u32 {
        if let Some((pin, high)) = self.selected() {
            let entry = self.entries[usize::from(pin)];
            return if high { entry.high } else { entry.low };
        }
        match self.select {
            REG_ID => u32::from(self.id) << 24,
            REG_VERSION => VERSION,
            REG_ARBITRATION => u32::from(self.id) << 24,
            _ => 0,
        }
    }

    fn write_register(&mut self, value: u32) -> Option<Message> {
        let Some((pin, high)) = self.selected() else {
            if self.select == REG_ID {
                self.id = value.to_le_bytes()[3] & ID_BITS;
            }
            return None;
        };
        let entry = &mut self.entries[usize::from(pin)];
        if high {
            entry.high = value & 0xff00_0000;
            return None;
        }
        entry.low = value & WRITABLE | entry.low & REMOTE_IRR;
        if !entry.level() {
            // Leaving level mode forgets the interrupt in service: how drivers acknowledge without an EOI register.
            entry.low &= !REMOTE_IRR;
            return None;
        }
        self.serve(pin)
    }

    /// Sends for a level-triggered pin, unless it is masked, not asserted, or waits for its EOI.
    fn serve(&mut self, pin: u8) -> Option<Message> {
        let entry = &mut self.entries[usize::from(pin)];
        let asks = self.lines & 1 << pin != 0 && entry.level() && !entry.masked() && entry.low & REMOTE_IRR == 0;
        asks.then(|| {
            entry.low |= REMOTE_IRR;
            entry.message()
        })
    }
}
