//! Interrupts that reach L2 without an exit to L1: those in its virtual-APIC page, and those posted for it.
//!
//! SDM 3C 30.2 "Evaluation and Delivery of Virtual Interrupts", 30.6 "Posted-Interrupt Processing". The processor delivers what
//! RVI says whenever L2 runs. A notification is an interrupt of L1's APIC, of which the processor knows nothing: while L2 runs,
//! whoever sends it sends the processor one of L0's own, on which it takes in by itself what is in vmcs12's descriptor. Where it
//! cannot, or L2 sleeps, L0 does what the processor does where the APIC is its own.

use core::sync::atomic::{AtomicU64, Ordering};

use arch::GuestPhys;
use arch::control::Rflags;
use vlapic::VectorSet;
use vmcs::controls::{PinBased, PrimaryBased, SecondaryBased};
use vmcs::fields::*;
use vmcs::{Access, EventInfo};

use crate::current::Vmcs02;
use crate::exit::Vectoring;
use crate::seam::{L1Memory, Processor};
use crate::state::{Nested, Posted};

/// The virtual-APIC page in words of 64 bits: VTPR, and the first of the eight registers of VIRR, two words apart.
const VTPR: usize = 0x80 / 8;
const VIRR: usize = 0x200 / 8;

impl Nested {
    /// Whether `vector` tells, while L2 runs, that interrupts have been posted for L2.
    pub fn is_notification(&self, vector: u8) -> bool {
        let pin = PinBased::from_bits_retain(self.vmcs12.read(PIN_BASED_VM_EXEC_CONTROL));
        pin.contains(PinBased::PROCESS_POSTED_INTERRUPTS) && self.vmcs12.read(POSTED_INTR_NV) == vector.into()
    }

    /// What the processor can take in by itself while L2 runs.
    pub(crate) fn posting(&self, memory: &impl L1Memory) -> Option<Posted> {
        let pin = PinBased::from_bits_retain(self.vmcs12.read(PIN_BASED_VM_EXEC_CONTROL));
        let posting = self.base.posting.filter(|_| pin.contains(PinBased::PROCESS_POSTED_INTERRUPTS))?;
        let descriptor = GuestPhys(self.vmcs12.read(POSTED_INTR_DESC_ADDR));
        let virtual_apic = GuestPhys(self.vmcs12.read(VIRTUAL_APIC_PAGE_ADDR));
        let is_memory = |at: GuestPhys| memory.host(at.page()).is_some();
        let fits = descriptor.get() & (posting.alignment - 1) == 0 && is_memory(descriptor) && is_memory(virtual_apic);
        let [notification, ..] = self.vmcs12.read(POSTED_INTR_NV).to_le_bytes();
        fits.then_some(Posted { notification, descriptor, virtual_apic })
    }

    /// What the processor takes in by itself while L2 runs, as of the last entry.
    #[inline(always)]
    pub const fn posted(&self) -> Option<&Posted> {
        self.posted.as_ref()
    }

    /// Moves what was posted from vmcs12's descriptor to the virtual-APIC page and to RVI: steps 3, 5 and 6 of the manual. The
    /// caller has acknowledged the notification and ended it in L1's APIC; the processor evaluates RVI at the next entry.
    pub fn process_posted<P: Processor>(&mut self, cpu: &mut P, memory: &impl L1Memory) {
        let descriptor = GuestPhys(self.vmcs12.read(POSTED_INTR_DESC_ADDR));
        // All ones are read where there is no memory.
        let mut posted = [u64::MAX; VectorSet::WORDS];
        if let Some(page) = memory.words(descriptor.page()) {
            let first = (descriptor.get() >> 3 & 511) as usize;
            page[first + VectorSet::WORDS].fetch_and(!OUTSTANDING_NOTIFICATION, Ordering::SeqCst);
            for (posted, requests) in posted.iter_mut().zip(&page[first..]) {
                *posted = requests.swap(0, Ordering::AcqRel);
            }
        }
        let Some(highest) = VectorSet::from_words(posted).highest() else { return };
        self.transitions.posted += 1;
        if let Some(page) = self.virtual_apic_page(memory) {
            for (index, bits) in posted.into_iter().enumerate() {
                page[VIRR + 4 * index].fetch_or(bits & 0xffff_ffff, Ordering::Relaxed);
                page[VIRR + 4 * index + 2].fetch_or(bits >> 32, Ordering::Relaxed);
            }
        }
        let mut vmcs02 = Vmcs02::assume(cpu.vmcs());
        let [rvi, svi] = vmcs02.read(GUEST_INTERRUPT_STATUS).to_le_bytes();
        vmcs02.write(GUEST_INTERRUPT_STATUS, u16::from_le_bytes([rvi.max(highest), svi]));
    }

    /// Whether the processor has a virtual interrupt for L2 that waits for nothing but RFLAGS.IF: what ends L2's HLT.
    pub fn has_virtual_interrupt(&self, vmcs02: &impl Access, memory: &impl L1Memory) -> bool {
        let primary = PrimaryBased::from_bits_retain(self.vmcs12.read(CPU_BASED_VM_EXEC_CONTROL));
        if !self.secondary12().contains(SecondaryBased::VIRTUAL_INTERRUPT_DELIVERY)
            || primary.contains(PrimaryBased::INTERRUPT_WINDOW_EXITING)
        {
            return false;
        }
        let [rvi, svi] = vmcs02.read(GUEST_INTERRUPT_STATUS).to_le_bytes();
        let vtpr = self.virtual_apic_page(memory).map_or(u64::MAX, |page| page[VTPR].load(Ordering::Relaxed));
        u64::from(rvi >> 4) > (vtpr >> 4 & 0xf).max(u64::from(svi >> 4))
    }

    /// IDT-vectoring information of the exit that vmcs02 describes.
    pub fn vectoring(&self, vmcs02: &impl Access) -> EventInfo {
        let info = EventInfo(vmcs02.read(IDT_VECTORING_INFO));
        let delivers = || self.secondary12().contains(SecondaryBased::VIRTUAL_INTERRUPT_DELIVERY);
        if self.base.repairs_vectoring && info.is_valid() && delivers() {
            // An error of the emulator: of a virtual interrupt it tells what it told of the event before. Handlers end an
            // interrupt before they let others in, so one in service with interrupts on has just been on its way.
            let [_, svi] = vmcs02.read(GUEST_INTERRUPT_STATUS).to_le_bytes();
            if svi != 0 && vmcs02.read(GUEST_RFLAGS) & Rflags::IF.bits() != 0 {
                return EventInfo::external(svi);
            }
        }
        info
    }

    /// The event whose delivery the processor's exit cut short.
    pub(crate) fn interrupted_event(&self, vmcs02: &impl Access) -> Option<Vectoring> {
        let info = self.vectoring(vmcs02);
        info.is_valid().then(|| Vectoring {
            info,
            error_code: if info.has_error_code() { vmcs02.read(IDT_VECTORING_ERROR_CODE) } else { 0 },
            instruction_length: vmcs02.read(VM_EXIT_INSTRUCTION_LEN),
        })
    }

    fn virtual_apic_page<'a>(&self, memory: &'a impl L1Memory) -> Option<&'a [AtomicU64; 512]> {
        memory.words(GuestPhys(self.vmcs12.read(VIRTUAL_APIC_PAGE_ADDR)))
    }
}

/// Bit 256 of a posted-interrupt descriptor (SDM 3C table 30-1 "Format of Posted-Interrupt Descriptor").
const OUTSTANDING_NOTIFICATION: u64 = 1 << 0;
