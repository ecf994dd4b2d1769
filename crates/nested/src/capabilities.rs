//! The VMX capability MSRs that L1 reads: a subset of the machine's, and of what works here.
//!
//! SDM 3D appendix A "VMX Capability Reporting Facility". The checks of VM entry take their allowed settings from the same
//! values, so that what is not offered cannot be used.

use arch::Msr;
use arch::control::Cr4;
use vmcs::controls::{EntryControls, ExitControls, PinBased, PrimaryBased, SecondaryBased};
use vmcs::{Capabilities, EptVpid};

use crate::vmcs12::REVISION;

/// Pin-based controls that work for L1.
const PIN: PinBased = PinBased::EXTERNAL_INTERRUPT_EXITING
    .union(PinBased::NMI_EXITING)
    .union(PinBased::VIRTUAL_NMIS)
    .union(PinBased::ACTIVATE_PREEMPTION_TIMER)
    .union(PinBased::PROCESS_POSTED_INTERRUPTS);
/// Primary controls that work: all but the tertiary ones' activation.
const PRIMARY: PrimaryBased = PrimaryBased::all().difference(PrimaryBased::ACTIVATE_TERTIARY_CONTROLS);
/// Secondary controls that work.
const SECONDARY: SecondaryBased = SecondaryBased::VIRTUALIZE_APIC_ACCESSES
    .union(SecondaryBased::ENABLE_EPT)
    .union(SecondaryBased::DESCRIPTOR_TABLE_EXITING)
    .union(SecondaryBased::ENABLE_RDTSCP)
    .union(SecondaryBased::VIRTUALIZE_X2APIC_MODE)
    .union(SecondaryBased::ENABLE_VPID)
    .union(SecondaryBased::WBINVD_EXITING)
    .union(SecondaryBased::UNRESTRICTED_GUEST)
    .union(SecondaryBased::APIC_REGISTER_VIRTUALIZATION)
    .union(SecondaryBased::VIRTUAL_INTERRUPT_DELIVERY)
    .union(SecondaryBased::PAUSE_LOOP_EXITING)
    .union(SecondaryBased::RDRAND_EXITING)
    .union(SecondaryBased::ENABLE_INVPCID)
    .union(SecondaryBased::ENABLE_VM_FUNCTIONS)
    .union(SecondaryBased::VMCS_SHADOWING)
    .union(SecondaryBased::RDSEED_EXITING)
    .union(SecondaryBased::ENABLE_PML)
    .union(SecondaryBased::ENABLE_XSAVES_XRSTORS)
    .union(SecondaryBased::MODE_BASED_EXECUTE_CONTROL_FOR_EPT)
    .union(SecondaryBased::USE_TSC_SCALING);
/// VM-exit controls that work.
const EXIT: ExitControls = ExitControls::SAVE_DEBUG_CONTROLS
    .union(ExitControls::HOST_ADDRESS_SPACE_SIZE)
    .union(ExitControls::ACKNOWLEDGE_INTERRUPT_ON_EXIT)
    .union(ExitControls::SAVE_IA32_PAT)
    .union(ExitControls::LOAD_IA32_PAT)
    .union(ExitControls::SAVE_IA32_EFER)
    .union(ExitControls::LOAD_IA32_EFER)
    .union(ExitControls::SAVE_PREEMPTION_TIMER_VALUE);
/// VM-entry controls that work.
const ENTRY: EntryControls = EntryControls::LOAD_DEBUG_CONTROLS
    .union(EntryControls::IA32E_MODE_GUEST)
    .union(EntryControls::LOAD_IA32_PAT)
    .union(EntryControls::LOAD_IA32_EFER);
