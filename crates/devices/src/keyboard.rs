//! What is there of the keyboard controller (8042): its reset line and A20 gate, no keyboard and no mouse.
//!
//! The status register always reads 0x1c: input buffer empty, output buffer empty, self test passed, keyboard not
//! locked. Both buffers must read empty. A full input buffer (all ones, an empty socket) would hang every kernel that
//! waits for it before it pulses the reset line; a full output buffer would hang those that drain it first. So waiting
//! to write and draining end at once. Commands that want an answer get none: Linux gives up after half a second and goes
//! on without a keyboard, and does not even ask when the FADT's boot flags say that there is no 8042.
//!
//! The one answer given is the output port (command 0xd0), because the usual A20 code waits for it without end.

use crate::outside::PowerRequest;

const STATUS: u8 = 0x1c;
/// Status bit 0: an answer waits at port 0x60.
const OUTPUT_FULL: u8 = 1 << 0;
const READ_OUTPUT_PORT: u8 = 0xd0;
const WRITE_OUTPUT_PORT: u8 = 0xd1;
/// Commands 0xf0 to 0xff pulse the output-port lines whose bit is 0; bit 0 is reset.
const PULSE: u8 = 0xf0;
/// Output port bit 0: the processor's reset line, active low; bit 1: A20, always open.
const NOT_RESET: u8 = 1 << 0;
const OUTPUT_PORT: u8 = 0b11;

/// State of the controller.
#[derive(Debug)]
pub(crate) struct KeyboardController {
    /// The last command wants its operand at port 0x60.
    writing_output_port: bool,
    answer: Option<u8>,
}

impl KeyboardController {
    pub(crate) fn new() -> Self {
        Self { writing_output_port: false, answer: None }
    }

    /// Reads port 0x64.
    pub(crate) fn status(&self) -> u8 {
        STATUS | if self.answer.is_some() { OUTPUT_FULL } else { 0 }
    }

    /// Reads port 0x60.
    pub(crate) fn read(&mut self) -> u8 {
        self.answer.take().unwrap_or(0)
    }

    /// Writes port 0x64.
    pub(crate) fn command(&mut self, value: u8) -> Option<PowerRequest> {
        self.writing_output_port = value == WRITE_OUTPUT_PORT;
        if value == READ_OUTPUT_PORT {
            self.answer = Some(OUTPUT_PORT);
        }
        (value & PULSE == PULSE && value & NOT_RESET == 0).then_some(PowerRequest::Reset)
    }

    /// Writes port 0x60.
    pub(crate) fn write(&mut self, value: u8) -> Option<PowerRequest> {
        let to_output_port = core::mem::take(&mut self.writing_output_port);
        (to_output_port && value & NOT_RESET == 0).then_some(PowerRequest::Reset)
    }
}
