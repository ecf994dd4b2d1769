//! The devices together: which port is whose, and what happens after an access.

use arch::{GuestPhys, Width};

use crate::clock::{Clock, PIT_HZ, PM_HZ, RTC_HZ};
use crate::counter::EPOCH;
use crate::interrupts::{IRQ_COM1, IRQ_RTC, IRQ_SCI, IRQ_TIMER, Interrupts};
use crate::ioapic::IOAPIC_BASE;
use crate::keyboard::KeyboardController;
use crate::nvram::Nvram;
use crate::outside::{Outside, PowerRequest};
use crate::pci::Pci;
use crate::pit::Pit;
use crate::pm::PowerManagement;
use crate::rtc::Rtc;
use crate::uart::Uart;

const COM1: u16 = 0x3f8;
const PM_BASE: u16 = 0xb000;
const PM_LAST: u16 = 0xb03f;
const PM_TIMER: u16 = 0xb008;
const EXIT_PORT: u16 = 0xf4;
const CONFIG_ADDRESS: u16 = 0xcf8;
const CONFIG_DATA: u16 = 0xcfc;
/// Port 0x92: reset now (bit 0), A20 (bit 1).
const FAST_RESET: u8 = 1 << 0;
const FAST_A20: u8 = 1 << 1;
/// Port 0xcf9: reset now (bit 2), and whether it is a hard one (bit 1).
const RESET_CPU: u8 = 1 << 2;
const RESET_HARD: u8 = 1 << 1;
/// What an access reads that nobody answers.
const FLOATING: u8 = 0xff;

/// What a platform is made for.
#[derive(Clone, Copy, Debug)]
pub struct PlatformConfig {
    /// Frequency of the TSC in Hz; 1 to 2^42.
    pub tsc_hz: u64,
    /// RAM below 4 GiB in bytes, for the memory sizes in CMOS.
    pub memory_below_4g: u64,
    /// RAM from 4 GiB up in bytes, for CMOS.
    pub memory_above_4g: u64,
    /// What the real-time clock shows at `now`: seconds since 1970, UTC.
    pub unix_time: u64,
    /// Virtual processors; the IOAPIC's first ID is this number (low 8 bits), as in Bochs.
    pub cpus: u32,
    /// The TSC at the moment of power-on.
    pub now: u64,
}

/// The devices of one virtual machine. Not for two callers at a time: keep it behind a lock.
///
/// `now` is always the TSC; a value below an earlier one counts as that one, so that processors whose time stamps differ
/// a little do not turn time back.
#[derive(Debug)]
pub struct Platform {
    clock: Clock,
    now: u64,
    deadline: u64,
    interrupts: Interrupts,
    uart: Uart,
    pit: Pit,
    rtc: Rtc,
    pm: PowerManagement,
    keyboard: KeyboardController,
    pci: Pci,
    /// Port 0x80, the last POST code.
    post: u8,
    /// Port 0x92.
    fast_a20: u8,
    /// Port 0xcf9.
    reset_control: u8,
}

impl Platform {
    /// A machine as PC firmware hands it to an operating system.
    pub fn new(config: PlatformConfig) -> Self {
        let mut platform = Self {
            clock: Clock::new(config.now, config.tsc_hz),
            now: config.now,
            deadline: u64::MAX,
            interrupts: Interrupts::new(config.cpus.to_le_bytes()[0]),
            uart: Uart::new(),
            pit: Pit::new(),
            rtc: Rtc::new(config.unix_time, Nvram::new(config.memory_below_4g, config.memory_above_4g)),
            pm: PowerManagement::new(),
            keyboard: KeyboardController::new(),
            pci: Pci::new(),
            post: 0,
            fast_a20: FAST_A20,
            reset_control: 0,
        };
        platform.plan();
        platform
    }

    /// Reads `width` from `port` (a 64-bit width counts as 32). Bits above the width are 0.
    pub fn port_read(&mut self, port: u16, width: Width, now: u64, out: &mut impl Outside) -> u32 {
        self.now = self.now.max(now);
        match (port, width) {
            (CONFIG_ADDRESS, Width::Dword) => return self.pci.address(),
            (PM_TIMER, Width::Dword) => return PowerManagement::timer(self.clock.count(self.now, PM_HZ)),
            _ => {}
        }
        let mut value = [0; 4];
        let mut answered = false;
        // The bus splits an access into bytes, lowest first. Beyond port 0xffff there is nobody.
        for (lane, byte) in (0..4).zip(value.iter_mut().take(width.bytes())) {
            let read = port.checked_add(lane).and_then(|port| self.read_byte(port, out));
            answered |= read.is_some();
            *byte = read.unwrap_or(FLOATING);
        }
        if !answered {
            out.unknown_port(port, width, false);
        }
        u32::from_le_bytes(value)
    }

