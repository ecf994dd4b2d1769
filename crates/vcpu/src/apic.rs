//! What the processor does for L1's APIC, and when it gets the registers.

use arch::HostPhys;
use nested::ApicPages;
use vlapic::{Hardware, Reason};
use vmcs::controls::{PinBased, PrimaryBased, SecondaryBased};
use vmcs::fields::*;
use vmcs::{Access, Capabilities};

use crate::cpu::Cpu;
use crate::state::Vcpu;
use crate::world::World;

/// What a processor with these capabilities can do for an APIC. Everything works without any of it.
pub fn apic_hardware(machine: &Capabilities) -> Hardware {
    let has = |control| machine.secondary.supports(control);
    let tpr_shadow = machine.primary.supports(PrimaryBased::USE_TPR_SHADOW);
    let accesses = tpr_shadow && has(SecondaryBased::VIRTUALIZE_APIC_ACCESSES);
    let delivery = accesses
        && has(SecondaryBased::APIC_REGISTER_VIRTUALIZATION)
        && has(SecondaryBased::VIRTUAL_INTERRUPT_DELIVERY);
    Hardware {
        tpr_shadow,
        accesses,
        delivery,
        posting: delivery && machine.pin.supports(PinBased::PROCESS_POSTED_INTERRUPTS),
        x2apic: tpr_shadow && has(SecondaryBased::VIRTUALIZE_X2APIC_MODE),
    }
}

/// What helps the APIC of a vCPU, and where it is.
#[derive(Clone, Copy, Debug)]
pub struct ApicHelp {
    /// What the processor works on.
    pub pages: ApicPages,
    /// Where it finds the virtual-APIC page.
    pub virtual_apic: HostPhys,
    /// The APIC-access page, which stands at 0xFEE00000 in [`ApicPages::eptp_with_apic`].
    pub access: HostPhys,
    /// The mailbox, as posted-interrupt descriptor.
    pub descriptor: HostPhys,
    /// The vector that notifies of posts.
    pub notification: u8,
}

impl Vcpu {
    /// Lets the processor help with the APIC, as far as it can. The current VMCS is vmcs01, which
    /// [`write_vmcs`](Self::write_vmcs) has filled.
    pub fn give_apic_help(&mut self, cpu: &mut impl Cpu, help: &ApicHelp) {
        let hardware = help.pages.hardware;
        if !hardware.tpr_shadow {
            return;
        }
        // CR8 is a byte of the virtual-APIC page.
        self.primary.remove(PrimaryBased::CR8_LOAD_EXITING | PrimaryBased::CR8_STORE_EXITING);
        self.primary.insert(PrimaryBased::USE_TPR_SHADOW);
        let vmcs = cpu.vmcs();
        vmcs.write(CPU_BASED_VM_EXEC_CONTROL, self.primary.bits());
        vmcs.write(VIRTUAL_APIC_PAGE_ADDR, help.virtual_apic.get());
        vmcs.write(TPR_THRESHOLD, 0);
        if hardware.accesses {
            vmcs.write(APIC_ACCESS_ADDR, help.access.get());
        }
        if hardware.posting {
            vmcs.write(POSTED_INTR_NV, u16::from(help.notification));
            vmcs.write(POSTED_INTR_DESC_ADDR, help.descriptor.get());
        }
        self.apic.give_pages(help.pages);
        self.attention = true;
    }

    /// Gives the APIC's registers to the processor, where it helps, and brings vmcs01 up to date, at once or when it is current
    /// next. Before that the VM learns what the registers mean for all its vCPUs.
    #[inline(always)]
    pub(crate) fn lend_apic(&mut self, cpu: &mut impl Cpu, world: &impl World) {
        let inhibited = world.is_apic_inhibited();
        if !self.apic.is_steady(inhibited) {
            self.lend_apic_now(cpu, world);
        }
    }

    #[inline(never)]
    fn lend_apic_now(&mut self, cpu: &mut impl Cpu, world: &impl World) {
        for (told, reason) in self.inhibits.iter_mut().zip(Reason::OF_REGISTERS) {
            let holds = self.apic.settings().inhibits(reason);
            if core::mem::replace(told, holds) != holds {
                world.inhibit(reason, holds);
            }
        }
        let mut nested = self.nested.as_deref_mut();
        let vmcs = cpu.vmcs();
        self.apic.lend(world.is_apic_inhibited(), |update| nested::submit(nested.as_deref_mut(), vmcs, update));
    }
}
