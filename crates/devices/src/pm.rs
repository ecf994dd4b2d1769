//! ACPI power management: the PM1a registers and the PM timer (ACPI 4.8.3 "PM1 Event Grouping" and following), at the
//! addresses and with the habits of Bochs's PIIX4. The machine is in ACPI mode from the start (SCI_EN is set), for there
//! is no SMI command port to ask for it: the FADT's SMI_CMD must be 0.
//!
//! | port | register |
//! |---|---|
//! | 0xb000 | PM1a status, 16 bits, write 1 to clear |
//! | 0xb002 | PM1a enable, 16 bits |
//! | 0xb004 | PM1a control, 16 bits: SCI_EN (0), SLP_TYP (12:10), SLP_EN (13) |
//! | 0xb008 | PM timer: 24 bits (the FADT must not set TMR_VAL_EXT), 3.579545 MHz |
//!
//! SLP_TYP 0 with SLP_EN is S5, "off". There is no other sleeping state: such a request is ignored.

use crate::outside::PowerRequest;

/// Status and enable bits: PM timer carry, global lock, power button, RTC alarm. What raises the SCI.
const TIMER: u16 = 1 << 0;
const SCI_SOURCES: u16 = TIMER | 1 << 5 | 1 << 8 | 1 << 10;
const SCI_EN: u16 = 1 << 0;
const SLP_EN: u16 = 1 << 13;
const SLP_TYP: u16 = 0b111 << 10;
/// The status bit is set whenever the timer's highest bit, 23, changes.
const CARRY: u64 = 1 << 23;
const TIMER_MASK: u64 = (1 << 24) - 1;

/// Registers of the power-management block. Times are periods of [`crate::clock::PM_HZ`].
#[derive(Debug)]
pub(crate) struct PowerManagement {
    status: u16,
    enable: u16,
    control: u16,
    /// The carry that sets the timer status bit next.
    carry_at: u64,
}

impl PowerManagement {
    /// In ACPI mode, nothing enabled.
    pub(crate) fn new() -> Self {
        Self { status: 0, enable: 0, control: SCI_EN, carry_at: CARRY }
    }

    /// The timer at `now`.
    pub(crate) fn timer(now: u64) -> u32 {
        let [a, b, c, d, ..] = (now & TIMER_MASK).to_le_bytes();
        u32::from_le_bytes([a, b, c, d])
    }

    /// The SCI, IRQ 9, level triggered.
    pub(crate) fn irq(&self) -> bool {
        self.status & self.enable & SCI_SOURCES != 0
    }

    /// Brings the status to `now`.
    pub(crate) fn advance(&mut self, now: u64) {
        if now >= self.carry_at {
            self.status |= TIMER;
        }
    }

    /// When the timer raises the SCI next.
    pub(crate) fn next_event(&self) -> Option<u64> {
        (self.enable & TIMER != 0 && self.status & TIMER == 0).then_some(self.carry_at)
    }

    /// Reads byte `offset` of the block.
    pub(crate) fn read(&self, offset: u16, now: u64) -> Option<u8> {
        let register = match offset {
            0 | 1 => self.status,
            2 | 3 => self.enable,
            4 | 5 => self.control,
            8..12 => return Some(Self::timer(now).to_le_bytes()[usize::from(offset - 8)]),
            _ => return None,
        };
        Some(register.to_le_bytes()[usize::from(offset & 1)])
    }

    /// Writes byte `offset` of the block: whether there is such a register, and what the guest asks for by it.
    pub(crate) fn write(&mut self, offset: u16, value: u8, now: u64) -> (bool, Option<PowerRequest>) {
        self.advance(now);
        let high = offset & 1 != 0;
        match offset {
            0 | 1 => {
                let cleared = with_byte(0, high, value);
                if self.status & cleared & TIMER != 0 {
                    self.carry_at = (now / CARRY + 1) * CARRY;
                }
                self.status &= !cleared;
            }
            2 | 3 => self.enable = with_byte(self.enable, high, value),
            4 | 5 => {
                let written = with_byte(self.control, high, value);
                // SLP_EN is write-only.
                self.control = written & !SLP_EN;
                let off = written & SLP_EN != 0 && written & SLP_TYP == 0;
                return (true, off.then_some(PowerRequest::Off));
            }
            // The timer is read-only.
            8..12 => {}
            _ => return (false, None),
        }
        (true, None)
    }
}

/// `register` with its high or low byte replaced.
fn with_byte(register: u16, high: bool, value: u8) -> u16 {
    let [low, top] = register.to_le_bytes();
    u16::from_le_bytes(if high { [low, value] } else { [value, top] })
}
