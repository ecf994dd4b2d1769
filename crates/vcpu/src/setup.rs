//! What vmcs01 holds before the first entry: the controls, and a guest after power-up.

use arch::control::Cr4;
use arch::cpuid::CpuidResult;
use arch::{GuestRegs, HostPhys};
use nested::{Base, L1Apic, Nested, Posting};
use vlapic::{Features, Frequencies, LocalApic};
use vmcs::controls::{EntryControls, ExitControls, PinBased, PrimaryBased, SecondaryBased};
use vmcs::fields::*;
use vmcs::{Access, Capabilities, Choice, MissingControls};

use crate::control_registers::{CR0_OWNED, cr4_offered, cr4_owned};
use crate::counters::Counters;
use crate::cpu::Cpu;
use crate::cpuid::{ControlledFeatures, CpuidTable, Topology};
use crate::exits::{INTERCEPTED_EXCEPTIONS, MISC_ENABLE_RESET};
use crate::mtrr::Mtrrs;
use crate::state::{Activity, Vcpu};

/// The controls that run L1 on this machine: wanted, allowed, chosen.
#[derive(Clone, Copy, Debug)]
pub struct Controls {
    /// Pin-based controls.
    pub pin: Choice<PinBased>,
    /// Primary processor-based controls.
    pub primary: Choice<PrimaryBased>,
    /// Secondary processor-based controls.
    pub secondary: Choice<SecondaryBased>,
    /// VM-exit controls.
    pub exit: Choice<ExitControls>,
    /// VM-entry controls.
    pub entry: Choice<EntryControls>,
}

impl Controls {
    /// Chooses the controls on a machine with these capabilities.
    ///
    /// # Errors
    /// The controls that the machine lacks and Nestling cannot do without.
    pub fn choose(machine: &Capabilities) -> Result<Self, MissingControls> {
        Ok(Self {
            pin: machine.pin.choose(
                PinBased::EXTERNAL_INTERRUPT_EXITING
                    | PinBased::NMI_EXITING
                    | PinBased::VIRTUAL_NMIS
                    | PinBased::ACTIVATE_PREEMPTION_TIMER,
                PinBased::empty(),
            )?,
            primary: machine.primary.choose(
                PrimaryBased::USE_TSC_OFFSETTING
                    | PrimaryBased::HLT_EXITING
                    | PrimaryBased::MWAIT_EXITING
                    | PrimaryBased::MONITOR_EXITING
                    | PrimaryBased::RDPMC_EXITING
                    | PrimaryBased::CR8_LOAD_EXITING
                    | PrimaryBased::CR8_STORE_EXITING
                    | PrimaryBased::USE_IO_BITMAPS
                    | PrimaryBased::USE_MSR_BITMAPS
                    | PrimaryBased::ACTIVATE_SECONDARY_CONTROLS,
                PrimaryBased::empty(),
            )?,
            secondary: machine.secondary.choose(
                SecondaryBased::ENABLE_EPT | SecondaryBased::UNRESTRICTED_GUEST,
                SecondaryBased::ENABLE_VPID
                    | SecondaryBased::ENABLE_RDTSCP
                    | SecondaryBased::ENABLE_INVPCID
                    | SecondaryBased::ENABLE_XSAVES_XRSTORS,
            )?,
            exit: machine.exit.choose(
                ExitControls::SAVE_DEBUG_CONTROLS
                    | ExitControls::HOST_ADDRESS_SPACE_SIZE
                    | ExitControls::ACKNOWLEDGE_INTERRUPT_ON_EXIT
                    | ExitControls::SAVE_IA32_PAT
                    | ExitControls::LOAD_IA32_PAT
                    | ExitControls::SAVE_IA32_EFER
                    | ExitControls::LOAD_IA32_EFER,
                ExitControls::empty(),
            )?,
            entry: machine.entry.choose(
                EntryControls::LOAD_DEBUG_CONTROLS | EntryControls::LOAD_IA32_PAT | EntryControls::LOAD_IA32_EFER,
                EntryControls::empty(),
            )?,
        })
    }
}

/// Where the pages are that the VMCS points to, and how the guest is tagged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pages {
    /// EPT pointer of L1's memory.
    pub eptp: u64,
    /// MSR bitmap ([`crate::fill_msr_bitmap`]).
    pub msr_bitmap: HostPhys,
    /// First I/O bitmap, ports below 0x8000.
    pub io_bitmap_a: HostPhys,
    /// Second I/O bitmap.
    pub io_bitmap_b: HostPhys,
    /// The VMREAD and the VMWRITE bitmap, where VMCS shadowing is used.
    pub shadowing: Option<(HostPhys, HostPhys)>,
    /// Virtual-processor identifier, not zero.
    pub vpid: u16,
}

