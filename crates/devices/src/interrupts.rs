//! Where the interrupt lines of the devices go: each to the PIC pair and to the IOAPIC.

use crate::ioapic::IoApic;
use crate::outside::Outside;
use crate::pic::PicPair;

/// Interrupt lines, by their ISA number.
pub(crate) const IRQ_TIMER: u8 = 0;
pub(crate) const IRQ_COM1: u8 = 4;
pub(crate) const IRQ_RTC: u8 = 8;
pub(crate) const IRQ_SCI: u8 = 9;

/// Both interrupt controllers.
#[derive(Debug)]
pub(crate) struct Interrupts {
    pub(crate) pic: PicPair,
    pub(crate) ioapic: IoApic,
    /// The lines as they are, by number.
    lines: u16,
    /// The PIC output as the outside knows it.
    output: bool,
}

impl Interrupts {
    /// With all lines low but the timer's, whose output firmware has left high.
    pub(crate) fn new(ioapic_id: u8) -> Self {
        let mut interrupts =
            Self { pic: PicPair::new(), ioapic: IoApic::new(ioapic_id), lines: 1 << IRQ_TIMER, output: false };
        interrupts.pic.start_high(IRQ_TIMER);
        interrupts.ioapic.start_high(pin(IRQ_TIMER));
        interrupts
    }

    /// Line `irq` has level `high`. Mostly it had it before: nearly every byte that a guest prints comes by here.
    pub(crate) fn set(&mut self, irq: u8, high: bool, out: &mut impl Outside) {
        let bit = 1 << irq;
        if (self.lines & bit != 0) == high {
            return;
        }
        self.lines ^= bit;
        self.pic.set_line(irq, high);
        if let Some(message) = self.ioapic.set_pin(pin(irq), high) {
            out.interrupt(message);
        }
        self.report(out);
    }

    /// Tells the outside if the PIC output has changed.
    pub(crate) fn report(&mut self, out: &mut impl Outside) {
        let output = self.pic.output();
        if output != self.output {
            self.output = output;
            out.pic_output(output);
        }
    }

    /// An INTA cycle. The output falls with it, and rises again if there is another request.
    pub(crate) fn acknowledge(&mut self, out: &mut impl Outside) -> u8 {
        let vector = self.pic.acknowledge();
        if self.output {
            self.output = false;
            out.pic_output(false);
        }
        self.report(out);
        vector
    }

    /// Whether a change of line `irq` could reach a processor.
    pub(crate) fn watched(&self, irq: u8) -> bool {
        !self.pic.masked(irq) || !self.ioapic.masked(pin(irq))
    }
}

/// The IOAPIC pin of an ISA line: its own number, but the timer has pin 2 (ACPI tables say so by an override).
fn pin(irq: u8) -> u8 {
    if irq == IRQ_TIMER { 2 } else { irq }
}