    /// Writes `width` to `port` (a 64-bit width counts as 32).
    pub fn port_write(&mut self, port: u16, width: Width, value: u32, now: u64, out: &mut impl Outside) {
        self.now = self.now.max(now);
        let bytes = value.to_le_bytes();
        match (port, width) {
            (CONFIG_ADDRESS, Width::Dword) => return self.pci.set_address(value),
            (EXIT_PORT, Width::Byte) => return out.power(PowerRequest::Exit(u32::from(bytes[0]))),
            (EXIT_PORT, Width::Word) => return out.power(PowerRequest::Exit(value & 0xffff)),
            (EXIT_PORT, _) => return out.power(PowerRequest::Exit(value)),
            _ => {}
        }
        let mut answered = false;
        for (lane, byte) in (0..4).zip(bytes.into_iter().take(width.bytes())) {
            answered |= port.checked_add(lane).is_some_and(|port| self.write_byte(port, byte, out));
        }
        if !answered {
            out.unknown_port(port, width, true);
        }
    }

    /// Reads guest-physical device memory; `None` when no device is at `at`. The read must not cross a page.
    pub fn mmio_read(&mut self, at: GuestPhys, width: Width, now: u64, out: &mut impl Outside) -> Option<u64> {
        if at.page() != IOAPIC_BASE {
            return None;
        }
        self.tick(now, out);
        Some(self.interrupts.ioapic.read(at.page_offset(), width))
    }

    /// Writes guest-physical device memory; `false` when no device is at `at`.
    pub fn mmio_write(&mut self, at: GuestPhys, width: Width, value: u64, now: u64, out: &mut impl Outside) -> bool {
        if at.page() != IOAPIC_BASE {
            return false;
        }
        self.tick(now, out);
        if let Some(message) = self.interrupts.ioapic.write(at.page_offset(), width, value) {
            out.interrupt(message);
        }
        // A pin may have been unmasked whose device nobody listened to before.
        self.plan();
        true
    }

    /// The TSC value at which [`Self::tick`] must be called; `u64::MAX` for none. It can change with every call of
    /// another method. No line that is masked at both interrupt controllers has a deadline.
    pub fn deadline(&self) -> u64 {
        self.deadline
    }

    /// Brings all devices to `now`. Afterwards [`Self::deadline`] is later than `now`.
    pub fn tick(&mut self, now: u64, out: &mut impl Outside) {
        self.now = self.now.max(now);
        if self.pit.advance(self.pit_time()) {
            // The output may have fallen and risen more than once: one edge must be seen.
            self.interrupts.set(IRQ_TIMER, false, out);
            self.interrupts.set(IRQ_TIMER, true, out);
        }
        self.rtc.advance(self.rtc_time());
        self.pm.advance(self.pm_time());
        self.settle(out);
    }

    /// A local APIC broadcast an EOI for a level-triggered interrupt with `vector`.
    pub fn end_of_interrupt(&mut self, vector: u8, out: &mut impl Outside) {
        self.interrupts.ioapic.end_of_interrupt(vector, |message| out.interrupt(message));
    }

    /// A processor acknowledges the PIC's interrupt: the vector, that of input 7 if the request has gone away.
    pub fn pic_acknowledge(&mut self, out: &mut impl Outside) -> u8 {
        self.interrupts.acknowledge(out)
    }

    /// Whether the PIC asks for an interrupt: the level that [`Outside::pic_output`] was last told.
    pub fn pic_has_interrupt(&self) -> bool {
        self.interrupts.pic.output()
    }

    /// `byte` arrives at COM1. `false` when the receiver is full, or looped back: offer it again later.
    pub fn serial_in(&mut self, byte: u8, out: &mut impl Outside) -> bool {
        let accepted = self.uart.accept(byte);
        self.interrupts.set(IRQ_COM1, self.uart.irq(), out);
        accepted
    }

    fn pit_time(&self) -> u64 {
        EPOCH + self.clock.count(self.now, PIT_HZ)
    }

    fn rtc_time(&self) -> u64 {
        self.clock.count(self.now, RTC_HZ)
    }

    fn pm_time(&self) -> u64 {
        self.clock.count(self.now, PM_HZ)
    }

    /// Puts the lines of the devices that follow time where the devices have them, and plans the next deadline.
    fn settle(&mut self, out: &mut impl Outside) {
        self.interrupts.set(IRQ_TIMER, self.pit.irq(self.pit_time()), out);
        self.interrupts.set(IRQ_RTC, self.rtc.irq(), out);
        self.interrupts.set(IRQ_SCI, self.pm.irq(), out);
        self.plan();
    }

