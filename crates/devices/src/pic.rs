//! The two 8259A interrupt controllers (Intel 8259A data sheet, "Programming the 8259A"), as the PC wires them: the
//! slave's output is the master's input 2.
//!
//! Edge or level is chosen per input by the ELCR registers 0x4d0 and 0x4d1 (82371SB "Edge/Level Control Registers");
//! ICW1's LTIM bit is without effect, as in that chip. Everything is computed from the registers: no request is
//! remembered that the registers do not show.

/// ICW1, bit 4 of a write to the even port.
const ICW1: u8 = 1 << 4;
const ICW1_SINGLE: u8 = 1 << 1;
const ICW1_NEEDS_ICW4: u8 = 1 << 0;
const ICW4_FULLY_NESTED: u8 = 1 << 4;
const ICW4_AUTO_EOI: u8 = 1 << 1;
/// OCW3, bit 3 (with bit 4 clear) of a write to the even port.
const OCW3: u8 = 1 << 3;
const OCW3_POLL: u8 = 1 << 2;
/// The input of the master that the slave drives.
const CASCADE: u8 = 2;
/// ELCR bits that exist: never for the timer, keyboard, cascade (0-2), RTC (8) and FPU (13).
const ELCR_MASKS: [u8; 2] = [0xf8, 0xde];

/// Which initialization word the odd port expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expects {
    Mask,
    Icw2,
    Icw3,
    Icw4,
}

/// One 8259A.
#[derive(Clone, Copy, Debug)]
struct Pic {
    master: bool,
    /// Inputs as they are now.
    lines: u8,
    /// ELCR: inputs that are level triggered.
    level: u8,
    requests: u8,
    in_service: u8,
    mask: u8,
    vector_base: u8,
    lowest_priority: u8,
    auto_eoi: bool,
    rotate_on_auto_eoi: bool,
    special_mask: bool,
    special_fully_nested: bool,
    read_in_service: bool,
    poll: bool,
    expects: Expects,
    single: bool,
    needs_icw4: bool,
}

impl Pic {
    const fn new(master: bool, vector_base: u8, mask: u8) -> Self {
        Self {
            master,
            lines: 0,
            level: 0,
            requests: 0,
            in_service: 0,
            mask,
            vector_base,
            lowest_priority: 7,
            auto_eoi: false,
            rotate_on_auto_eoi: false,
            special_mask: false,
            special_fully_nested: false,
            read_in_service: false,
            poll: false,
            expects: Expects::Mask,
            single: false,
            needs_icw4: false,
        }
    }

    /// An input changes. A request by edge is withdrawn when its line falls before it is acknowledged
    /// (data sheet, "Edge and Level Triggered Modes").
    fn set_line(&mut self, input: u8, high: bool) {
        let bit = 1 << input;
        if high {
            if self.lines & bit == 0 || self.level & bit != 0 {
                self.requests |= bit;
            }
            self.lines |= bit;
        } else {
            self.requests &= !bit;
            self.lines &= !bit;
        }
    }

    fn set_level(&mut self, level: u8) {
        let changed = self.level ^ level;
        self.level = level;
        self.requests = self.requests & !changed | self.lines & level & changed;
    }

    /// A set of inputs, rotated so that the highest priority is bit 0.
    fn by_priority(&self, inputs: u8) -> u8 {
        inputs.rotate_right(u32::from(self.lowest_priority) + 1)
    }

    /// The input that a priority position belongs to: the inverse of [`Self::by_priority`].
    fn input_at(&self, position: u32) -> u8 {
        let [position, ..] = position.to_le_bytes();
        (position + self.lowest_priority + 1) & 7
    }

    /// The request that interrupts now: unmasked, and of higher priority than what is in service.
    fn pending(&self) -> Option<u8> {
        // ICW1 drops the output, and until the last ICW the chip does not know what to answer.
        if self.expects != Expects::Mask {
            return None;
        }
        let mut blocking = self.in_service;
        if self.special_mask {
            blocking &= !self.mask;
        }
        if self.special_fully_nested && self.master {
            blocking &= !(1 << CASCADE);
        }
        let blocking = self.by_priority(blocking);
        let candidates = self.by_priority(self.requests & !self.mask);
        let first = candidates.trailing_zeros();
        (candidates != 0 && first < blocking.trailing_zeros()).then(|| self.input_at(first))
    }

