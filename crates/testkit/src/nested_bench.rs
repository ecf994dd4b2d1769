//! A vCPU whose L1 has VMX, without the vCPU: the `nested` crate between an L1 that a test plays and a fake processor.

use std::sync::LazyLock;

use arch::control::{Cr0, Cr4, Efer};
use arch::{GuestRegs, HostPhys};
use nested::{
    Abort, Base, Entry, L1Processor, Nested, Outcome, Page, Pages, Processor, Refusal, Route, Synthesized, Which,
};
use vmcs::checks::{self, Environment, Rule};
use vmcs::controls::{EntryControls, ExitControls, PinBased, PrimaryBased, SecondaryBased};
use vmcs::fields::*;
use vmcs::{Access, Capabilities, Encoding, ExitReason};

use crate::fake_processor::SHADOW_VMCS;
use crate::ram::{L1Words, MachineMemory};
use crate::{FakeMsrs, FakeProcessor, FakeVmcs, Ram};

/// Width of physical addresses, of the machine and of L1.
pub const PHYSICAL_ADDRESS_BITS: u8 = 46;
/// L1's TSC less the machine's.
pub const TSC_OFFSET_OF_L1: u64 = 0u64.wrapping_sub(500);

/// An L1 and what lies below it.
#[derive(Debug)]
pub struct NestedBench {
    /// What is tested.
    pub nested: Nested,
    /// The processor.
    pub cpu: FakeProcessor,
    /// L1's memory.
    pub ram: Ram,
    /// L1's MSRs.
    pub msrs: FakeMsrs,
    /// What the rules are told of L1's processor.
    pub l1: L1Processor,
    /// The rules that entries failed by; none where an MSR could not be loaded.
    pub refused: Vec<Option<&'static Rule>>,
    /// The last failed entry in words.
    pub explained: String,
    machine: Capabilities,
    base: Base,
    /// The state of nested VMX after power-up.
    outside: Box<[u8; nested::SAVED_BYTES]>,
}

impl NestedBench {
    /// L1's VMXON region.
    pub const VMXON: u64 = 0x5_0000;
    /// A VMCS region.
    pub const VMCS: u64 = 0x5_1000;
    /// Another one.
    pub const OTHER: u64 = 0x5_2000;
    /// The region of a shadow VMCS.
    pub const SHADOW: u64 = 0x5_3000;

    /// L1 after power-up, outside VMX operation, on a processor that has everything; `shadowing` whether L0 uses VMCS
    /// shadowing.
    pub fn new(shadowing: bool) -> Self {
        Self::on(&Capabilities::read(crate::capability_msrs), shadowing)
    }

    /// The same on a processor with these capabilities.
    pub fn on(machine: &Capabilities, shadowing: bool) -> Self {
        let base = base(machine, shadowing);
        let mut bench = Self {
            nested: nested(machine, &base),
            cpu: FakeProcessor::new(machine),
            ram: Ram::new(),
            msrs: FakeMsrs::default(),
            l1: L1Processor { tsc_offset: TSC_OFFSET_OF_L1, has_sgx: false, has_rtm: true },
            refused: Vec::new(),
            explained: String::new(),
            machine: *machine,
            base,
            outside: Box::new([0; nested::SAVED_BYTES]),
        };
        bench.nested.save(&mut bench.cpu, &mut bench.outside);
        bench.begin();
        bench
    }

    /// L1 after power-up again, with new memory. Vmcs02 keeps what it has.
    ///
    /// # Panics
    /// Not with the state that it restores.
    #[expect(clippy::expect_used, reason = "a state without VMX operation is right everywhere")]
    pub fn restart(&mut self) {
        if self.cpu.current() != Which::Vmcs01 {
            self.cpu.make_current(Which::Vmcs01);
        }
        self.ram = Ram::new();
        self.msrs = FakeMsrs::default();
        self.refused.clear();
        self.cpu.flushes.clear();
        for vmcs in [self.cpu.vmcs_of(Which::Vmcs01), self.cpu.vmcs_of(Which::Vmcs02), self.cpu.shadow_vmcs()] {
            vmcs.forget_reads();
        }
        self.fill_vmcss();
        self.nested
            .restore(&mut self.cpu, &self.ram, &self.outside[..], &self.l1)
            .expect("a state without VMX operation");
        self.begin();
    }

