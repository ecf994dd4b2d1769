//! A processor that plays a script of exits, and a vCPU on it.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use arch::cpuid::CpuidResult;
use arch::segment::{AccessRights, Segment};
use arch::{GuestRegs, HostPhys, Msr, Width};
use nested::{Nested, Page, Which};
use testkit::{FakeVmcs, Ram, TableFrames};
use vlapic::Frequencies;
use vmcs::checks::{self, Environment};
use vmcs::controls::EntryControls;
use vmcs::fields::*;
use vmcs::{Access, Capabilities, EventInfo, ExitReason};

use super::fake_world::FakeWorld;
use crate::*;

/// Where the fake processor's VMCS is; nothing reads it there.
const CURRENT_VMCS: u64 = 0x5_0000;

type Step = Box<dyn FnOnce(&mut FakeVmcs, &mut GuestRegs)>;

/// What the processor saw at one entry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) which: Which,
    pub(super) event: EventInfo,
    pub(super) error_code: u32,
    pub(super) primary: u32,
    pub(super) timer: u32,
    pub(super) rip: u64,
}

/// A processor that plays a script: each entry takes the next exit; after the last one the guest triple-faults. An entry
/// that would fail on the processor with these capabilities fails the test.
pub(super) struct FakeCpu {
    capabilities: Capabilities,
    physical_address_bits: u8,
    /// The current VMCS: vmcs01, unless L1 has VMX and L2 runs.
    pub(super) vmcs: FakeVmcs,
    /// The others, each in its place.
    others: [FakeVmcs; 2],
    shadow: FakeVmcs,
    current: Which,
    launched: [bool; 2],
    ept02: ept::Shadows<TableFrames>,
    pub(super) script: VecDeque<Step>,
    /// The entry into L2 with this number, from 0, is refused, after what another processor does.
    pub(super) refusal: Option<(usize, Box<dyn FnOnce()>)>,
    pub(super) entries: Vec<Entry>,
    pub(super) tsc: u64,
    pub(super) cr2: u64,
    pub(super) dr6: u64,
    pub(super) has_breakpoints: bool,
    pub(super) xcr0: u64,
    pub(super) interrupts: Vec<u8>,
    pub(super) nmis: u32,
}

impl FakeCpu {
    /// The guest runs and exits for `reason`; `prepare` sets what the exit brings.
    pub(super) fn exit(&mut self, reason: ExitReason, prepare: impl FnOnce(&mut FakeVmcs, &mut GuestRegs) + 'static) {
        self.script.push_back(Box::new(move |vmcs, regs| {
            vmcs.write(EXIT_REASON, u32::from(reason.0));
            prepare(vmcs, regs);
        }));
    }

    /// Fails the test if a VM entry would fail now, with the rule that is broken.
    pub(super) fn assert_can_enter(&self) {
        let memory = testkit::FakeMemory::new();
        let environment = Environment::new(&self.capabilities, self.physical_address_bits, CURRENT_VMCS, &memory);
        // In a copy, so that these reads are not among those of the run loop.
        if let Some(rule) = checks::first_broken(&self.vmcs.clone(), &environment) {
            panic!("VM entry would fail: {rule}");
        }
    }
}

impl nested::Processor for FakeCpu {
    type Vmcs = FakeVmcs;
    type Tables = TableFrames;

    fn vmcs(&mut self) -> &mut FakeVmcs {
        &mut self.vmcs
    }

    fn make_current(&mut self, which: Which) {
        self.others[self.current as usize] = core::mem::take(&mut self.vmcs);
        self.vmcs = core::mem::take(&mut self.others[which as usize]);
        self.current = which;
    }

    fn with_shadow(&mut self, then: Which, work: impl FnOnce(&mut FakeVmcs)) {
        work(&mut self.shadow);
        if then != self.current {
            self.make_current(then);
        }
    }

    fn tsc(&self) -> u64 {
        self.tsc
    }

    fn flush_l1(&mut self) {}
    fn flush_l2(&mut self) {}
    fn flush_l2_address(&mut self, _: u64) {}

    fn ept02(&mut self) -> &mut ept::Shadows<TableFrames> {
        &mut self.ept02
    }

    fn flush_ept(&mut self, _: u64) {}
}