    /// First half of an acknowledge cycle: `input` goes into service.
    fn accept(&mut self, input: u8) {
        let bit = 1 << input;
        if self.level & bit == 0 {
            self.requests &= !bit;
        }
        if !self.auto_eoi {
            self.in_service |= bit;
        } else if self.rotate_on_auto_eoi {
            self.lowest_priority = input;
        }
    }

    /// Reads the even (`odd` false) or odd port.
    fn read(&mut self, odd: bool) -> u8 {
        if self.poll {
            self.poll = false;
            return match self.pending() {
                Some(input) => {
                    self.accept(input);
                    0x80 | input
                }
                None => 7,
            };
        }
        match (odd, self.read_in_service) {
            (true, _) => self.mask,
            (false, true) => self.in_service,
            (false, false) => self.requests,
        }
    }

    fn write(&mut self, odd: bool, value: u8) {
        if odd {
            self.write_odd(value);
        } else if value & ICW1 != 0 {
            self.initialize(value);
        } else if value & OCW3 != 0 {
            self.write_ocw3(value);
        } else {
            self.write_ocw2(value);
        }
    }

    fn initialize(&mut self, icw1: u8) {
        self.mask = 0;
        self.in_service = 0;
        // The edge detectors are cleared: an input that is high must fall and rise again. Level inputs ask on.
        self.requests = self.lines & self.level;
        self.lowest_priority = 7;
        self.auto_eoi = false;
        self.rotate_on_auto_eoi = false;
        self.special_mask = false;
        self.special_fully_nested = false;
        self.read_in_service = false;
        self.poll = false;
        self.single = icw1 & ICW1_SINGLE != 0;
        self.needs_icw4 = icw1 & ICW1_NEEDS_ICW4 != 0;
        self.expects = Expects::Icw2;
    }

    fn write_odd(&mut self, value: u8) {
        let after_icw3 = if self.needs_icw4 { Expects::Icw4 } else { Expects::Mask };
        self.expects = match self.expects {
            Expects::Mask => {
                self.mask = value;
                Expects::Mask
            }
            Expects::Icw2 => {
                self.vector_base = value & 0xf8;
                if self.single { after_icw3 } else { Expects::Icw3 }
            }
            // The PC's wiring is fixed: what ICW3 says about it changes nothing.
            Expects::Icw3 => after_icw3,
            Expects::Icw4 => {
                self.auto_eoi = value & ICW4_AUTO_EOI != 0;
                self.special_fully_nested = value & ICW4_FULLY_NESTED != 0;
                Expects::Mask
            }
        };
    }

    fn write_ocw3(&mut self, value: u8) {
        match value >> 5 & 0b11 {
            0b10 => self.special_mask = false,
            0b11 => self.special_mask = true,
            _ => {}
        }
        if value & OCW3_POLL != 0 {
            self.poll = true;
            return;
        }
        match value & 0b11 {
            0b10 => self.read_in_service = false,
            0b11 => self.read_in_service = true,
            _ => {}
        }
    }

    /// OCW2: bits 7:5 are rotate, specific, end of interrupt; bits 2:0 the input for the specific ones.
    fn write_ocw2(&mut self, value: u8) {
        let named = value & 7;
        match value >> 5 {
            0b000 => self.rotate_on_auto_eoi = false,
            0b100 => self.rotate_on_auto_eoi = true,
            0b001 => {
                self.end_highest();
            }
            0b101 => {
                if let Some(ended) = self.end_highest() {
                    self.lowest_priority = ended;
                }
            }
            0b011 => self.in_service &= !(1 << named),
            0b111 => {
                self.in_service &= !(1 << named);
                self.lowest_priority = named;
            }
            0b110 => self.lowest_priority = named,
            // 0b010 is a no-operation.
            _ => {}
        }
    }

