//! The two 8259A interrupt controllers: masked for good. L1 has emulated ones, and L0 uses the local APIC only.

use crate::port;

/// Masks all inputs of both. Moves their vectors out of the exceptions' way first, for a spurious interrupt cannot be masked.
///
/// # Safety
/// Nobody relies on the machine's PICs.
pub unsafe fn mask() {
    // Initialisation words 1 to 4, then the mask (8259A data sheet, "Programming the 8259A").
    const STEPS: [(u16, u8); 10] = [
        (0x20, 0x11),
        (0xa0, 0x11),
        (0x21, 0x20),
        (0xa1, 0x28),
        (0x21, 0x04),
        (0xa1, 0x02),
        (0x21, 0x01),
        (0xa1, 0x01),
        (0x21, 0xff),
        (0xa1, 0xff),
    ];
    for (port, value) in STEPS {
        // SAFETY: the caller's promise.
        unsafe { port::out8(port, value) };
    }
}
