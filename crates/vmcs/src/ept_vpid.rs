//! What the processor can do with EPT and VPID.

use bitflags::bitflags;

bitflags! {
    /// IA32_VMX_EPT_VPID_CAP (SDM 3D A.10 "VPID and EPT Capabilities"). Zero on processors with neither.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct EptVpid: u64 {
        /// Execute-only translations are supported.
        const EXECUTE_ONLY = 1 << 0;
        /// A page-walk length of 4.
        const PAGE_WALK_4 = 1 << 6;
        /// A page-walk length of 5.
        const PAGE_WALK_5 = 1 << 7;
        /// EPT structures may be uncacheable.
        const MEMORY_TYPE_UC = 1 << 8;
        /// EPT structures may be write-back.
        const MEMORY_TYPE_WB = 1 << 14;
        /// EPT PDEs may map 2-MiB pages.
        const PAGES_2M = 1 << 16;
        /// EPT PDPTEs may map 1-GiB pages.
        const PAGES_1G = 1 << 17;
        /// INVEPT exists.
        const INVEPT = 1 << 20;
        /// Accessed and dirty flags.
        const ACCESSED_DIRTY = 1 << 21;
        /// Exit qualifications of EPT violations have bits 11:9.
        const ADVANCED_VIOLATION_INFORMATION = 1 << 22;
        /// Supervisor shadow-stack control in EPTP bit 7.
        const SUPERVISOR_SHADOW_STACK = 1 << 23;
        /// INVEPT of one EPTP.
        const INVEPT_SINGLE_CONTEXT = 1 << 25;
        /// INVEPT of all.
        const INVEPT_ALL_CONTEXT = 1 << 26;
        /// INVVPID exists.
        const INVVPID = 1 << 32;
        /// INVVPID of one address.
        const INVVPID_INDIVIDUAL_ADDRESS = 1 << 40;
        /// INVVPID of one VPID.
        const INVVPID_SINGLE_CONTEXT = 1 << 41;
        /// INVVPID of all.
        const INVVPID_ALL_CONTEXT = 1 << 42;
        /// INVVPID of one VPID but for global translations.
        const INVVPID_SINGLE_CONTEXT_RETAINING_GLOBALS = 1 << 43;
    }
}

impl EptVpid {
    /// Bits 53:48: the largest prefix that HLAT paging can be given, in bits.
    pub const fn max_hlat_prefix_size(self) -> u8 {
        (self.bits() >> 48 & 0x3f) as u8
    }

    /// Whether EPTP bits 2:0 may be `memory_type`: 0 (UC) or 6 (WB), as the processor offers them.
    pub const fn supports_memory_type(self, memory_type: u64) -> bool {
        match memory_type {
            0 => self.contains(Self::MEMORY_TYPE_UC),
            6 => self.contains(Self::MEMORY_TYPE_WB),
            _ => false,
        }
    }

    /// Whether EPTP bits 5:3 may say a page walk of `levels` levels.
    pub const fn supports_page_walk(self, levels: u64) -> bool {
        match levels {
            4 => self.contains(Self::PAGE_WALK_4),
            5 => self.contains(Self::PAGE_WALK_5),
            _ => false,
        }
    }
}

#[cfg(feature = "defmt")]
impl defmt::Format for EptVpid {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "{=u64:#x}", self.bits());
    }
}
