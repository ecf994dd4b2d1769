//! Addresses that do not mix: each address space has its own type, and only its owner converts.

/// Bytes in a 4-KiB page.
pub const PAGE_SIZE: u64 = 4096;

macro_rules! address {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        #[repr(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// The address as a number.
            #[inline(always)]
            pub const fn get(self) -> u64 { self.0 }
            /// The address `bytes` further on, wrapping at 2^64.
            #[inline(always)]
            pub const fn add(self, bytes: u64) -> Self { Self(self.0.wrapping_add(bytes)) }
            /// The start of the 4-KiB page that holds this address.
            #[inline(always)]
            pub const fn page(self) -> Self { Self(self.0 & !(PAGE_SIZE - 1)) }
            /// Offset within the 4-KiB page.
            #[inline(always)]
            pub const fn page_offset(self) -> u64 { self.0 & (PAGE_SIZE - 1) }
            /// Whether the address is a multiple of `align`, a power of two.
            #[inline(always)]
            pub const fn is_aligned(self, align: u64) -> bool { self.0 & (align - 1) == 0 }
        }

        impl core::fmt::Debug for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                write!(f, concat!(stringify!($name), "({:#x})"), self.0)
            }
        }

        impl core::fmt::LowerHex for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                core::fmt::LowerHex::fmt(&self.0, f)
            }
        }

        #[cfg(feature = "defmt")]
        impl defmt::Format for $name {
            fn format(&self, f: defmt::Formatter<'_>) { defmt::write!(f, "{=u64:#x}", self.0) }
        }
    };
}

address!(
    /// A physical address of the machine: what L0's page tables, EPT entries and VMCS pointers hold.
    HostPhys
);
address!(
    /// A guest-physical address of L1: what L1 believes to be physical.
    GuestPhys
);
address!(
    /// A guest-physical address of L2: what L1's EPT translates.
    L2Phys
);
address!(
    /// A linear address, of whichever paging structures are in force.
    Linear
);

impl Linear {
    /// Whether bits 63:47 are all equal: canonical for 48-bit linear addresses (SDM 1 3.3.7.1 "Canonical Addressing").
    #[inline]
    pub const fn is_canonical(self) -> bool {
        let high = self.0.cast_signed() >> 47;
        high == 0 || high == -1
    }
}
