//! The serial port COM1: a 16550A (National Semiconductor PC16550D data sheet, section 8 "Registers").
//!
//! Sending takes no time: a byte written to THR has left the shift register before the next access. Receiving takes no
//! time either, so the character timeout (four character times without a read) has always passed when data below the
//! trigger level lies in the FIFO. Everything else, above all which access clears which interrupt, is the data sheet's.
//!
//! Baud rate, parity and stop bits are stored and read back and change nothing; the word length does count, because
//! the line carries only that many bits.
//!
//! The line starts at 115200 baud, 8 bits, as PC firmware leaves it (the chip's own reset value, 5 bits, would cut
//! what a kernel prints before it sets the port up). CTS and DSR are on, DCD and RI off, as in Bochs.

use heapless::Deque;

/// Interrupt enable register: received data, THR empty, line status, modem status.
const IER_RECEIVED: u8 = 1 << 0;
const IER_THR_EMPTY: u8 = 1 << 1;
const IER_LINE_STATUS: u8 = 1 << 2;
const IER_MODEM_STATUS: u8 = 1 << 3;

const LCR_BREAK: u8 = 1 << 6;
const LCR_DLAB: u8 = 1 << 7;

const MCR_OUT2: u8 = 1 << 3;
const MCR_LOOP: u8 = 1 << 4;

const LSR_DATA_READY: u8 = 1 << 0;
const LSR_OVERRUN: u8 = 1 << 1;
const LSR_FRAMING: u8 = 1 << 3;
const LSR_BREAK: u8 = 1 << 4;
/// Overrun, parity, framing, break: what raises the line-status interrupt and is cleared by reading LSR.
const LSR_ERRORS: u8 = 0b1_1110;
/// THR empty and transmitter empty: always, since sending takes no time.
const LSR_IDLE: u8 = 0b110_0000;
const LSR_FIFO_ERROR: u8 = 1 << 7;

/// MSR bits 3:0, "changed since last read"; bit 2 (RI) counts only its trailing edge.
const MSR_DELTAS: u8 = 0x0f;
const MSR_RI: u8 = 1 << 6;
/// CTS and DSR.
const MSR_CONNECTED: u8 = 0x30;

/// Divisor for 115200 baud.
const DIVISOR_115200: u16 = 1;

/// Register state of the port.
#[derive(Debug)]
pub(crate) struct Uart {
    interrupt_enable: u8,
    line_control: u8,
    modem_control: u8,
    line_errors: u8,
    modem_status: u8,
    scratch: u8,
    divisor: u16,
    /// FCR bit 0.
    fifos_on: bool,
    /// FCR bits 7:6 as a number of bytes.
    trigger_level: usize,
    received: Deque<u8, 16>,
    /// What RBR holds when nothing new has come.
    last_received: u8,
    /// THR became empty (or its interrupt was enabled while it was) and nobody has looked yet.
    thr_empty_pending: bool,
}

impl Uart {
    pub(crate) fn new() -> Self {
        Self {
            interrupt_enable: 0,
            line_control: 0b11,
            modem_control: 0,
            line_errors: 0,
            modem_status: MSR_CONNECTED,
            scratch: 0,
            divisor: DIVISOR_115200,
            fifos_on: false,
            trigger_level: 1,
            received: Deque::new(),
            last_received: 0,
            thr_empty_pending: false,
        }
    }

    /// The interrupt line: any enabled source, let through by OUT2 as on every PC's serial card.
    pub(crate) fn irq(&self) -> bool {
        self.modem_control & MCR_OUT2 != 0 && self.source().is_some()
    }

    /// Reads register `offset` (0 to 7).
    pub(crate) fn read(&mut self, offset: u16) -> u8 {
        let dlab = self.line_control & LCR_DLAB != 0;
        match offset {
            0 if dlab => self.divisor.to_le_bytes()[0],
            1 if dlab => self.divisor.to_le_bytes()[1],
            0 => {
                self.last_received = self.received.pop_front().unwrap_or(self.last_received);
                self.last_received
            }
            1 => self.interrupt_enable,
            2 => self.read_identification(),
            3 => self.line_control,
            4 => self.modem_control,
            5 => self.read_line_status(),
            6 => {
                let status = self.modem_status;
                self.modem_status &= !MSR_DELTAS;
                status
            }
            _ => self.scratch,
        }
    }

    /// Writes register `offset` (0 to 7). A byte that now leaves for the line is returned; the caller lets the outside
    /// see the interrupt line, sends the byte and then calls [`Self::sent`].
    pub(crate) fn write(&mut self, offset: u16, value: u8) -> Option<u8> {
        let dlab = self.line_control & LCR_DLAB != 0;
        let [low, high] = self.divisor.to_le_bytes();
        match offset {
            0 if dlab => self.divisor = u16::from_le_bytes([value, high]),
            1 if dlab => self.divisor = u16::from_le_bytes([low, value]),
            0 => {
                // Filling THR takes the "empty" interrupt away, even if the byte moves on at once: an edge-triggered
                // interrupt controller must see the line fall and rise again.
                self.thr_empty_pending = false;
                let word_mask = 0xff >> (3 - (self.line_control & 0b11));
                return Some(value & word_mask);
            }
            1 => {
                let newly = value & !self.interrupt_enable;
                self.interrupt_enable = value & 0x0f;
                // THR is empty: enabling its interrupt raises it. Linux tests for exactly this.
                self.thr_empty_pending = self.interrupt_enable & IER_THR_EMPTY != 0
                    && (self.thr_empty_pending || newly & IER_THR_EMPTY != 0);
            }
            2 => self.write_fifo_control(value),
            3 => {
                let breaking = self.break_looped();
                self.line_control = value;
                self.receive_break_since(breaking);
            }
            4 => {
                let breaking = self.break_looped();
                self.modem_control = value & 0x1f;
                self.set_modem_inputs();
                self.receive_break_since(breaking);
            }
            7 => self.scratch = value,
            // LSR and MSR: "writing is not recommended", and without effect.
            _ => {}
        }
        None
    }