    /// Computes the deadline.
    fn plan(&mut self) {
        let mut deadline = u64::MAX;
        for (irq, event, hz) in [
            (IRQ_TIMER, self.pit.next_event().map(|event| event.saturating_sub(EPOCH)), PIT_HZ),
            (IRQ_RTC, self.rtc.next_event(), RTC_HZ),
            (IRQ_SCI, self.pm.next_event(), PM_HZ),
        ] {
            if let Some(count) = event.filter(|_| self.interrupts.watched(irq)) {
                deadline = deadline.min(self.clock.tsc_at(count, hz));
            }
        }
        self.deadline = deadline;
    }

    /// One byte of a read; `None` when no device answers.
    fn read_byte(&mut self, port: u16, out: &mut impl Outside) -> Option<u8> {
        let value = match port {
            COM1..=0x3ff => {
                let value = self.uart.read(port - COM1);
                self.interrupts.set(IRQ_COM1, self.uart.irq(), out);
                value
            }
            0x20 | 0x21 | 0xa0 | 0xa1 => {
                self.tick(self.now, out);
                let value = self.interrupts.pic.read(port);
                self.interrupts.report(out);
                value
            }
            0x40..=0x43 => {
                self.tick(self.now, out);
                self.pit.read(port - 0x40, self.pit_time())
            }
            0x61 => self.pit.read_control(self.pit_time()),
            PM_BASE..=PM_LAST => {
                self.tick(self.now, out);
                self.pm.read(port - PM_BASE, self.pm_time())?
            }
            0x60 => self.keyboard.read(),
            0x64 => self.keyboard.status(),
            0x71 => {
                let value = self.rtc.read(self.rtc_time());
                self.settle(out);
                value
            }
            0x80 => self.post,
            0x92 => self.fast_a20,
            0x4d0 | 0x4d1 => self.interrupts.pic.read_level(port),
            0xcf9 => self.reset_control,
            CONFIG_DATA..=0xcff => self.pci.read(port - CONFIG_DATA),
            // Write-only, or not there but known to be asked for.
            0x00..=0x0f | 0x70 | 0x81..=0x8f | 0xc0..=0xdf | 0xed | EXIT_PORT | CONFIG_ADDRESS..=0xcfb => FLOATING,
            _ => return None,
        };
        Some(value)
    }

    /// One byte of a write; `false` when no device answers.
    fn write_byte(&mut self, port: u16, value: u8, out: &mut impl Outside) -> bool {
        match port {
            COM1..=0x3ff => self.write_uart(port - COM1, value, out),
            0x20 | 0x21 | 0xa0 | 0xa1 => {
                self.tick(self.now, out);
                self.interrupts.pic.write(port, value);
                self.interrupts.report(out);
                self.plan();
            }
            0x40..=0x43 => {
                self.tick(self.now, out);
                self.pit.write(port - 0x40, value, self.pit_time());
                self.settle(out);
            }
            0x61 => self.pit.write_control(value, self.pit_time()),
            PM_BASE..=PM_LAST => {
                let (answered, request) = self.pm.write(port - PM_BASE, value, self.pm_time());
                if let Some(request) = request {
                    out.power(request);
                }
                self.settle(out);
                return answered;
            }
            0x60 => {
                if let Some(request) = self.keyboard.write(value) {
                    out.power(request);
                }
            }
            0x64 => {
                if let Some(request) = self.keyboard.command(value) {
                    out.power(request);
                }
            }
            0x70 => self.rtc.select(value),
            0x71 => {
                self.rtc.write(value, self.rtc_time());
                self.settle(out);
            }
            0x80 => self.post = value,
            0x92 => {
                // A20 is remembered and has no effect: no address line of an EPT guest is ever forced to 0.
                self.fast_a20 = value & FAST_A20;
                if value & FAST_RESET != 0 {
                    out.power(PowerRequest::Reset);
                }
            }
            0x4d0 | 0x4d1 => {
                self.interrupts.pic.write_level(port, value);
                self.interrupts.report(out);
            }
            0xcf9 => {
                self.reset_control = value & RESET_HARD;
                if value & RESET_CPU != 0 {
                    out.power(PowerRequest::Reset);
                }
            }
            // DMA, delay and PCI configuration: accepted without effect.
            0x00..=0x0f | 0x81..=0x8f | 0xc0..=0xdf | 0xed | CONFIG_ADDRESS..=0xcff => {}
            _ => return false,
        }
        true
    }

    fn write_uart(&mut self, offset: u16, value: u8, out: &mut impl Outside) {
        let leaving = self.uart.write(offset, value);
        self.interrupts.set(IRQ_COM1, self.uart.irq(), out);
        if let Some(byte) = leaving {
            if !self.uart.looped() {
                out.serial_out(byte);
            }
            self.uart.sent(byte);
            self.interrupts.set(IRQ_COM1, self.uart.irq(), out);
        }
    }
}