impl Cpu for FakeCpu {
    fn enter(&mut self, regs: &mut GuestRegs, launched: bool) -> Result<(), EntryRefused> {
        let entered02 = self.entries.iter().filter(|entry| entry.which == Which::Vmcs02).count();
        if let Some((_, act)) =
            self.refusal.take_if(|(number, _)| self.current == Which::Vmcs02 && *number == entered02)
        {
            act();
            self.vmcs.forget_reads();
            return Err(EntryRefused::Error);
        }
        let was_launched = core::mem::replace(&mut self.launched[self.current as usize], true);
        assert_eq!(launched, was_launched, "VMLAUNCH first, VMRESUME after");
        self.assert_can_enter();
        self.entries.push(Entry {
            which: self.current,
            event: EventInfo(self.vmcs.read(VM_ENTRY_INTERRUPTION_INFO)),
            error_code: self.vmcs.read(VM_ENTRY_EXCEPTION_ERROR_CODE),
            primary: self.vmcs.read(CPU_BASED_VM_EXEC_CONTROL),
            timer: self.vmcs.read(VMX_PREEMPTION_TIMER_VALUE),
            rip: self.vmcs.read(GUEST_RIP),
        });
        // A VM exit clears the valid bit of the injected event.
        self.vmcs.write(VM_ENTRY_INTERRUPTION_INFO, 0);
        self.vmcs.write(IDT_VECTORING_INFO, 0);
        self.tsc += 10;
        match self.script.pop_front() {
            Some(step) => step(&mut self.vmcs, regs),
            None => self.vmcs.write(EXIT_REASON, u32::from(ExitReason::TRIPLE_FAULT.0)),
        }
        self.vmcs.forget_reads();
        Ok(())
    }

    fn guest_msr(&self, _: Msr) -> Option<u64> {
        None
    }

    fn set_guest_msr(&mut self, _: Msr, _: u64) -> bool {
        false
    }

    fn machine_msr(&self, _: Msr) -> Option<u64> {
        None
    }

    fn set_xcr0(&mut self, value: u64) {
        self.xcr0 = value;
    }

    fn set_cr2(&mut self, value: u64) {
        self.cr2 = value;
    }

    fn dr6(&self) -> u64 {
        self.dr6
    }

    fn set_dr6(&mut self, value: u64) {
        self.dr6 = value;
    }

    fn clear_breakpoint_addresses(&mut self) {
        self.has_breakpoints = false;
    }

    fn write_back_caches(&mut self) {}

    fn flush_vpid(&mut self) {}

    fn machine_interrupt(&mut self, vector: u8) {
        self.interrupts.push(vector);
    }

    fn machine_nmi(&mut self) {
        self.nmis += 1;
    }

    fn machine_check(&mut self) {
        unreachable!("no test raises one");
    }
}

/// What CPUID returns on the fake processor: every feature, x87, SSE and AVX state.
fn cpuid(leaf: u32, _: u32) -> CpuidResult {
    let all = CpuidResult { eax: u32::MAX, ebx: u32::MAX, ecx: u32::MAX, edx: u32::MAX };
    match leaf {
        0 => CpuidResult { eax: 0x16, ..all },
        0xd => CpuidResult { eax: 7, ebx: 576, ecx: 0, edx: 0 },
        0x8000_0000 => CpuidResult { eax: 0x8000_0008, ..all },
        0x8000_0008 => CpuidResult { eax: 0x3028, ..all },
        _ => all,
    }
}

/// How the processor takes in what is posted to L2.
pub(super) const POSTING: nested::Posting = nested::Posting { notification: 0xf2, alignment: 64 };

/// A vCPU in 32-bit protected mode at 0x10_0000 with interrupts off, its processor and its VM.
pub(super) struct Bench {
    pub(super) vcpu: Vcpu,
    pub(super) cpu: FakeCpu,
    pub(super) world: FakeWorld,
}

impl Bench {
    /// On a processor that has everything.
    pub(super) fn new(index: u16) -> Self {
        Self::on(cpuid, Capabilities::read(testkit::capability_msrs), index)
    }

    /// The same, with an L1 in 64-bit mode that has executed VMXON at 0x5_0000 and VMPTRLD at 0x5_1000, and written
    /// [`FakeVmcs::valid`] with what `change` makes of it.
    pub(super) fn with_vmx(index: u16, change: impl FnOnce(&mut FakeVmcs)) -> Self {
        let machine = Capabilities::read(testkit::capability_msrs);
        let mut vmcs12 = FakeVmcs::valid();
        change(&mut vmcs12);
        Self::made(cpuid, machine, index, Some(vmcs12))
    }

    /// On the processor with this CPUID and these capabilities.
    pub(super) fn on(cpuid: impl Fn(u32, u32) -> CpuidResult, machine: Capabilities, index: u16) -> Self {
        Self::made(cpuid, machine, index, None)
    }

