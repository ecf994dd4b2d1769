//! A platform with an outside that writes down what it is told.

use arch::apic::Message;
use arch::{GuestPhys, Width};

use crate::{IOAPIC_BASE, Outside, Platform, PlatformConfig, PowerRequest};

/// TSC frequency of the test machine: a multiple of no crystal.
pub(crate) const TSC_HZ: u64 = 2_400_000_007;
/// What the test machine's calendar shows at power-on: 2024-02-28 23:59:30 UTC, a Wednesday.
pub(crate) const UNIX_TIME: u64 = 1_709_164_770;

/// What the outside was told.
#[derive(Debug, Default)]
pub(crate) struct Record {
    pub(crate) messages: Vec<Message>,
    pub(crate) pic_output: bool,
    pub(crate) pic_rises: usize,
    pub(crate) serial: Vec<u8>,
    pub(crate) power: Vec<PowerRequest>,
    pub(crate) unknown: Vec<(u16, Width, bool)>,
}

impl Outside for Record {
    fn interrupt(&mut self, message: Message) {
        self.messages.push(message);
    }

    fn pic_output(&mut self, asserted: bool) {
        assert_ne!(asserted, self.pic_output, "only changes of the output are told");
        self.pic_output = asserted;
        self.pic_rises += usize::from(asserted);
    }

    fn serial_out(&mut self, byte: u8) {
        self.serial.push(byte);
    }

    fn power(&mut self, request: PowerRequest) {
        self.power.push(request);
    }

    fn unknown_port(&mut self, port: u16, width: Width, write: bool) {
        self.unknown.push((port, width, write));
    }
}

/// A platform whose time stands still until it is told to pass.
pub(crate) struct Machine {
    pub(crate) platform: Platform,
    pub(crate) out: Record,
    pub(crate) now: u64,
}

impl Machine {
    pub(crate) fn new() -> Self {
        let now = 1_000_000;
        let platform = Platform::new(PlatformConfig {
            tsc_hz: TSC_HZ,
            memory_below_4g: 512 << 20,
            memory_above_4g: 1 << 30,
            unix_time: UNIX_TIME,
            cpus: 2,
            now,
        });
        Self { platform, out: Record::default(), now }
    }

    /// With all lines masked at the PIC, so that the firmware's 18.2 Hz tick does not disturb.
    pub(crate) fn quiet() -> Self {
        let mut machine = Self::new();
        machine.outb(0x21, 0xff);
        machine.outb(0xa1, 0xff);
        machine
    }

    pub(crate) fn read(&mut self, port: u16, width: Width) -> u32 {
        self.platform.port_read(port, width, self.now, &mut self.out)
    }

    pub(crate) fn write(&mut self, port: u16, width: Width, value: u32) {
        self.platform.port_write(port, width, value, self.now, &mut self.out);
    }

    pub(crate) fn inb(&mut self, port: u16) -> u8 {
        u8::try_from(self.read(port, Width::Byte)).unwrap()
    }

    pub(crate) fn outb(&mut self, port: u16, value: u8) {
        self.write(port, Width::Byte, u32::from(value));
    }

    /// Lets time pass without a tick.
    pub(crate) fn pass(&mut self, nanoseconds: u64) {
        self.now += u64::try_from(u128::from(nanoseconds) * u128::from(TSC_HZ) / 1_000_000_000).unwrap();
    }

    /// Lets time pass as the hypervisor does: with a tick at each deadline. The times of the ticks.
    pub(crate) fn run(&mut self, nanoseconds: u64) -> Vec<u64> {
        let mut ticks = Vec::new();
        let start = self.now;
        self.pass(nanoseconds);
        let end = core::mem::replace(&mut self.now, start);
        while self.platform.deadline() <= end {
            self.now = self.platform.deadline();
            self.platform.tick(self.now, &mut self.out);
            ticks.push(self.now);
            assert!(self.platform.deadline() > self.now, "after a tick the deadline is later");
        }
        self.now = end;
        ticks
    }

    pub(crate) fn acknowledge(&mut self) -> u8 {
        self.platform.pic_acknowledge(&mut self.out)
    }

    pub(crate) fn ioapic_write(&mut self, register: u8, value: u32) {
        for (offset, value) in [(0x00, u32::from(register)), (0x10, value)] {
            let at = GuestPhys(IOAPIC_BASE.get() + offset);
            assert!(self.platform.mmio_write(at, Width::Dword, u64::from(value), self.now, &mut self.out));
        }
    }
}
