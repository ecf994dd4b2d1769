//! The memory map that the guest is told: a PC's.

use heapless::Vec;

use crate::error::LoadError;

/// Bytes in a mebibyte.
pub const MIB: u64 = 1 << 20;
/// Bytes in a gibibyte.
pub const GIB: u64 = 1 << 30;

/// End of the RAM below the extended BIOS data area, which a PC has in the last KiB below 640 KiB.
pub const LOW_RAM_END: u64 = 0x9_fc00;
/// Where the graphics adapter's window begins.
pub const VIDEO_START: u64 = 0xa_0000;
/// The region of firmware: ACPI tables lie in it. It must be RAM of the guest all the same.
pub const FIRMWARE_START: u64 = 0xe_0000;
/// Where extended memory begins.
pub const EXTENDED_START: u64 = MIB;
/// RAM below 4 GiB ends here at most; above are PCI's memory window, the IOAPIC and the local APIC.
pub const BELOW_4G_LIMIT: u64 = 3 * GIB;
/// RAM that did not fit below the hole goes on here.
pub const ABOVE_4G_START: u64 = 4 * GIB;

/// Local APIC ids are 8 bits wide in the MADT's usual entries and 32 bits in those of x2APIC; more processors than
/// this make no sense on a machine that L0 runs on, and the MADT must fit below 1 MiB.
pub const MAX_CPUS: u32 = 1024;

/// How much RAM the guest has and where, and how many processors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct MemoryLayout {
    /// Bytes of RAM from address 0 on. The memory must be there without a gap, also behind the legacy regions from
    /// 640 KiB to 1 MiB. A multiple of 4 KiB, at least 2 MiB, at most 3 GiB.
    pub below_4g: u64,
    /// Bytes of RAM from 4 GiB on. A multiple of 4 KiB.
    pub above_4g: u64,
    /// Virtual processors, with local APIC ids 0, 1, ... At least 1.
    pub cpus: u32,
}

/// What a range is for: the type numbers of ACPI 6.5, 15 "System Address Map Interfaces", and of multiboot1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum E820Kind {
    /// RAM that the guest may use.
    Usable = 1,
    /// To be left alone.
    Reserved = 2,
}

/// One range of the memory map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct E820Entry {
    /// First byte.
    pub start: u64,
    /// Length in bytes, never 0.
    pub len: u64,
    /// What it is for.
    pub kind: E820Kind,
}

impl MemoryLayout {
    /// The layout of a guest with `bytes` of RAM and `cpus` processors: up to 3 GiB below the hole, the rest above 4 GiB.
    pub const fn new(bytes: u64, cpus: u32) -> Self {
        let below_4g = if bytes < BELOW_4G_LIMIT { bytes } else { BELOW_4G_LIMIT };
        Self { below_4g, above_4g: bytes - below_4g, cpus }
    }

    /// Whether the fields are within their ranges.
    pub(crate) fn check(&self) -> Result<(), LoadError> {
        let wrong = if !(2 * MIB..=BELOW_4G_LIMIT).contains(&self.below_4g) {
            "RAM below 4 GiB must be 2 MiB to 3 GiB"
        } else if self.above_4g > 1 << 46 {
            "RAM above 4 GiB must be at most 64 TiB"
        } else if !self.below_4g.is_multiple_of(4096) || !self.above_4g.is_multiple_of(4096) {
            "RAM must be a whole number of 4-KiB pages"
        } else if !(1..=MAX_CPUS).contains(&self.cpus) {
            "there must be 1 to 1024 processors"
        } else {
            return Ok(());
        };
        Err(LoadError::Layout { what: wrong })
    }

    /// The memory map, sorted and without overlaps.
    pub fn e820(&self) -> Vec<E820Entry, 5> {
        let between = |start: u64, end: u64, kind| E820Entry { start, len: end.saturating_sub(start), kind };
        [
            between(0, LOW_RAM_END, E820Kind::Usable),
            between(LOW_RAM_END, VIDEO_START, E820Kind::Reserved),
            between(FIRMWARE_START, EXTENDED_START, E820Kind::Reserved),
            between(EXTENDED_START, self.below_4g, E820Kind::Usable),
            E820Entry { start: ABOVE_4G_START, len: self.above_4g, kind: E820Kind::Usable },
        ]
        .into_iter()
        .filter(|range| range.len != 0)
        .collect()
    }

    /// Whether the guest may use all of `start..end` as RAM, as the map says.
    pub(crate) fn is_ram(&self, start: u64, end: u64) -> bool {
        start <= end && (end <= LOW_RAM_END || (start >= EXTENDED_START && end <= self.below_4g))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A guest of 4 GiB: the last GiB is above the hole, and nothing is told twice.
    #[test]
    fn memory_beyond_the_hole_goes_above_4_gib() {
        let layout = MemoryLayout::new(4 * GIB, 1);
        let usable = |range: &E820Entry| range.kind == E820Kind::Usable;
        let map = layout.e820();
        assert!(map.windows(2).all(|pair| pair[0].start + pair[0].len <= pair[1].start));
        assert_eq!(map.last().map(|range| (range.start, range.len)), Some((4 * GIB, GIB)));
        // What a PC of 4 GiB has, less 640 KiB..1 MiB and the EBDA.
        let ram: u64 = map.iter().filter(|range| usable(range)).map(|range| range.len).sum();
        assert_eq!(ram, 4 * GIB - (MIB - LOW_RAM_END));
    }

    /// Layouts no PC has are refused before anything is written.
    #[test]
    fn impossible_layouts() {
        let good = MemoryLayout::new(64 * MIB, 1);
        assert_eq!(good.check(), Ok(()));
        for bad in [
            MemoryLayout { below_4g: MIB, ..good },
            MemoryLayout { below_4g: 4 * GIB, ..good },
            MemoryLayout { below_4g: 64 * MIB + 1, ..good },
            MemoryLayout { above_4g: u64::MAX, ..good },
            MemoryLayout { cpus: 0, ..good },
            MemoryLayout { cpus: 1025, ..good },
        ] {
            assert!(matches!(bad.check(), Err(LoadError::Layout { .. })), "{bad:?}");
        }
    }
}