    /// Non-specific end of interrupt. In special mask mode, levels that are masked keep their in-service bit.
    fn end_highest(&mut self) -> Option<u8> {
        let serving = self.in_service & if self.special_mask { !self.mask } else { 0xff };
        let serving = self.by_priority(serving);
        (serving != 0).then(|| {
            let input = self.input_at(serving.trailing_zeros());
            self.in_service &= !(1 << input);
            input
        })
    }
}

/// The pair, with IRQ 0 to 15.
#[derive(Debug)]
pub(crate) struct PicPair {
    master: Pic,
    slave: Pic,
}

impl PicPair {
    /// As the Bochs BIOS leaves them: vectors 0x08 and 0x70; timer, keyboard, cascade, floppy, mouse, FPU and first
    /// disk let through; IRQ 9 (SCI) and 11 (PCI) by level.
    pub(crate) fn new() -> Self {
        let mut pair = Self { master: Pic::new(true, 0x08, 0xb8), slave: Pic::new(false, 0x70, 0x8f) };
        pair.slave.set_level(0x0a);
        pair
    }

    /// Line `irq` is high from the start, which is no edge.
    pub(crate) fn start_high(&mut self, irq: u8) {
        let pic = if irq < 8 { &mut self.master } else { &mut self.slave };
        pic.lines |= 1 << (irq & 7);
    }

    /// Line `irq` (0 to 15; 2 is the cascade and nobody's) changes.
    pub(crate) fn set_line(&mut self, irq: u8, high: bool) {
        match irq {
            CASCADE => {}
            0..8 => self.master.set_line(irq, high),
            _ => self.slave.set_line(irq & 7, high),
        }
        self.cascade();
    }

    /// Whether the pair asks for an interrupt: INTR of the master.
    pub(crate) fn output(&self) -> bool {
        self.master.pending().is_some()
    }

    /// An INTA cycle: the vector. With no request left it is input 7's, and nothing goes into service
    /// (data sheet, "Interrupt Sequence").
    pub(crate) fn acknowledge(&mut self) -> u8 {
        let Some(input) = self.master.pending() else { return self.master.vector_base | 7 };
        self.master.accept(input);
        if input != CASCADE {
            return self.master.vector_base | input;
        }
        // The slave drops its output with the acknowledge, and raises it again if there is more.
        self.master.set_line(CASCADE, false);
        let vector = match self.slave.pending() {
            Some(input) => {
                self.slave.accept(input);
                self.slave.vector_base | input
            }
            None => self.slave.vector_base | 7,
        };
        self.cascade();
        vector
    }

    /// Whether line `irq` is masked, at its own controller or at the cascade.
    pub(crate) fn masked(&self, irq: u8) -> bool {
        if irq < 8 {
            self.master.mask & 1 << irq != 0
        } else {
            self.slave.mask & 1 << (irq & 7) != 0 || self.master.mask & 1 << CASCADE != 0
        }
    }

    /// Reads port 0x20, 0x21, 0xa0 or 0xa1.
    pub(crate) fn read(&mut self, port: u16) -> u8 {
        let odd = port & 1 != 0;
        let value = if port < 0xa0 { self.master.read(odd) } else { self.slave.read(odd) };
        self.cascade();
        value
    }

    /// Writes port 0x20, 0x21, 0xa0 or 0xa1.
    pub(crate) fn write(&mut self, port: u16, value: u8) {
        let odd = port & 1 != 0;
        if port < 0xa0 {
            self.master.write(odd, value);
        } else {
            self.slave.write(odd, value);
        }
        self.cascade();
    }

    /// Reads ELCR: port 0x4d0 or 0x4d1.
    pub(crate) fn read_level(&self, port: u16) -> u8 {
        if port & 1 == 0 { self.master.level } else { self.slave.level }
    }

    /// Writes ELCR: port 0x4d0 or 0x4d1.
    pub(crate) fn write_level(&mut self, port: u16, value: u8) {
        let [master, slave] = ELCR_MASKS;
        if port & 1 == 0 {
            self.master.set_level(value & master);
        } else {
            self.slave.set_level(value & slave);
        }
        self.cascade();
    }

    fn cascade(&mut self) {
        self.master.set_line(CASCADE, self.slave.pending().is_some());
    }
}