    /// vmcs01 and L1's memory after power-up.
    fn begin(&mut self) {
        self.fill_vmcss();
        for region in [Self::VMXON, Self::VMCS, Self::OTHER] {
            self.ram.set(region, nested::REVISION.into());
        }
        self.ram.set(Self::SHADOW, u64::from(nested::REVISION | 1 << 31));
    }

    /// vmcs01 runs an L1 in 64-bit mode at privilege level 0.
    fn fill_vmcss(&mut self) {
        let base = self.base;
        let vmcs01 = self.cpu.vmcs_of_mut(Which::Vmcs01);
        vmcs01.set_host();
        vmcs01.set_guest();
        vmcs01.write(PIN_BASED_VM_EXEC_CONTROL, base.pin.bits());
        vmcs01.write(CPU_BASED_VM_EXEC_CONTROL, base.primary.bits());
        vmcs01.write(SECONDARY_VM_EXEC_CONTROL, base.secondary.bits());
        vmcs01.write(VM_EXIT_CONTROLS, base.exit.bits());
        vmcs01.write(VM_ENTRY_CONTROLS, base.entry.bits() | EntryControls::IA32E_MODE_GUEST.bits());
        vmcs01.write(TSC_OFFSET, TSC_OFFSET_OF_L1);
        vmcs01.write(EPT_POINTER, base.eptp);
        vmcs01.write(GUEST_CR4, 0x2060);
        vmcs01.write(CR4_READ_SHADOW, 0x2020);
        vmcs01.write(CR0_READ_SHADOW, 0x8001_0033);
        // The host's state is the processor's, and L0's, in every VMCS.
        self.cpu.vmcs_of_mut(Which::Vmcs02).set_host();
    }

    /// What L1's processor offers.
    pub const fn offered(&self) -> &Capabilities {
        self.nested.capabilities()
    }

    /// What L0 needs in vmcs02.
    pub const fn base(&self) -> &Base {
        &self.base
    }

    /// A VMCS as it is on the processor.
    pub const fn vmcs(&self, which: Which) -> &FakeVmcs {
        self.cpu.vmcs_of(which)
    }

    /// VMXON, and VMPTRLD of [`Self::VMCS`].
    #[must_use]
    pub fn in_vmx_operation(mut self) -> Self {
        self.start();
        self
    }

    /// The same.
    pub fn start(&mut self) {
        assert_eq!(self.nested.vmxon(&mut self.cpu, &self.ram, Self::VMXON), Outcome::Succeed);
        assert_eq!(self.vmptrld(Self::VMCS), Outcome::Succeed);
    }

    /// The same, with a VMCS with which VM entry succeeds: [`FakeVmcs::valid`] as far as L1's processor has its fields.
    #[must_use]
    pub fn with_valid_vmcs12(self) -> Self {
        let mut bench = self.in_vmx_operation();
        bench.write_valid();
        bench
    }

    /// VMWRITE of all that an entry needs.
    pub fn write_valid(&mut self) {
        let offered = *self.offered();
        for (encoding, value) in FakeVmcs::valid().values().collect::<Vec<_>>() {
            let exists = vmcs::field::info(encoding).is_some_and(|field| offered.has_field(field));
            // Some processors lack a control that the valid VMCS uses.
            let value = match encoding {
                _ if encoding == SECONDARY_VM_EXEC_CONTROL.encoding() => {
                    value & u64::from(offered.secondary.allowed1.bits())
                }
                _ => value,
            };
            if exists {
                self.write_raw(encoding, value);
            }
        }
    }

    /// VMPTRLD.
    pub fn vmptrld(&mut self, region: u64) -> Outcome {
        self.nested.vmptrld(&mut self.cpu, &self.ram, region)
    }

    /// VMCLEAR.
    pub fn vmclear(&mut self, region: u64) -> Outcome {
        self.nested.vmclear(&mut self.cpu, &self.ram, region)
    }

    /// VMREAD with an exit.
    pub fn vmread(&mut self, encoding: u64) -> Result<u64, Outcome> {
        self.nested.vmread(&mut self.cpu, encoding)
    }