/// What a vCPU is, beside the machine it runs on.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    /// Number within the VM; also its initial APIC id.
    pub index: u16,
    /// vCPUs of the VM.
    pub cpus: u32,
    /// TSC and APIC-timer frequency.
    pub frequencies: Frequencies,
    /// L1 has VMX: [`Vcpu::give_vmx`] follows.
    pub has_vmx: bool,
    /// Other processors send it kicks.
    pub gets_kicks: bool,
    /// The machine is Bochs, whose error with several processors needs `exits/lost_rip.rs`. Never on a real machine.
    pub repairs_lost_rip: bool,
    /// Software can change the APIC id in xAPIC mode.
    pub writable_xapic_id: bool,
}

impl Vcpu {
    /// A vCPU after power-up: the bootstrap one (index 0) active, the others waiting for a start-up IPI.
    ///
    /// [`Vcpu::write_vmcs`] must follow before the first run.
    /// `machine_cpuid` executes CPUID.
    pub fn new(
        machine_cpuid: impl Fn(u32, u32) -> CpuidResult,
        machine: &Capabilities,
        controls: &Controls,
        identity: Identity,
    ) -> Self {
        let secondary = controls.secondary.chosen;
        let features = ControlledFeatures {
            rdtscp: secondary.contains(SecondaryBased::ENABLE_RDTSCP),
            invpcid: secondary.contains(SecondaryBased::ENABLE_INVPCID),
            xsaves: secondary.contains(SecondaryBased::ENABLE_XSAVES_XRSTORS),
            vmx: identity.has_vmx,
        };
        let topology = Topology { apic_id: u32::from(identity.index), cpus: identity.cpus };
        let cpuid = CpuidTable::new(machine_cpuid, topology, features);
        let bootstrap = identity.index == 0;
        Self {
            regs: GuestRegs::default(),
            apic: L1Apic::new(LocalApic::new(topology.apic_id, bootstrap, identity.frequencies).with_features(
                Features {
                    physical_address_bits: cpuid.physical_address_bits(),
                    writable_xapic_id: identity.writable_xapic_id,
                    ..Features::DEFAULT
                },
            )),
            counters: Counters::new(),
            index: identity.index,
            bootstrap,
            mtrrs: Mtrrs::new(cpuid.physical_address_bits()),
            activity: if bootstrap { Activity::Active } else { Activity::WaitForSipi },
            attention: true,
            calm: false,
            launched: false,
            launched02: false,
            in_l2: false,
            operand: None,
            stopping: None,
            nested: None,
            init_latched: false,
            leaves_l2_at_once: false,
            exit_of_l2: None,
            injection: None,
            nmi_pending: false,
            extint_message: false,
            primary: controls.primary.chosen,
            windows: PrimaryBased::empty(),
            tsc_offset: 0,
            tsc_adjust: 0,
            xcr0: 1,
            cr4_offered: cr4_offered(&cpuid) & Cr4::from_bits_retain(machine.cr4.fixed1),
            misc_enable: MISC_ENABLE_RESET,
            mcg_status: 0,
            inhibits: [false; 2],
            repairs_lost_rip: identity.repairs_lost_rip,
            kick_patience: (identity.repairs_lost_rip && identity.gets_kicks)
                .then_some(identity.frequencies.tsc_hz / 1000),
            deadline: u64::MAX,
            slice_end: u64::MAX,
            spins: false,
            timer_armed: true,
            timer02_armed: true,
            timer_shift: machine.misc.preemption_timer_shift(),
            cpuid,
        }
    }

    /// What nested VMX needs in vmcs02 for this vCPU: the controls of vmcs01. `posting`: the processor may take in posts to L2.
    pub fn nested_base(
        &self,
        controls: &Controls,
        pages: &Pages,
        vpid: u16,
        shadowing: bool,
        posting: Option<Posting>,
    ) -> Base {
        Base {
            pin: controls.pin.chosen,
            primary: controls.primary.chosen,
            secondary: controls.secondary.chosen,
            exit: controls.exit.chosen,
            entry: controls.entry.chosen,
            exceptions: INTERCEPTED_EXCEPTIONS,
            cr0_owned: CR0_OWNED.bits(),
            cr4_owned: cr4_owned(self.cr4_offered),
            eptp: pages.eptp,
            vpid,
            cr4_offered: self.cr4_offered,
            physical_address_bits: self.cpuid.physical_address_bits(),
            shadowing,
            repairs_vectoring: self.repairs_lost_rip,
            posting,
        }
    }