    /// The byte that [`Self::write`] returned has been sent: THR is empty again. In loop-back it comes in again, and
    /// the line outside stays idle.
    pub(crate) fn sent(&mut self, byte: u8) {
        if self.looped() {
            self.receive(byte);
        }
        self.thr_empty_pending = self.interrupt_enable & IER_THR_EMPTY != 0;
    }

    /// Whether the transmitter is looped back to the receiver: nothing goes out, nothing comes in.
    pub(crate) fn looped(&self) -> bool {
        self.modem_control & MCR_LOOP != 0
    }

    /// A byte comes in from the line. `false` when it found no room (or the port is looped back) and must come again.
    pub(crate) fn accept(&mut self, byte: u8) -> bool {
        if self.looped() || self.received.len() >= self.capacity() {
            return false;
        }
        self.receive(byte);
        true
    }

    /// Bytes that can wait in the receiver.
    fn capacity(&self) -> usize {
        if self.fifos_on { self.received.capacity() } else { 1 }
    }

    /// The highest pending and enabled interrupt, as IIR bits 3:1 (data sheet table IV "Interrupt Control Functions").
    fn source(&self) -> Option<u8> {
        let enabled = |bit: u8| self.interrupt_enable & bit != 0;
        if enabled(IER_LINE_STATUS) && self.line_errors != 0 {
            Some(0b0110)
        } else if enabled(IER_RECEIVED) && self.received.len() >= self.trigger_level {
            Some(0b0100)
        } else if enabled(IER_RECEIVED) && !self.received.is_empty() {
            Some(0b1100)
        } else if self.thr_empty_pending {
            Some(0b0010)
        } else if enabled(IER_MODEM_STATUS) && self.modem_status & MSR_DELTAS != 0 {
            Some(0b0000)
        } else {
            None
        }
    }

    /// IIR. Reading it takes the THR-empty interrupt away if, and only if, that is what it reports.
    fn read_identification(&mut self) -> u8 {
        let source = self.source();
        if source == Some(0b0010) {
            self.thr_empty_pending = false;
        }
        source.unwrap_or(0b0001) | if self.fifos_on { 0xc0 } else { 0 }
    }

    fn read_line_status(&mut self) -> u8 {
        let ready = if self.received.is_empty() { 0 } else { LSR_DATA_READY };
        let in_fifo = self.fifos_on && self.line_errors & !LSR_OVERRUN != 0;
        let status = LSR_IDLE | ready | self.line_errors | if in_fifo { LSR_FIFO_ERROR } else { 0 };
        self.line_errors &= !LSR_ERRORS;
        status
    }

    /// FCR. Turning the FIFOs on or off empties them; the other bits count only together with bit 0.
    fn write_fifo_control(&mut self, value: u8) {
        let on = value & 1 != 0;
        if on != self.fifos_on || (on && value & 0b10 != 0) {
            self.received.clear();
        }
        self.fifos_on = on;
        self.trigger_level = match value >> 6 {
            1 if on => 4,
            2 if on => 8,
            3 if on => 14,
            _ => 1,
        };
    }

    /// A character reaches the receiver, by the line or by loop-back.
    fn receive(&mut self, byte: u8) {
        if self.received.len() >= self.capacity() {
            self.line_errors |= LSR_OVERRUN;
            // With the FIFO, the new character is lost; without it, the one that waited in RBR.
            if self.fifos_on {
                return;
            }
            self.received.clear();
        }
        // Cannot fail: there is room now.
        let _ = self.received.push_back(byte);
    }

    /// Whether a break signal reaches our own receiver.
    fn break_looped(&self) -> bool {
        self.looped() && self.line_control & LCR_BREAK != 0
    }

    /// A looped-back break that began with the last write arrives as one zero with framing error.
    fn receive_break_since(&mut self, before: bool) {
        if self.break_looped() && !before {
            self.line_errors |= LSR_BREAK | LSR_FRAMING;
            self.receive(0);
        }
    }

    /// The four modem inputs follow the outputs in loop-back and the (always connected) line otherwise.
    fn set_modem_inputs(&mut self) {
        let control = self.modem_control;
        let inputs = if self.looped() {
            // RTS to CTS, DTR to DSR, OUT1 to RI, OUT2 to DCD.
            (control & 0b10) << 3 | (control & 0b01) << 5 | (control & 0b1100) << 4
        } else {
            MSR_CONNECTED
        };
        let before = self.modem_status & !MSR_DELTAS;
        let mut deltas = (inputs ^ before) >> 4;
        if before & MSR_RI == 0 {
            deltas &= !(MSR_RI >> 4);
        }
        self.modem_status = inputs | (self.modem_status & MSR_DELTAS) | deltas;
    }
}