    /// VMWRITE with an exit.
    pub fn vmwrite(&mut self, encoding: u64, value: u64) -> Outcome {
        self.nested.vmwrite(&mut self.cpu, encoding, value)
    }

    /// VMREAD of a field that exists, with an exit or without, as the processor has it.
    ///
    /// # Panics
    /// If the field does not exist.
    #[expect(clippy::expect_used, reason = "a test that gets here is wrong")]
    pub fn read<W: vmcs::field::Width>(&mut self, field: vmcs::field::Field<W>) -> W::Value {
        W::from_raw(self.read_raw(field.encoding()).expect("a field that exists"))
    }

    /// The same, by encoding.
    pub fn read_raw(&mut self, encoding: Encoding) -> Result<u64, Outcome> {
        if !self.exits(encoding, false)
            && let Some(value) = self.cpu.shadow_read(encoding)
        {
            return Ok(value);
        }
        self.vmread(encoding.0.into())
    }

    /// VMWRITE of a field that exists, with an exit or without, as the processor has it.
    pub fn write<W: vmcs::field::Width>(&mut self, field: vmcs::field::Field<W>, value: W::Value) {
        self.write_raw(field.encoding(), W::to_raw(value));
    }

    /// The same, by encoding.
    pub fn write_raw(&mut self, encoding: Encoding, value: u64) {
        if !self.exits(encoding, true) && self.cpu.shadow_write(encoding, value) {
            return;
        }
        assert_eq!(self.vmwrite(encoding.0.into(), value), Outcome::Succeed, "VMWRITE of {encoding:?}");
    }

    /// Whether VMREAD or VMWRITE of a field exits although VMCS shadowing is on.
    fn exits(&self, encoding: Encoding, write: bool) -> bool {
        // Made once, for a processor that has all fields.
        static BITMAPS: LazyLock<[[u8; 4096]; 2]> = LazyLock::new(|| {
            let (mut vmread, mut vmwrite) = ([0; 4096], [0; 4096]);
            nested::fill_shadowing_bitmaps(&Capabilities::read(crate::capability_msrs), &mut vmread, &mut vmwrite);
            [vmread, vmwrite]
        });
        let bitmap = &BITMAPS[usize::from(write)];
        encoding.0 >> 15 != 0
            || vmcs::field::info(encoding).is_none_or(|field| !self.machine.has_field(field))
            || bitmap[(encoding.0 / 8) as usize] >> (encoding.0 % 8) & 1 != 0
    }

    /// All fields of vmcs12, by VMREAD.
    ///
    /// # Panics
    /// Not with a current VMCS.
    #[expect(clippy::expect_used, reason = "a test that gets here is wrong")]
    pub fn vmcs12(&mut self) -> FakeVmcs {
        let offered = *self.offered();
        let mut vmcs12 = FakeVmcs::of(&offered);
        for field in FIELDS.iter().filter(|field| offered.has_field(field)) {
            vmcs12.write_raw(field.encoding, self.read_raw(field.encoding).expect("a field that exists"));
        }
        vmcs12
    }