/// EPT and VPID features that work.
const EPT_VPID: EptVpid = EptVpid::EXECUTE_ONLY
    .union(EptVpid::PAGE_WALK_4)
    .union(EptVpid::MEMORY_TYPE_UC)
    .union(EptVpid::MEMORY_TYPE_WB)
    .union(EptVpid::PAGES_2M)
    .union(EptVpid::PAGES_1G)
    .union(EptVpid::INVEPT)
    .union(EptVpid::ACCESSED_DIRTY)
    .union(EptVpid::ADVANCED_VIOLATION_INFORMATION)
    .union(EptVpid::INVEPT_SINGLE_CONTEXT)
    .union(EptVpid::INVEPT_ALL_CONTEXT)
    .union(EptVpid::INVVPID)
    .union(EptVpid::INVVPID_INDIVIDUAL_ADDRESS)
    .union(EptVpid::INVVPID_SINGLE_CONTEXT)
    .union(EptVpid::INVVPID_ALL_CONTEXT)
    .union(EptVpid::INVVPID_SINGLE_CONTEXT_RETAINING_GLOBALS);

/// Controls that are 1 where software knows only the MSRs without "true" (SDM 3D A.2 "Reserved Controls and Default
/// Settings", "default1 class").
const PIN_DEFAULT1: u64 = 0x16;
const PRIMARY_DEFAULT1: u64 = 0x0401_e172;
const EXIT_DEFAULT1: u64 = 0x0003_6dff;
const ENTRY_DEFAULT1: u64 = 0x0000_11ff;
/// Of those the ones that may be 0 by the "true" MSRs: CR3-load and CR3-store exiting, save and load debug controls.
const PRIMARY_MAY_BE_0: u64 = 0x0001_8000;
const DEBUG_CONTROLS: u64 = 1 << 2;

/// IA32_VMX_BASIC bits that follow from the machine: INS and OUTS information (54), free error codes (56).
const BASIC_OF_MACHINE: u64 = 1 << 54 | 1 << 56;
/// Regions of 4 KiB, write-back, "true" MSRs.
const BASIC: u64 = 0x1000 << 32 | 6 << 50 | 1 << 55;

/// IA32_VMX_MISC bits that follow from the machine: timer rate (4:0), saving LMA (5), HLT (6) and wait-for-SIPI (8),
/// CR3-target count (24:16), list sizes (27:25), writing all fields (29), zero instruction length (30).
const MISC_OF_MACHINE: u64 = 0x1f | 1 << 5 | 1 << 6 | 1 << 8 | 0x1ff << 16 | 7 << 25 | 1 << 29 | 1 << 30;
/// The field table has four CR3-target values.
const MISC_MOST_CR3_TARGETS: u64 = 4;

/// The VMX capability MSRs as L1 reads them.
#[derive(Clone, Copy, Debug)]
pub struct CapabilityMsrs {
    values: [u64; Self::COUNT],
}

impl CapabilityMsrs {
    const COUNT: usize = (Msr::VMX_VMFUNC.0 - Msr::VMX_BASIC.0) as usize + 1;

