//! The processor: what a guest's accesses to its APIC do under the current VMCS (SDM 3C chapter 30).

use arch::apic::Register;
use vlapic::VirtualApicPage;
use vmcs::controls::{PinBased, PrimaryBased, SecondaryBased};
use vmcs::fields::*;
use vmcs::{Access, Encoding};

/// The fields that count here.
const FIELDS: [Encoding; 12] = [
    PIN_BASED_VM_EXEC_CONTROL.encoding(),
    CPU_BASED_VM_EXEC_CONTROL.encoding(),
    SECONDARY_VM_EXEC_CONTROL.encoding(),
    MSR_BITMAP.encoding(),
    EPT_POINTER.encoding(),
    GUEST_INTERRUPT_STATUS.encoding(),
    TPR_THRESHOLD.encoding(),
    EOI_EXIT_BITMAP0.encoding(),
    EOI_EXIT_BITMAP1.encoding(),
    EOI_EXIT_BITMAP2.encoding(),
    EOI_EXIT_BITMAP3.encoding(),
    TSC_OFFSET.encoding(),
];

/// A VMCS of these fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub(super) struct Vmcs([u64; FIELDS.len()]);

impl Access for Vmcs {
    fn read_raw(&self, encoding: Encoding) -> u64 {
        FIELDS.iter().position(|field| *field == encoding).map_or(0, |index| self.0[index])
    }

    fn write_raw(&mut self, encoding: Encoding, value: u64) {
        let index = FIELDS.iter().position(|field| *field == encoding).expect("a field of these tests");
        self.0[index] = value;
    }
}

/// EPT pointers and MSR bitmaps of L1.
pub(super) const EPTP: u64 = 0x1000;
pub(super) const EPTP_WITH_APIC: u64 = 0x2000;
pub(super) const BITMAP_NONE: u64 = 0x3000;
pub(super) const BITMAP_TPR: u64 = 0x4000;
pub(super) const BITMAP_ALL: u64 = 0x5000;

/// What an access of the guest came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Done {
    /// The processor did it.
    Yes,
    /// It did it, and an exit tells L0 of the end of this level-triggered interrupt.
    Ended(u8),
    /// It did it, and an exit says that TPR fell below the threshold.
    BelowThreshold,
    /// An exit: L0 must do it.
    Exit,
}

/// How the guest reaches its APIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Page,
    Msr,
}

fn secondary(vmcs: &Vmcs) -> SecondaryBased {
    SecondaryBased::from_bits_retain(vmcs.read(SECONDARY_VM_EXEC_CONTROL))
}

pub(super) fn delivers(vmcs: &Vmcs) -> bool {
    secondary(vmcs).contains(SecondaryBased::VIRTUAL_INTERRUPT_DELIVERY)
}

pub(super) fn takes_posted(vmcs: &Vmcs) -> bool {
    PinBased::from_bits_retain(vmcs.read(PIN_BASED_VM_EXEC_CONTROL)).contains(PinBased::PROCESS_POSTED_INTERRUPTS)
}

/// Whether the access is virtualized at all, before it is asked which register it is.
fn is_virtualized(vmcs: &Vmcs, way: Way, is_tpr: bool) -> bool {
    match way {
        Way::Page => {
            let mapped = vmcs.read(EPT_POINTER) == EPTP_WITH_APIC;
            let recognized = secondary(vmcs).contains(SecondaryBased::VIRTUALIZE_APIC_ACCESSES);
            assert!(mapped <= recognized, "the APIC-access page is mapped and not recognized: it is plain memory");
            mapped && recognized
        }
        Way::Msr => {
            let passes = match vmcs.read(MSR_BITMAP) {
                BITMAP_NONE => false,
                BITMAP_TPR => is_tpr,
                _ => true,
            };
            let recognized = secondary(vmcs).contains(SecondaryBased::VIRTUALIZE_X2APIC_MODE);
            assert!(passes <= recognized, "WRMSR would reach the machine's own APIC");
            assert!(passes <= (is_tpr || delivers(vmcs)), "WRMSR would reach the machine's own APIC");
            passes
        }
    }
}

