//! The memory beside the real-time clock, and what PC firmware keeps there (register map as in Bochs).

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
/// Memory below the VGA hole.
const BASE_KIB: u64 = 640;
/// The 16-bit counts stop here: 64 MiB in KiB, and 3 GiB in 64-KiB units.
const MAX_EXTENDED_KIB: u64 = 0xfc00;
const MAX_ABOVE_16M: u64 = 0xbf00;
/// Equipment: a floating-point unit, no floppy, no mouse port.
const EQUIPMENT: u8 = 0x02;

/// 128 bytes; those of the clock are not used, but for the alarm.
#[derive(Debug)]
pub(crate) struct Nvram([u8; 128]);

impl Nvram {
    /// With the memory sizes (bytes) that firmware would have found, and a good checksum.
    pub(crate) fn new(memory_below_4g: u64, memory_above_4g: u64) -> Self {
        let mut nvram = Self([0; 128]);
        let extended = (memory_below_4g.saturating_sub(MIB) / KIB).min(MAX_EXTENDED_KIB);
        let above_16m = (memory_below_4g.saturating_sub(16 * MIB) / (64 * KIB)).min(MAX_ABOVE_16M);
        let above_4g = memory_above_4g / (64 * KIB);
        nvram.write(0x14, EQUIPMENT);
        nvram.write_number(0x15, 2, BASE_KIB);
        nvram.write_number(0x17, 2, extended);
        nvram.write_number(0x30, 2, extended);
        nvram.write_number(0x34, 2, above_16m);
        nvram.write_number(0x5b, 3, above_4g);
        nvram.write_checksum();
        nvram
    }

    /// Register `index`; 0 above the last.
    pub(crate) fn read(&self, index: u8) -> u8 {
        self.0.get(usize::from(index)).copied().unwrap_or(0)
    }

    pub(crate) fn write(&mut self, index: u8, value: u8) {
        if let Some(register) = self.0.get_mut(usize::from(index)) {
            *register = value;
        }
    }

    /// The low `bytes` bytes of a number, lowest first.
    fn write_number(&mut self, index: u8, bytes: usize, number: u64) {
        for (register, byte) in (index..).zip(number.to_le_bytes()).take(bytes) {
            self.write(register, byte);
        }
    }

    /// Firmware checks the sum of 0x10 to 0x2d, kept high byte first.
    fn write_checksum(&mut self) {
        let sum: u16 = (0x10..=0x2d).map(|index| u16::from(self.read(index))).sum();
        let [low, high] = sum.to_le_bytes();
        self.write(0x2e, high);
        self.write(0x2f, low);
    }
}
