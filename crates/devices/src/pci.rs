//! PCI configuration space by mechanism 1 (PCI Local Bus Specification 3.2.2.3.2): ports 0xcf8 and 0xcfc.
//!
//! The bus holds a host bridge and nothing else: an i440FX (82441FX data sheet, "PCI Configuration Space Mapped
//! Registers") as it is after reset. Writes to it are ignored: what they would change, shadowing of firmware memory,
//! is not there.

/// CONFIG_ADDRESS bit 31: accesses to 0xcfc are configuration cycles.
const ENABLE: u32 = 1 << 31;
/// CONFIG_ADDRESS bits that choose bus, device and function.
const FUNCTION: u32 = 0x00ff_ff00;

/// The host bridge's registers that are not 0: number, low byte first.
const HOST_BRIDGE: [(u8, u32); 5] = [
    // Device 0x1237 of Intel.
    (0x00, 0x1237_8086),
    // Status: medium DEVSEL timing, fast back-to-back; command: bus master, memory.
    (0x04, 0x0280_0006),
    // Class 0x060000, host bridge; revision 0.
    (0x08, 0x0600_0000),
    // PMC configuration and deterministic behaviour after reset, DRAM timing and control.
    (0x50, 0x8000_0100),
    (0x54, 0x0100_0000),
];

/// CONFIG_ADDRESS.
#[derive(Debug)]
pub(crate) struct Pci {
    address: u32,
}

impl Pci {
    pub(crate) fn new() -> Self {
        Self { address: 0 }
    }

    /// A 32-bit read of port 0xcf8.
    pub(crate) fn address(&self) -> u32 {
        self.address
    }

    /// A 32-bit write of port 0xcf8. (Narrower accesses there are not CONFIG_ADDRESS.)
    pub(crate) fn set_address(&mut self, value: u32) {
        self.address = value;
    }

    /// Reads port 0xcfc + `lane`. All ones when no device answers, or no configuration cycle is enabled.
    pub(crate) fn read(&self, lane: u16) -> u8 {
        if self.address & ENABLE == 0 || self.address & FUNCTION != 0 {
            return 0xff;
        }
        let register = self.address.to_le_bytes()[0] & 0xfc;
        let value = HOST_BRIDGE.iter().find(|(known, _)| *known == register).map_or(0, |&(_, value)| value);
        value.to_le_bytes()[usize::from(lane & 3)]
    }
}