    /// VMLAUNCH or VMRESUME.
    pub fn enter(&mut self, launch: bool) -> Entry {
        let (refused, explained) = (&mut self.refused, &mut self.explained);
        self.nested.enter(&mut self.cpu, &self.ram, &mut self.msrs, launch, &self.l1, &mut |refusal: Refusal<'_>| {
            refused.push(refusal.rule);
            *explained = refusal.explanation().to_string();
        })
    }

    /// VMLAUNCH that must succeed; vmcs02 must be one that the processor accepts.
    pub fn launch(&mut self) {
        assert_eq!(self.enter(true), Entry::Entered { activity: 0 }, "{:?}", self.refused);
        self.assert_vmcs02_is_valid();
    }

    /// VMRESUME, likewise.
    pub fn resume(&mut self) {
        assert_eq!(self.enter(false), Entry::Entered { activity: 0 }, "{:?}", self.refused);
        self.assert_vmcs02_is_valid();
    }

    /// The rule that vmcs12 breaks, judged as a whole by what VMREAD gives.
    pub fn broken_rule(&mut self) -> Option<&'static Rule> {
        let vmcs12 = self.vmcs12();
        let words = L1Words(&self.ram);
        let current = self.nested.vmptrst();
        let in_ia32e_mode = self.vmcs(Which::Vmcs01).read(GUEST_IA32_EFER) & Efer::LMA.bits() != 0;
        let (has_sgx, has_rtm) = (self.l1.has_sgx, self.l1.has_rtm);
        let environment = Environment {
            in_ia32e_mode,
            has_sgx,
            has_rtm,
            ..Environment::new(self.nested.capabilities(), PHYSICAL_ADDRESS_BITS, current, &words)
        };
        checks::first_broken(&vmcs12, &environment)
    }

    /// Fails the test if the processor would refuse vmcs02.
    ///
    /// # Panics
    /// With the rule that vmcs02 breaks.
    #[expect(clippy::panic, reason = "what a test does that fails")]
    pub fn assert_vmcs02_is_valid(&self) {
        let memory = MachineMemory(&self.ram);
        let environment = Environment {
            has_sgx: self.l1.has_sgx,
            has_rtm: self.l1.has_rtm,
            ..Environment::new(&self.machine, PHYSICAL_ADDRESS_BITS, 0x90_0000_2000, &memory)
        };
        // In a copy, whose reads do not pile up.
        if let Some(rule) = checks::first_broken(&self.vmcs(Which::Vmcs02).clone(), &environment) {
            panic!("the processor refuses vmcs02: {rule}");
        }
        self.vmcs(Which::Vmcs02).forget_reads();
    }

    /// L2 runs and exits: `change` is what it does to its state, and what the exit brings.
    pub fn run_l2(&mut self, reason: ExitReason, change: impl FnOnce(&mut FakeVmcs)) {
        assert!(self.nested.in_l2() && self.cpu.current() == Which::Vmcs02, "L2 is the guest that runs");
        self.nested.entered();
        let vmcs02 = self.cpu.vmcs_of_mut(Which::Vmcs02);
        vmcs02.write(EXIT_REASON, reason.0.into());
        for field in [VM_EXIT_INTERRUPTION_INFO, IDT_VECTORING_INFO] {
            vmcs02.write(field, 0);
        }
        vmcs02.write(EXIT_QUALIFICATION, 0);
        change(vmcs02);
        // SDM 3C 28.2 "Recording VM-Exit Information and Updating VM-Entry Control Fields".
        let event = vmcs02.read(VM_ENTRY_INTERRUPTION_INFO);
        vmcs02.write(VM_ENTRY_INTERRUPTION_INFO, event & 0x7fff_ffff);
        let mut entry = EntryControls::from_bits_retain(vmcs02.read(VM_ENTRY_CONTROLS));
        entry.set(EntryControls::IA32E_MODE_GUEST, vmcs02.read(GUEST_IA32_EFER) & Efer::LMA.bits() != 0);
        vmcs02.write(VM_ENTRY_CONTROLS, entry.bits());
    }

    /// Whose the exit is.
    pub fn route(&mut self, reason: ExitReason, regs: &GuestRegs) -> Route {
        let now = self.cpu.tsc;
        self.nested.route(reason, self.cpu.vmcs_of(Which::Vmcs02), regs, &self.ram, now)
    }

    /// L1 gets the exit as the processor made it.
    pub fn reflect(&mut self) -> Result<(), Abort> {
        self.nested.reflect(&mut self.cpu, &self.ram, &mut self.msrs, 0)
    }

    /// L1 gets an exit that L0 made.
    pub fn synthesize(&mut self, exit: Synthesized) -> Result<(), Abort> {
        self.nested.synthesize(&mut self.cpu, &self.ram, &mut self.msrs, 0, exit)
    }

    /// L2 runs to an exit that L1 gets.
    ///
    /// # Panics
    /// If the exit aborts.
    pub fn exit(&mut self, reason: ExitReason, change: impl FnOnce(&mut FakeVmcs)) {
        self.run_l2(reason, change);
        assert_eq!(self.reflect(), Ok(()));
        assert_eq!(self.cpu.current(), Which::Vmcs01);
    }

    /// Another processor with a `nested` of its own goes on with this L1: the same memory and vmcs01, and nothing else.
    #[must_use]
    pub fn moved(self) -> Self {
        let mut moved = Self::on(&self.machine, self.base.shadowing);
        *moved.cpu.vmcs_of_mut(Which::Vmcs01) = self.cpu.vmcs_of(Which::Vmcs01).clone();
        moved.cpu.tsc = self.cpu.tsc;
        moved.cpu.loads = self.cpu.loads;
        moved.ram = self.ram;
        moved.msrs = self.msrs;
        moved.l1 = self.l1;
        moved.refused = self.refused;
        moved
    }
}

