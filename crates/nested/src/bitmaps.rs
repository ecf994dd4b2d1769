//! The MSR and I/O bitmaps of vmcs12.
//!
//! SDM 3C 25.6.9 "MSR-Bitmap Address" and 25.6.4 "I/O-Bitmap Addresses". They are L1's memory, which L1 may change at any
//! time: bits are looked at when they count.

use core::sync::atomic::Ordering;

use arch::{GuestMemory, GuestPhys, Msr, Width};
use vmcs::Access;
use vmcs::controls::{PrimaryBased, SecondaryBased};
use vmcs::fields::*;

use crate::seam::L1Memory;
use crate::state::Nested;

/// The words of the bitmap page in which L0 lets some MSR through: TSC; SYSENTER; PAT; EFER and SYSCALL; bases and TSC_AUX.
/// Reads stand in words 0 to 255, writes 256 words further on.
const WORDS_PASSED: [usize; 5] = [0x10 / 64, 0x174 / 64, 0x277 / 64, 128 + 0x80 / 64, 128 + 0x100 / 64];
const WRITES: usize = 256;
/// The words of the x2APIC's MSRs, 0x800 to 0x8ff.
const X2APIC_WORD: usize = 0x800 / 64;

impl Nested {
    /// vmcs02's bitmap: an access exits if L0 or L1 wants it. Everything exits where L0 lets nothing through, so few words
    /// depend on L1.
    #[inline]
    pub(crate) fn merge_msr_bitmap(&mut self, memory: &impl L1Memory) {
        // All ones are read where there is no memory.
        let bitmap = memory.words(GuestPhys(self.vmcs12.read(MSR_BITMAP)));
        let word = |index: usize| bitmap.map_or(u64::MAX, |words| words[index & 511].load(Ordering::Relaxed));
        for index in WORDS_PASSED {
            for index in [index, index + WRITES] {
                self.pages.msr_bitmap.words[index] = self.pages.msr_bitmap01[index] | word(index);
            }
        }
        self.merge_x2apic(word);
    }

    /// Accesses that the processor virtualizes for vmcs12 never reach the machine's APIC, so L1 decides alone about them
    /// (SDM 3C 30.5 "Virtualizing MSR-Based APIC Accesses"). All others exit.
    #[inline(always)]
    fn merge_x2apic(&mut self, word: impl Fn(usize) -> u64) {
        let secondary = self.secondary12();
        if !secondary.contains(SecondaryBased::VIRTUALIZE_X2APIC_MODE) {
            if self.pages.has_x2apic_bits {
                self.pages.has_x2apic_bits = false;
                for index in X2APIC_WORD..X2APIC_WORD + 4 {
                    self.pages.msr_bitmap.words[index] = u64::MAX;
                    self.pages.msr_bitmap.words[index + WRITES] = u64::MAX;
                }
            }
            return;
        }
        self.pages.has_x2apic_bits = true;
        const TPR: u64 = 1 << 0x08;
        const EOI: u64 = 1 << 0x0b;
        const SELF_IPI: u64 = 1 << 0x3f;
        let all_reads = secondary.contains(SecondaryBased::APIC_REGISTER_VIRTUALIZATION);
        let delivery = secondary.contains(SecondaryBased::VIRTUAL_INTERRUPT_DELIVERY);
        for offset in 0..4 {
            let first = offset == 0;
            let reads = if all_reads {
                u64::MAX
            } else if first {
                TPR
            } else {
                0
            };
            let writes = match (first, delivery) {
                (true, true) => TPR | EOI | SELF_IPI,
                (true, false) => TPR,
                _ => 0,
            };
            let index = X2APIC_WORD + offset;
            self.pages.msr_bitmap.words[index] = word(index) | !reads;
            self.pages.msr_bitmap.words[index + WRITES] = word(index + WRITES) | !writes;
        }
    }

    /// Whether L1 wants the RDMSR or WRMSR that L2 executed.
    pub(crate) fn wants_msr(&self, memory: &impl GuestMemory, msr: Msr, write: bool) -> bool {
        let primary = PrimaryBased::from_bits_retain(self.vmcs12.read(CPU_BASED_VM_EXEC_CONTROL));
        if !primary.contains(PrimaryBased::USE_MSR_BITMAPS) {
            return true;
        }
        let half = match msr.0 {
            0..=0x1fff => 0,
            0xc000_0000..=0xc000_1fff => 1024,
            // Outside both ranges every access exits.
            _ => return true,
        };
        let offset = half + if write { 2048 } else { 0 } + u64::from(msr.0 & 0x1fff) / 8;
        wants(memory, self.vmcs12.read(MSR_BITMAP) + offset, u64::from(msr.0) % 8)
    }

    /// Whether L1 wants the access of `width` to `port` that L2 made. An access that wraps around the end of the ports exits.
    pub(crate) fn wants_port(&self, memory: &impl GuestMemory, port: u16, width: Width) -> bool {
        let primary = PrimaryBased::from_bits_retain(self.vmcs12.read(CPU_BASED_VM_EXEC_CONTROL));
        if !primary.contains(PrimaryBased::USE_IO_BITMAPS) {
            return primary.contains(PrimaryBased::UNCONDITIONAL_IO_EXITING);
        }
        (u64::from(port)..).take(width.bytes()).any(|port| {
            let bitmap = match port {
                0..=0x7fff => self.vmcs12.read(IO_BITMAP_A),
                0x8000..=0xffff => self.vmcs12.read(IO_BITMAP_B),
                _ => return true,
            };
            wants(memory, bitmap + (port & 0x7fff) / 8, port % 8)
        })
    }
}

/// A bit of a bitmap; set where there is no memory, as all ones are read there.
fn wants(memory: &impl GuestMemory, at: u64, bit: u64) -> bool {
    let mut byte = [0xff];
    if memory.read(GuestPhys(at), &mut byte).is_err() {
        return true;
    }
    byte[0] >> bit & 1 != 0
}