/// Virtual-interrupt delivery, if a virtual interrupt is pending (SDM 3C 30.2).
pub(super) fn deliver(vmcs: &mut Vmcs, page: &VirtualApicPage) -> Option<u8> {
    if !delivers(vmcs) {
        return None;
    }
    let status = vmcs.read(GUEST_INTERRUPT_STATUS);
    let [requested, in_service] = status.to_le_bytes();
    let priority = (page.read(Register::TPR) >> 4 & 15).max(u32::from(in_service >> 4));
    if u32::from(requested >> 4) <= priority {
        return None;
    }
    let (mut visr, mut virr) = (page.vectors(Register::ISR), page.vectors(Register::IRR));
    visr.insert(requested);
    virr.remove(requested);
    page.set_vectors(Register::ISR, &visr);
    page.set_vectors(Register::IRR, &virr);
    let next = virr.highest().unwrap_or(0);
    vmcs.write(GUEST_INTERRUPT_STATUS, u16::from_le_bytes([next, requested]));
    Some(requested)
}

/// A write of EOI (SDM 3C 30.1.4 "EOI Virtualization").
pub(super) fn end_of_interrupt(vmcs: &mut Vmcs, page: &VirtualApicPage, way: Way) -> Done {
    if !is_virtualized(vmcs, way, false) || !delivers(vmcs) {
        return Done::Exit;
    }
    let [requested, in_service] = vmcs.read(GUEST_INTERRUPT_STATUS).to_le_bytes();
    let mut visr = page.vectors(Register::ISR);
    visr.remove(in_service);
    page.set_vectors(Register::ISR, &visr);
    vmcs.write(GUEST_INTERRUPT_STATUS, u16::from_le_bytes([requested, visr.highest().unwrap_or(0)]));
    let bitmaps = [EOI_EXIT_BITMAP0, EOI_EXIT_BITMAP1, EOI_EXIT_BITMAP2, EOI_EXIT_BITMAP3];
    let exits = vmcs.read(bitmaps[usize::from(in_service >> 6)]) >> (in_service & 63) & 1 != 0;
    if exits { Done::Ended(in_service) } else { Done::Yes }
}

/// A self-IPI (SDM 3C 30.1.5 "Self-IPI Virtualization").
pub(super) fn self_ipi(vmcs: &mut Vmcs, page: &VirtualApicPage, way: Way, vector: u8) -> Done {
    if !is_virtualized(vmcs, way, false) || !delivers(vmcs) {
        return Done::Exit;
    }
    request(vmcs, page, vector);
    Done::Yes
}

/// What a posted vector does (SDM 3C 30.6): VIRR, and RVI if it is higher.
pub(super) fn request(vmcs: &mut Vmcs, page: &VirtualApicPage, vector: u8) {
    let mut virr = page.vectors(Register::IRR);
    virr.insert(vector);
    page.set_vectors(Register::IRR, &virr);
    let [requested, in_service] = vmcs.read(GUEST_INTERRUPT_STATUS).to_le_bytes();
    vmcs.write(GUEST_INTERRUPT_STATUS, u16::from_le_bytes([requested.max(vector), in_service]));
}

/// MOV to CR8, which sets bits 7:4 of TPR (SDM 3C 30.3 and 30.1.2 "TPR Virtualization").
pub(super) fn set_cr8(vmcs: &Vmcs, page: &VirtualApicPage, class: u8) -> Done {
    let primary = PrimaryBased::from_bits_retain(vmcs.read(CPU_BASED_VM_EXEC_CONTROL));
    if !primary.contains(PrimaryBased::USE_TPR_SHADOW) {
        return Done::Exit;
    }
    page.write(Register::TPR, u32::from(class) << 4);
    if !delivers(vmcs) && u32::from(class) < vmcs.read(TPR_THRESHOLD) { Done::BelowThreshold } else { Done::Yes }
}
