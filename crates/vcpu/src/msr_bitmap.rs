//! Which MSRs a guest reads and writes without an exit.
//!
//! SDM 3C 25.6.9 "MSR-Bitmap Address": four bitmaps of 1 KiB, reads of low and high MSRs, then writes; a set bit exits.

use arch::Msr;
use vlapic::Assist;

/// Registers that belong to the running guest alone: L0 neither uses nor checks them. The processor checks what is
/// written; the image saves those that are not in the VMCS when another vCPU takes the processor.
const PASSED_THROUGH: [Msr; 12] = [
    Msr::SYSENTER_CS,
    Msr::SYSENTER_ESP,
    Msr::SYSENTER_EIP,
    Msr::PAT,
    Msr::EFER,
    Msr::STAR,
    Msr::LSTAR,
    Msr::CSTAR,
    Msr::FMASK,
    Msr::FS_BASE,
    Msr::GS_BASE,
    Msr::KERNEL_GS_BASE,
];

/// Fills the bitmap page. `tsc_aux` says whether IA32_TSC_AUX exists for L1 (RDTSCP is shown).
pub fn fill_msr_bitmap(page: &mut [u8; 4096], tsc_aux: bool) {
    page.fill(0xff);
    for msr in PASSED_THROUGH {
        pass(page, msr, true);
    }
    if tsc_aux {
        pass(page, Msr::TSC_AUX, true);
    }
    // Reads get the TSC offset from the processor; writes move the offset and need L0.
    pass(page, Msr::TSC, false);
}

/// Lets the x2APIC MSRs through that the processor virtualizes with `assist`.
pub fn pass_x2apic_msrs(page: &mut [u8; 4096], assist: Assist) {
    for msr in (0x800..0x900).map(Msr) {
        let number = (msr.0 & 0x1fff) as usize;
        for (start, write) in [(0, false), (2048, true)] {
            if assist.passes(msr, write) {
                page[start + number / 8] &= !(1 << (number % 8));
            }
        }
    }
}

fn pass(page: &mut [u8; 4096], msr: Msr, writes_too: bool) {
    let number = (msr.0 & 0x1fff) as usize;
    let half = if msr.0 >= 0xc000_0000 { 1024 } else { 0 };
    page[half + number / 8] &= !(1 << (number % 8));
    if writes_too {
        page[2048 + half + number / 8] &= !(1 << (number % 8));
    }
}

/// Fills the two I/O bitmap pages (SDM 3C 25.6.4 "I/O-Bitmap Addresses"), ports below 0x8000 and the others: every port
/// exits but the POST port 0x80, which guests write only to pass the time.
pub fn fill_io_bitmaps(low: &mut [u8; 4096], high: &mut [u8; 4096]) {
    low.fill(0xff);
    high.fill(0xff);
    low[0x80 / 8] &= !1;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The processor looks where the manual says: EFER's read bit stands in the second KiB, its write bit in the fourth.
    #[test]
    fn bits_stand_where_the_processor_looks() {
        let mut page = [0; 4096];
        fill_msr_bitmap(&mut page, false);
        let exits = |offset: usize, msr: u32| page[offset + (msr as usize & 0x1fff) / 8] >> (msr % 8) & 1 == 1;
        assert!(!exits(1024, 0xc000_0080) && !exits(3072, 0xc000_0080), "EFER");
        assert!(!exits(0, 0x10) && exits(2048, 0x10), "TSC is read, not written");
        assert!(!exits(0, 0x277) && !exits(2048, 0x277), "PAT");
        assert!(exits(1024, 0xc000_0103) && exits(3072, 0xc000_0103), "TSC_AUX does not exist here");
        assert!(exits(0, 0x1b) && exits(2048, 0x1b), "APIC_BASE");
        assert!(exits(0, 0x808) && exits(2048, 0x808), "x2APIC TPR");
    }
}
