//! The watchdog of Intel's chipsets ICH6 to ICH10 and those that kept its place (Intel I/O Controller Hub 9 Family
//! Datasheet, 13.9 "System Management TCO Registers"): a counter that resets the machine unless somebody reloads it.

use arch::HostPhys;

use crate::{physmem, port};

/// The LPC bridge, device 31 function 0 of bus 0, and its registers (13.1 "PCI Configuration Registers").
const BRIDGE: u32 = 1 << 31 | 31 << 11;
const IDENTITY: u8 = 0x00;
const CLASS: u8 = 0x08;
const ACPI_BASE: u8 = 0x40;
const ACPI_CONTROL: u8 = 0x44;
const ROOT_COMPLEX_BASE: u8 = 0xf0;

const INTEL: u32 = 0x8086;
const ISA_BRIDGE: u32 = 0x0601;
const ACPI_ENABLED: u32 = 1 << 7;
const ENABLED: u32 = 1 << 0;

/// General Control and Status in the chipset's memory; bit 5 keeps the watchdog from resetting (10.1.75).
const GENERAL_CONTROL: u64 = 0x3410;
const NO_REBOOT: u32 = 1 << 5;

/// Registers from the ACPI base on.
const SMI_ENABLE: u16 = 0x30;
const TCO_SMI: u32 = 1 << 13;
const RELOAD: u16 = 0x60;
const STATUS_1: u16 = 0x64;
const TIMED_OUT: u16 = 1 << 3;
const STATUS_2: u16 = 0x66;
const TIMED_OUT_AGAIN: u16 = 1 << 1;
const CONTROL_1: u16 = 0x68;
const HALTED: u16 = 1 << 11;
const TIMER: u16 = 0x72;

/// Ticks of 0.6 s; the machine is reset when the counter ends for the second time: after 12 s.
const TICKS: u16 = 10;

/// A watchdog that counts.
#[derive(Clone, Copy, Debug)]
pub struct Watchdog {
    base: u16,
}

fn configuration(register: u8) -> u32 {
    // SAFETY: selects a register in the configuration space of bus 0.
    unsafe { port::out32(0xcf8, BRIDGE | u32::from(register)) };
    // SAFETY: reading the LPC bridge's configuration changes nothing.
    unsafe { port::in32(0xcfc) }
}

impl Watchdog {
    /// Starts the machine's watchdog; `None` where the chipset has none that is known.
    ///
    /// # Safety
    /// The page tables are those of the first moments, and nobody else uses the watchdog.
    #[must_use]
    pub unsafe fn start() -> Option<Self> {
        let is_bridge = configuration(IDENTITY) & 0xffff == INTEL && configuration(CLASS) >> 16 == ISA_BRIDGE;
        let (base, root_complex) = (configuration(ACPI_BASE), configuration(ROOT_COMPLEX_BASE));
        let has_ports = base & ENABLED != 0 && configuration(ACPI_CONTROL) & ACPI_ENABLED != 0;
        if !is_bridge || !has_ports || root_complex & ENABLED == 0 {
            return None;
        }
        let control = physmem::pointer::<u32>(HostPhys(u64::from(root_complex & !0x3fff) + GENERAL_CONTROL));
        // SAFETY: the page tables show the chipset's registers, which lie below 4 GiB.
        let value = unsafe { control.read_volatile() };
        // SAFETY: as above; the bit concerns the watchdog alone.
        unsafe { control.write_volatile(value & !NO_REBOOT) };
        let watchdog = Self { base: u16::try_from(base & 0xff80).ok()? };
        // Firmware would hear of the first end of the counter, and might reload it.
        // SAFETY: reading the register changes nothing.
        let smi = unsafe { port::in32(watchdog.base + SMI_ENABLE) };
        // SAFETY: the bit concerns the watchdog alone.
        unsafe { port::out32(watchdog.base + SMI_ENABLE, smi & !TCO_SMI) };
        watchdog.write(CONTROL_1, watchdog.read(CONTROL_1) | HALTED);
        watchdog.write(STATUS_1, TIMED_OUT);
        watchdog.write(STATUS_2, TIMED_OUT_AGAIN);
        watchdog.write(TIMER, TICKS);
        if watchdog.read(TIMER) & 0x3ff != TICKS {
            return None;
        }
        watchdog.reload();
        watchdog.write(CONTROL_1, watchdog.read(CONTROL_1) & !HALTED);
        Some(watchdog)
    }

    /// Lets it count from the start again.
    pub fn reload(self) {
        self.write(RELOAD, 1);
        // Else the next end of the counter would be the second.
        self.write(STATUS_1, TIMED_OUT);
    }

    /// Stops it.
    pub fn stop(self) {
        self.write(CONTROL_1, self.read(CONTROL_1) | HALTED);
    }

    fn read(self, register: u16) -> u16 {
        // SAFETY: `start` found the watchdog there, and reading it changes nothing.
        unsafe { port::in16(self.base + register) }
    }

    fn write(self, register: u16, value: u16) {
        // SAFETY: `start` was promised that the watchdog is ours.
        unsafe { port::out16(self.base + register, value) };
    }
}