    /// What L1 may know of a machine with these capabilities. `cr4` are the CR4 bits that L1 may set outside VMX
    /// operation.
    pub fn new(machine: &Capabilities, cr4: Cr4) -> Self {
        let mut msrs = Self { values: [0; Self::COUNT] };
        msrs.set(Msr::VMX_BASIC, BASIC | u64::from(REVISION) | machine.basic.0 & BASIC_OF_MACHINE);
        let targets = u64::from(machine.misc.cr3_targets()).min(MISC_MOST_CR3_TARGETS) << 16;
        msrs.set(Msr::VMX_MISC, machine.misc.0 & MISC_OF_MACHINE & !(0x1ff << 16) | targets);

        let word = |default1: u64, works: u64, machine: u64| default1 | (default1 | works & machine) << 32;
        let low = |bits: u32| u64::from(bits);
        let pin = word(PIN_DEFAULT1, low(PIN.bits()), low(machine.pin.allowed1.bits()));
        msrs.set(Msr::VMX_PINBASED_CTLS, pin);
        msrs.set(Msr::VMX_TRUE_PINBASED_CTLS, pin);
        let primary = word(PRIMARY_DEFAULT1, low(PRIMARY.bits()), low(machine.primary.allowed1.bits()));
        msrs.set(Msr::VMX_PROCBASED_CTLS, primary);
        let required = low(machine.primary.allowed0.bits());
        msrs.set(Msr::VMX_TRUE_PROCBASED_CTLS, primary & !(PRIMARY_MAY_BE_0 & !required));
        let exit = word(EXIT_DEFAULT1, low(EXIT.bits()), low(machine.exit.allowed1.bits()));
        msrs.set(Msr::VMX_EXIT_CTLS, exit);
        msrs.set(Msr::VMX_TRUE_EXIT_CTLS, exit & !DEBUG_CONTROLS);
        let entry = word(ENTRY_DEFAULT1, low(ENTRY.bits()), low(machine.entry.allowed1.bits()));
        msrs.set(Msr::VMX_ENTRY_CTLS, entry);
        msrs.set(Msr::VMX_TRUE_ENTRY_CTLS, entry & !DEBUG_CONTROLS);

        let mut secondary = SECONDARY & machine.secondary.allowed1;
        if !machine.ept_vpid.contains(EptVpid::ADVANCED_VIOLATION_INFORMATION) {
            // A violation of a fetch would not tell which of the two permissions was missing.
            secondary.remove(SecondaryBased::MODE_BASED_EXECUTE_CONTROL_FOR_EPT);
        }
        msrs.set(Msr::VMX_PROCBASED_CTLS2, low(secondary.bits()) << 32);
        if secondary.intersects(SecondaryBased::ENABLE_EPT | SecondaryBased::ENABLE_VPID) {
            msrs.set(Msr::VMX_EPT_VPID_CAP, (EPT_VPID & machine.ept_vpid).bits());
        }
        if secondary.contains(SecondaryBased::ENABLE_VM_FUNCTIONS) {
            msrs.set(Msr::VMX_VMFUNC, machine.vm_functions & 1);
        }
        msrs.set(Msr::VMX_CR0_FIXED0, machine.cr0.fixed0);
        msrs.set(Msr::VMX_CR0_FIXED1, machine.cr0.fixed1);
        msrs.set(Msr::VMX_CR4_FIXED0, machine.cr4.fixed0);
        msrs.set(Msr::VMX_CR4_FIXED1, machine.cr4.fixed1 & (cr4 | Cr4::VMXE).bits());
        let offered = msrs.decoded();
        let fields = vmcs::fields::FIELDS.iter().filter(|field| offered.has_field(field));
        let highest = fields.map(|field| field.encoding.index()).max().unwrap_or(0);
        msrs.set(Msr::VMX_VMCS_ENUM, u64::from(highest) << 1);
        msrs
    }

    fn set(&mut self, msr: Msr, value: u64) {
        self.values[(msr.0 - Msr::VMX_BASIC.0) as usize] = value;
    }

    /// RDMSR; `None` if L1's processor has no such register.
    pub fn read(&self, msr: Msr) -> Option<u64> {
        let value = *self.values.get(msr.0.checked_sub(Msr::VMX_BASIC.0)? as usize)?;
        // The only one that depends on a control that may not be offered; the others exist wherever EPT does.
        if msr == Msr::VMX_VMFUNC && value == 0 { None } else { Some(value) }
    }

    /// The same, decoded.
    pub fn decoded(&self) -> Capabilities {
        Capabilities::read(|msr| self.read(msr).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every control that L1 may set is one that the machine has, and the machine's fixed bits are kept.
    #[test]
    fn offered_is_a_subset_of_the_machine() {
        let machine = Capabilities::read(testkit::capability_msrs);
        let offered = CapabilityMsrs::new(&machine, Cr4::all()).decoded();
        assert!(machine.pin.allowed1.contains(offered.pin.allowed1));
        assert!(machine.primary.allowed1.contains(offered.primary.allowed1));
        assert!(machine.secondary.allowed1.contains(offered.secondary.allowed1));
        assert!(machine.exit.allowed1.contains(offered.exit.allowed1));
        assert!(machine.entry.allowed1.contains(offered.entry.allowed1));
        assert!(machine.ept_vpid.contains(offered.ept_vpid));
        assert!(offered.primary.allowed0.contains(machine.primary.allowed0), "what must be 1 there must be 1 here");
        assert_eq!(offered.misc.cr3_targets(), machine.misc.cr3_targets().min(4));
    }
}
