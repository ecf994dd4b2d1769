//! A 16550 serial port of the machine, polled.

use crate::port;

const DATA: u16 = 0;
const INTERRUPT_ENABLE: u16 = 1;
const FIFO_CONTROL: u16 = 2;
const LINE_CONTROL: u16 = 3;
const MODEM_CONTROL: u16 = 4;
const LINE_STATUS: u16 = 5;
const SCRATCH: u16 = 7;

const DIVISOR_ACCESS: u8 = 0x80;
const EIGHT_BITS_NO_PARITY: u8 = 0x03;
/// Enabled and emptied.
const FIFO: u8 = 0x07;
const FIFO_DEPTH: u8 = 16;
/// Data terminal ready, request to send.
const DTR_RTS: u8 = 0x03;
const TRANSMITTER_EMPTY: u8 = 1 << 5;
const DATA_READY: u8 = 1 << 0;

/// A serial port that L0 owns.
#[derive(Debug)]
pub struct Uart {
    base: u16,
    /// Bytes that the transmit FIFO certainly still takes.
    room: u8,
    depth: u8,
}

impl Uart {
    /// Sets the port at `base` up for 115200 bit/s, 8 data bits, no parity, and returns it; `None` when there is none.
    ///
    /// # Safety
    /// A 16550 or nothing is at `base`, and nobody else uses it.
    pub unsafe fn new(base: u16) -> Option<Self> {
        let mut uart = Self { base, room: 0, depth: 1 };
        for probe in [0x5a, 0xa5] {
            uart.write(SCRATCH, probe);
            if uart.read(SCRATCH) != probe {
                return None;
            }
        }
        uart.write(INTERRUPT_ENABLE, 0);
        uart.write(LINE_CONTROL, DIVISOR_ACCESS);
        uart.write(DATA, 1);
        uart.write(INTERRUPT_ENABLE, 0);
        uart.write(LINE_CONTROL, EIGHT_BITS_NO_PARITY);
        uart.write(FIFO_CONTROL, FIFO);
        uart.write(MODEM_CONTROL, DTR_RTS);
        // Bits 7:6 of the identification register: the FIFO works.
        if uart.read(FIFO_CONTROL) & 0xc0 == 0xc0 {
            uart.depth = FIFO_DEPTH;
        }
        Some(uart)
    }

    /// Whether a byte can be sent now.
    #[inline]
    pub fn ready(&mut self) -> bool {
        if self.room == 0 && self.read(LINE_STATUS) & TRANSMITTER_EMPTY != 0 {
            self.room = self.depth;
        }
        self.room != 0
    }

    /// Sends `byte` if the port takes it now. It never loses a byte: "empty" means room for a whole FIFO, and no more than
    /// that is sent before the port is asked again.
    #[inline]
    pub fn try_put(&mut self, byte: u8) -> bool {
        let ready = self.ready();
        if ready {
            self.room -= 1;
            self.write(DATA, byte);
        }
        ready
    }

    /// The next byte that has arrived.
    pub fn try_get(&mut self) -> Option<u8> {
        (self.read(LINE_STATUS) & DATA_READY != 0).then(|| self.read(DATA))
    }

    /// Whether all bytes have left the FIFO.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        const TRANSMITTER_IDLE: u8 = 1 << 6;
        self.read(LINE_STATUS) & TRANSMITTER_IDLE != 0
    }

    fn read(&self, register: u16) -> u8 {
        // SAFETY: `new` was promised that the port is ours.
        unsafe { port::in8(self.base + register) }
    }

    fn write(&self, register: u16, value: u8) {
        // SAFETY: `new` was promised that the port is ours.
        unsafe { port::out8(self.base + register, value) };
    }
}