/// The controls with which L0 runs a guest.
fn base(machine: &Capabilities, shadowing: bool) -> Base {
    let offered = Cr4::all()
        .difference(Cr4::SMXE | Cr4::LA57 | Cr4::CET | Cr4::PKS | Cr4::UINTR)
        .intersection(Cr4::from_bits_retain(machine.cr4.fixed1));
    let pin = PinBased::EXTERNAL_INTERRUPT_EXITING
        | PinBased::NMI_EXITING
        | PinBased::VIRTUAL_NMIS
        | PinBased::ACTIVATE_PREEMPTION_TIMER;
    let primary = PrimaryBased::USE_TSC_OFFSETTING
        | PrimaryBased::HLT_EXITING
        | PrimaryBased::MWAIT_EXITING
        | PrimaryBased::MONITOR_EXITING
        | PrimaryBased::RDPMC_EXITING
        | PrimaryBased::CR8_LOAD_EXITING
        | PrimaryBased::CR8_STORE_EXITING
        | PrimaryBased::USE_IO_BITMAPS
        | PrimaryBased::USE_MSR_BITMAPS
        | PrimaryBased::ACTIVATE_SECONDARY_CONTROLS;
    let secondary = SecondaryBased::ENABLE_EPT
        | SecondaryBased::UNRESTRICTED_GUEST
        | SecondaryBased::ENABLE_VPID
        | SecondaryBased::ENABLE_RDTSCP
        | SecondaryBased::ENABLE_INVPCID
        | SecondaryBased::ENABLE_XSAVES_XRSTORS;
    let exit = ExitControls::SAVE_DEBUG_CONTROLS
        | ExitControls::HOST_ADDRESS_SPACE_SIZE
        | ExitControls::ACKNOWLEDGE_INTERRUPT_ON_EXIT
        | ExitControls::SAVE_IA32_PAT
        | ExitControls::LOAD_IA32_PAT
        | ExitControls::SAVE_IA32_EFER
        | ExitControls::LOAD_IA32_EFER;
    let entry = EntryControls::LOAD_DEBUG_CONTROLS | EntryControls::LOAD_IA32_PAT | EntryControls::LOAD_IA32_EFER;
    Base {
        pin: pin | machine.pin.allowed0,
        primary: primary | machine.primary.allowed0,
        secondary: secondary & machine.secondary.allowed1,
        exit: exit | machine.exit.allowed0,
        entry: entry | machine.entry.allowed0,
        exceptions: 1 << 18,
        cr0_owned: (Cr0::NE | Cr0::CD | Cr0::NW).bits(),
        cr4_owned: !offered.bits() | (Cr4::VMXE | Cr4::MCE).bits(),
        eptp: 0xa0_0000_001e,
        vpid: 2,
        cr4_offered: offered,
        physical_address_bits: PHYSICAL_ADDRESS_BITS,
        shadowing,
        repairs_vectoring: false,
        posting: None,
    }
}

fn nested(machine: &Capabilities, base: &Base) -> Nested {
    let page = |at: u64| Page { words: Box::leak(Box::new([0; 512])), at: HostPhys(0x90_0000_0000 + at) };
    // L0 lets L1 have the MSRs of SYSENTER; all others exit.
    let mut bitmap01 = [u64::MAX; 512];
    for words in [0, 256] {
        bitmap01[words + 0x174 / 64] &= !(7 << (0x174 % 64));
    }
    let shadow = base.shadowing.then_some(SHADOW_VMCS);
    Nested::new(machine, *base, Pages::new(page(0), Box::leak(Box::new(bitmap01)), page(0x1000), shadow))
}