    fn made(
        cpuid: impl Fn(u32, u32) -> CpuidResult,
        machine: Capabilities,
        index: u16,
        vmcs12: Option<FakeVmcs>,
    ) -> Self {
        let controls = Controls::choose(&machine).expect("this machine has what is required");
        let mut vmcs = FakeVmcs::new();
        vmcs.set_host();
        let mut cpu = FakeCpu {
            capabilities: machine,
            physical_address_bits: cpuid(0x8000_0008, 0).eax.to_le_bytes()[0],
            vmcs,
            others: [FakeVmcs::of(&machine), FakeVmcs::of(&machine)],
            shadow: FakeVmcs::of(&machine),
            current: Which::Vmcs01,
            launched: [false; 2],
            ept02: ept::Shadows::new(TableFrames::default()).expect("enough frames"),
            script: VecDeque::new(),
            refusal: None,
            entries: Vec::new(),
            tsc: 1000,
            cr2: 0,
            dr6: 0,
            has_breakpoints: false,
            xcr0: 1,
            interrupts: Vec::new(),
            nmis: 0,
        };
        let frequencies = Frequencies { tsc_hz: 100_000_000, bus_hz: 100_000_000 };
        let identity = Identity {
            index,
            cpus: 2,
            frequencies,
            has_vmx: vmcs12.is_some(),
            gets_kicks: true,
            repairs_lost_rip: true,
            writable_xapic_id: false,
        };
        let mut vcpu = Vcpu::new(cpuid, &machine, &controls, identity);
        let page = HostPhys(0x1000);
        let pages =
            Pages { eptp: 0x201e, msr_bitmap: page, io_bitmap_a: page, io_bitmap_b: page, shadowing: None, vpid: 1 };
        vcpu.write_vmcs(&mut cpu, &controls, &pages);
        if index == 0 {
            let flat = |selector, rights| Segment { selector, base: 0, limit: u32::MAX, rights: AccessRights(rights) };
            let (code, data) = (flat(0x10, 0xc09b), flat(0x18, 0xc093));
            vcpu.start_flat(&mut cpu, FlatStart { eip: 0x10_0000, code, data, ..FlatStart::default() });
        }
        let memory = Ram::new();
        if let Some(vmcs12) = vmcs12 {
            start_64_bit(&mut cpu.vmcs);
            cpu.others[Which::Vmcs02 as usize].set_host();
            let base = vcpu.nested_base(&controls, &pages, 2, false, Some(POSTING));
            vcpu.give_vmx(nested(&machine, base, &mut cpu, &memory, &vmcs12));
        }
        let world = FakeWorld {
            memory,
            mailbox: Box::leak(Box::default()),
            ports: RefCell::default(),
            reports: RefCell::default(),
            deadline: Cell::new(u64::MAX),
            ticks: RefCell::default(),
            pic: Cell::new(None),
            stop: None,
            l2_takes_posts: Cell::new(None),
        };
        Self { vcpu, cpu, world }
    }

    /// Runs until the vCPU leaves.
    pub(super) fn run(&mut self) -> Left {
        self.vcpu.run(&mut self.cpu, &self.world, u64::MAX)
    }

    /// Runs to the end of the script.
    pub(super) fn run_script(&mut self) -> &[Entry] {
        assert_eq!(self.run(), Left::Stop(Stop::TripleFault), "the end of the script");
        &self.cpu.entries
    }

    /// Turns the guest's interrupts on and its APIC.
    pub(super) fn with_interrupts(mut self) -> Self {
        self.cpu.vmcs.write(GUEST_RFLAGS, 0x202);
        self.vcpu.apic.registers().write_mmio(0xf0, Width::Dword, 0x1ff, 0, &self.world);
        self
    }
}

/// The exit of an instruction of `length` bytes.
pub(super) fn of_length(length: u32) -> impl FnOnce(&mut FakeVmcs, &mut GuestRegs) + 'static {
    move |vmcs, _| vmcs.write(VM_EXIT_INSTRUCTION_LEN, length)
}

/// L1 in 64-bit mode at privilege level 0, its interrupts off.
pub(super) fn start_64_bit(vmcs: &mut FakeVmcs) {
    vmcs.set_guest();
    vmcs.write(GUEST_RFLAGS, 2);
    vmcs.write(GUEST_CR4, 0x2060);
    vmcs.write(CR4_READ_SHADOW, 0x2020);
    vmcs.write(CR0_READ_SHADOW, 0x8001_0033);
    let entry = EntryControls::from_bits_retain(vmcs.read(VM_ENTRY_CONTROLS));
    vmcs.write(VM_ENTRY_CONTROLS, (entry | EntryControls::IA32E_MODE_GUEST).bits());
}

/// Nested VMX of an L1 that has a current VMCS with these values.
fn nested(
    machine: &Capabilities,
    base: nested::Base,
    cpu: &mut FakeCpu,
    memory: &Ram,
    vmcs12: &FakeVmcs,
) -> &'static mut Nested {
    let page = |at| Page { words: Box::leak(Box::new([0; 512])), at: HostPhys(at) };
    let bitmap01 = Box::leak(Box::new([u64::MAX; 512]));
    let pages = nested::Pages::new(page(0x2000), bitmap01, page(0x3000), None);
    let nested = Box::leak(Box::new(Nested::new(machine, base, pages)));
    for region in [0x5_0000, 0x5_1000] {
        memory.set(region, nested::REVISION.into());
    }
    assert_eq!(nested.vmxon(cpu, memory, 0x5_0000), nested::Outcome::Succeed);
    assert_eq!(nested.vmptrld(cpu, memory, 0x5_1000), nested::Outcome::Succeed);
    for (encoding, value) in vmcs12.values() {
        assert_eq!(nested.vmwrite(cpu, encoding.0.into(), value), nested::Outcome::Succeed, "{encoding:?}");
    }
    nested
}