    /// Lets a loop of PAUSEs end the guest's run ([`crate::Left::Spins`]), on a machine that notices such loops. The current
    /// VMCS is vmcs01, which [`Self::write_vmcs`] has filled. L2's PAUSEs stay what L1 makes of them.
    pub fn notice_spinning(&self, cpu: &mut impl Cpu, machine: &Capabilities) {
        /// TSC ticks between two PAUSEs of a loop at most, and those of a loop until it is one. Who holds a lock for longer,
        /// on a processor of its own, is waited for with an exit now and then.
        const GAP: u32 = 128;
        const WINDOW: u32 = 4096;
        if machine.secondary.supports(SecondaryBased::PAUSE_LOOP_EXITING) {
            let vmcs = cpu.vmcs();
            let secondary = vmcs.read(SECONDARY_VM_EXEC_CONTROL) | SecondaryBased::PAUSE_LOOP_EXITING.bits();
            vmcs.write(SECONDARY_VM_EXEC_CONTROL, secondary);
            vmcs.write(PLE_GAP, GAP);
            vmcs.write(PLE_WINDOW, WINDOW);
        }
    }

    /// Gives L1 VMX.
    pub fn give_vmx(&mut self, nested: &'static mut Nested) {
        self.nested = Some(nested);
    }

    /// Fills the current VMCS, freshly cleared, but for the host's state, which belongs to the processor, and puts the guest's registers into their power-up state.
    pub fn write_vmcs(&mut self, cpu: &mut impl Cpu, controls: &Controls, pages: &Pages) {
        let vmcs = cpu.vmcs();
        vmcs.write(PIN_BASED_VM_EXEC_CONTROL, controls.pin.chosen.bits());
        vmcs.write(CPU_BASED_VM_EXEC_CONTROL, self.primary.bits());
        vmcs.write(SECONDARY_VM_EXEC_CONTROL, controls.secondary.chosen.bits());
        vmcs.write(VM_EXIT_CONTROLS, controls.exit.chosen.bits());
        vmcs.write(VM_ENTRY_CONTROLS, controls.entry.chosen.bits());
        vmcs.write(EXCEPTION_BITMAP, INTERCEPTED_EXCEPTIONS);
        vmcs.write(PAGE_FAULT_ERROR_CODE_MASK, 0);
        vmcs.write(PAGE_FAULT_ERROR_CODE_MATCH, 0);
        vmcs.write(CR3_TARGET_COUNT, 0);
        vmcs.write(VM_EXIT_MSR_STORE_COUNT, 0);
        vmcs.write(VM_EXIT_MSR_LOAD_COUNT, 0);
        vmcs.write(VM_ENTRY_MSR_LOAD_COUNT, 0);
        vmcs.write(EPT_POINTER, pages.eptp);
        vmcs.write(MSR_BITMAP, pages.msr_bitmap.get());
        vmcs.write(IO_BITMAP_A, pages.io_bitmap_a.get());
        vmcs.write(IO_BITMAP_B, pages.io_bitmap_b.get());
        if let Some((vmread, vmwrite)) = pages.shadowing {
            vmcs.write(VMREAD_BITMAP, vmread.get());
            vmcs.write(VMWRITE_BITMAP, vmwrite.get());
        }
        if controls.secondary.chosen.contains(SecondaryBased::ENABLE_VPID) {
            vmcs.write(VIRTUAL_PROCESSOR_ID, pages.vpid);
        }
        if controls.secondary.chosen.contains(SecondaryBased::ENABLE_XSAVES_XRSTORS) {
            vmcs.write(XSS_EXIT_BITMAP, 0);
        }
        vmcs.write(TSC_OFFSET, self.tsc_offset);
        vmcs.write(CR0_GUEST_HOST_MASK, CR0_OWNED.bits());
        vmcs.write(CR4_GUEST_HOST_MASK, cr4_owned(self.cr4_offered));
        vmcs.write(VMCS_LINK_POINTER, u64::MAX);
        vmcs.write(GUEST_SYSENTER_CS, 0);
        vmcs.write(GUEST_SYSENTER_ESP, 0);
        vmcs.write(GUEST_SYSENTER_EIP, 0);
        vmcs.write(GUEST_IA32_DEBUGCTL, 0);
        vmcs.write(GUEST_IA32_PAT, PAT_RESET);
        self.reset_registers(cpu);
    }
}

/// IA32_PAT after reset (SDM 3A 12.12.4 "Programming the PAT").
const PAT_RESET: u64 = 0x0007_0406_0007_0406;
