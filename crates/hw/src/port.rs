//! I/O ports.
//!
//! All are unsafe: a port write can reset the machine or start a transfer into any memory.

macro_rules! ports {
    ($($(#[$doc:meta])* $read:ident, $write:ident, $value:ty, $in:ident, $out:ident;)*) => { $(
        $(#[$doc])*
        /// # Safety
        /// Reading `port` has no effect on memory and none on a device that its owner does not expect.
        #[inline(always)]
        #[must_use]
        pub unsafe fn $read(port: u16) -> $value {
            // SAFETY: the caller's promise.
            unsafe { x86::io::$in(port) }
        }

        $(#[$doc])*
        /// # Safety
        /// Writing `value` to `port` has no effect on memory and none on a device that its owner does not expect.
        #[inline(always)]
        pub unsafe fn $write(port: u16, value: $value) {
            // SAFETY: the caller's promise.
            unsafe { x86::io::$out(port, value) }
        }
    )* };
}

ports! {
    /// An 8-bit access.
    in8, out8, u8, inb, outb;
    /// A 16-bit access.
    in16, out16, u16, inw, outw;
    /// A 32-bit access.
    in32, out32, u32, inl, outl;
}
