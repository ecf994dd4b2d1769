//! What an L1 and its L2 do, step by step, and what of it can be observed.

use arch::control::{Cr0, Cr4, Efer};
use nested::{Entry, Outcome, Synthesized, Which};
use testkit::{FakeVmcs, NestedBench};
use vmcs::controls::{EntryControls, ExitControls, PinBased, PrimaryBased, SecondaryBased};
use vmcs::field::Group;
use vmcs::fields::*;
use vmcs::{Access, Capabilities, Encoding, EventInfo, ExitReason};

mod steps;

pub(crate) use steps::{Change, Step, any_step};

/// What of a step can be observed.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Seen {
    Nothing,
    Entry(Entry),
    Vmcs02(Vec<(Encoding, u64)>),
    Exit(Vec<(Encoding, u64)>),
    Aborted,
    Vmcs12(Vec<(Encoding, u64)>),
    Outcome(Outcome),
}

/// How a driver does what can be done in two ways.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Manner {
    /// L0 uses VMCS shadowing.
    pub(crate) shadowing: bool,
    /// L1 reads all fields after each exit.
    pub(crate) eager: bool,
    /// L1 leaves its VMCS and comes back before each entry, so that vmcs02 is made from nothing.
    pub(crate) from_scratch: bool,
    /// The vCPU can be moved.
    pub(crate) moves: bool,
}

/// An L1 that does what it is told.
pub(crate) struct Driver {
    pub(crate) bench: NestedBench,
    manner: Manner,
    launched: bool,
    undo: Vec<(Encoding, u64)>,
    /// A VMX abort ended this L1.
    is_shut_down: bool,
}

impl Driver {
    pub(crate) fn on(bench: NestedBench, manner: Manner) -> Self {
        let bench = bench.with_valid_vmcs12();
        // A list that can be loaded, and one that cannot be loaded to its end: IA32_PAT and IA32_SYSENTER_EIP.
        for (at, word) in
            (LISTS..).step_by(8).zip([0x277, 0x0606, 0x176, 0x1234, 0x277, 0x0505, 0x176, 0x4321, 0xffff, 0])
        {
            bench.ram.set(at, word);
        }
        Self { bench, manner, launched: false, undo: Vec::new(), is_shut_down: false }
    }

    /// Does a step, if it can be done now.
    pub(crate) fn step(&mut self, step: &Step) -> Vec<Seen> {
        let in_l2 = self.bench.nested.in_l2();
        if self.is_shut_down {
            return Vec::new();
        }
        match step {
            Step::Write(encoding, value) if !in_l2 => self.write(*encoding, *value),
            Step::Enter if !in_l2 => return self.enter(),
            Step::Exit(changes, reason, information) if in_l2 => {
                // Without EPT of L1's nothing of EPT is L1's.
                let is_ept = *reason == ExitReason::EPT_VIOLATION && self.bench.nested.ept12().is_none();
                let reason = if is_ept { ExitReason::CPUID } else { *reason };
                self.run(changes, reason, *information);
                return self.after_exit(|bench| bench.reflect().is_err());
            }
            Step::Synthesized(changes, reason) if in_l2 => {
                self.run(changes, ExitReason::EXTERNAL_INTERRUPT, 0);
                let exit = Synthesized { reason: *reason, qualification: 5, ..Synthesized::default() };
                return self.after_exit(|bench| bench.synthesize(exit).is_err());
            }
            Step::ReadAll if !in_l2 => return vec![self.vmcs12()],
            Step::Leave if !in_l2 => self.leave(),
            Step::Clear if !in_l2 => {
                self.launched = false;
                let cleared = self.bench.vmclear(NestedBench::VMCS);
                return vec![Seen::Outcome(cleared), Seen::Outcome(self.bench.vmptrld(NestedBench::VMCS))];
            }
            Step::Own(which, value) if !in_l2 => self.own(*which, *value),
            Step::Memory(at, value) => self.bench.ram.set(*at, *value),
            Step::Move if self.manner.moves => self.move_away(),
            Step::Wait(ticks) => self.bench.cpu.tsc += u64::from(*ticks),
            _ => {}
        }
        vec![Seen::Nothing]
    }

    fn write(&mut self, encoding: Encoding, value: u64) {
        if let Ok(old) = self.bench.read_raw(encoding) {
            if encoding.area() == vmcs::field::Area::ReadOnly {
                return;
            }
            self.undo.push((encoding, old));
            self.bench.write_raw(encoding, value);
        }
    }

    fn move_away(&mut self) {
        let mut bytes = [0; nested::SAVED_BYTES];
        self.bench.nested.save(&mut self.bench.cpu, &mut bytes);
        let old = core::mem::replace(&mut self.bench, NestedBench::new(false));
        let mut bench = old.moved();
        bench.nested.restore(&mut bench.cpu, &bench.ram, &bytes, &bench.l1).expect("what was saved a moment ago");
        self.bench = bench;
    }

    fn leave(&mut self) {
        assert_eq!(self.bench.vmptrld(NestedBench::OTHER), Outcome::Succeed);
        assert_eq!(self.bench.vmptrld(NestedBench::VMCS), Outcome::Succeed);
    }

    fn enter(&mut self) -> Vec<Seen> {
        // Read through the other way of VMREAD, so that nothing becomes less lazy by it.
        let expected = self.manner.eager.then(|| self.bench.broken_rule());
        if self.manner.from_scratch {
            self.leave();
        }
        let entry = self.bench.enter(!self.launched);
        let mut seen = vec![Seen::Entry(entry)];
        if let Entry::Entered { .. } = entry {
            self.launched = true;
            self.undo.clear();
            self.bench.assert_vmcs02_is_valid();
            if let Some(rule) = expected {
                assert!(rule.is_none(), "an entry was made that breaks {:?}", rule.map(|rule| rule.name()));
            }
            let vmcs02 = self.bench.vmcs(Which::Vmcs02);
            let counted = in_force(vmcs02);
            for (encoding, _) in &counted {
                // VMCLEAR of a fresh region leaves all fields undefined.
                assert!(vmcs02.values().any(|(written, _)| written == *encoding), "nobody has written {encoding:?}");
            }
            seen.push(Seen::Vmcs02(counted));
        } else if let Entry::Aborted(_) = entry {
            self.is_shut_down = true;
        } else {
            assert_eq!(self.bench.cpu.current(), Which::Vmcs01);
            if let Some(rule) = expected {
                let refused = self.bench.refused.last().copied().flatten();
                assert_eq!(rule.map(|rule| rule.name()), refused.map(|rule| rule.name()));
            }
            seen.push(Seen::Exit(in_force(self.bench.vmcs(Which::Vmcs01))));
            seen.push(self.vmcs12());
            for (encoding, old) in core::mem::take(&mut self.undo).into_iter().rev() {
                self.bench.write_raw(encoding, old);
            }
        }
        seen
    }

    fn run(&mut self, changes: &[Change], reason: ExitReason, information: u64) {
        let (cr0_mask, unrestricted) = (self.bench.nested.cr0_mask(), self.bench.nested.is_unrestricted());
        self.bench.run_l2(reason, |vmcs02| {
            vmcs02.write(EXIT_QUALIFICATION, information);
            vmcs02.write_raw(VM_EXIT_INSTRUCTION_LEN.encoding(), information & 15);
            vmcs02.write_raw(VM_EXIT_INSTRUCTION_INFO.encoding(), information);
            vmcs02.write(GUEST_LINEAR_ADDRESS, information << 1);
            vmcs02.write(GUEST_PHYSICAL_ADDRESS, information & 0xffff_f000);
            if reason == ExitReason::EXCEPTION_OR_NMI {
                vmcs02.write(VM_EXIT_INTERRUPTION_INFO, EventInfo::hardware_exception(arch::Vector(13), true).0);
                vmcs02.write_raw(VM_EXIT_INTERRUPTION_ERROR_CODE.encoding(), information & 0xffff);
            }
            changes.iter().for_each(|change| apply(vmcs02, change, cr0_mask, unrestricted));
        });
    }

    fn after_exit(&mut self, exit: impl FnOnce(&mut NestedBench) -> bool) -> Vec<Seen> {
        let aborted = exit(&mut self.bench);
        if aborted {
            self.is_shut_down = true;
            return vec![Seen::Aborted];
        }
        assert_eq!(self.bench.cpu.current(), Which::Vmcs01);
        let vmcs01 = in_force(self.bench.vmcs(Which::Vmcs01));
        if self.manner.eager {
            self.vmcs12();
        }
        vec![Seen::Exit(vmcs01)]
    }

    fn vmcs12(&mut self) -> Seen {
        Seen::Vmcs12(self.bench.vmcs12().values().collect())
    }

    /// L1's own registers, which stand in vmcs01.
    fn own(&mut self, which: u8, value: u64) {
        let vmcs01 = self.bench.cpu.vmcs_of_mut(Which::Vmcs01);
        match which % 4 {
            0 => vmcs01.write(GUEST_DR7, value & 0xff | 0x400),
            1 => vmcs01.write(GUEST_IA32_PAT, PATS[(value % 4) as usize]),
            2 => {
                let shadow = vmcs01.read(CR0_READ_SHADOW);
                vmcs01.write(CR0_READ_SHADOW, shadow ^ Cr0::CD.bits());
            }
            _ => {
                let efer = vmcs01.read(GUEST_IA32_EFER);
                vmcs01.write(GUEST_IA32_EFER, efer ^ Efer::NXE.bits());
            }
        }
    }
}

/// Where there are lists of MSRs.
const LISTS: u64 = 0x6_0000;

const PATS: [u64; 4] = [0x0007_0406_0007_0406, 0x0606_0606_0606_0606, 0, 0x0007_0505_0001_0406];

/// L2 changes its state, as far as the processor lets it without an exit.
fn apply(vmcs02: &mut FakeVmcs, change: &Change, cr0_mask: u64, unrestricted: bool) {
    match *change {
        Change::Field(encoding, value) => vmcs02.write_raw(encoding, value),
        Change::Cr0(bits) => {
            let free = (Cr0::TS | Cr0::MP | Cr0::EM | Cr0::AM).bits() & !vmcs02.read(CR0_GUEST_HOST_MASK);
            let cr0 = vmcs02.read(GUEST_CR0);
            vmcs02.write(GUEST_CR0, cr0 ^ bits & free);
        }
        Change::Cr4(bits) => {
            let free =
                (Cr4::TSD | Cr4::DE | Cr4::PGE | Cr4::PCE | Cr4::OSFXSR).bits() & !vmcs02.read(CR4_GUEST_HOST_MASK);
            let cr4 = vmcs02.read(GUEST_CR4);
            vmcs02.write(GUEST_CR4, cr4 ^ bits & free);
        }
        Change::CacheDisable => {
            let shadow = vmcs02.read(CR0_READ_SHADOW);
            vmcs02.write(CR0_READ_SHADOW, shadow ^ Cr0::CD.bits() & !cr0_mask);
        }
        Change::Efer(bits) => {
            let efer = vmcs02.read(GUEST_IA32_EFER);
            vmcs02.write(GUEST_IA32_EFER, efer ^ bits & (Efer::SCE | Efer::NXE).bits());
        }
        Change::VirtualInterrupts(status) => {
            if vmcs02.read(SECONDARY_VM_EXEC_CONTROL) & SecondaryBased::VIRTUAL_INTERRUPT_DELIVERY.bits() != 0 {
                vmcs02.write(GUEST_INTERRUPT_STATUS, status);
            }
        }
        Change::Flags(bits) => {
            let flags = vmcs02.read(GUEST_RFLAGS);
            vmcs02.write(GUEST_RFLAGS, flags ^ bits & 0xcd5);
        }
        Change::Mode => {
            if !unrestricted || vmcs02.read(CR0_GUEST_HOST_MASK) & Cr0::PG.bits() != 0 {
                return;
            }
            let long = vmcs02.read(GUEST_IA32_EFER) & Efer::LMA.bits() != 0;
            let (cr0, efer) = (vmcs02.read(GUEST_CR0), vmcs02.read(GUEST_IA32_EFER));
            vmcs02.write(GUEST_CR0, if long { cr0 & !Cr0::PG.bits() } else { cr0 | Cr0::PG.bits() });
            let modes = (Efer::LMA | Efer::LME).bits();
            vmcs02.write(GUEST_IA32_EFER, if long { efer & !modes } else { efer | modes });
            vmcs02.write(GUEST_CS_ACCESS_RIGHTS, if long { 0xc09b } else { 0xa09b });
            let cr4 = vmcs02.read(GUEST_CR4);
            vmcs02.write(GUEST_CR4, (cr4 | Cr4::PAE.bits()) & !Cr4::PCIDE.bits());
            vmcs02.write(GUEST_RIP, 0x1000);
        }
    }
}

/// The fields of a VMCS that count by its own controls, but those of the machine's host and of the last exit, and the tables
/// and pages that are L0's.
pub(crate) fn in_force(vmcs: &FakeVmcs) -> Vec<(Encoding, u64)> {
    let values = vmcs.clone();
    let mut controls = Capabilities::read(testkit::capability_msrs);
    controls.pin.allowed1 = PinBased::from_bits_retain(vmcs.read(PIN_BASED_VM_EXEC_CONTROL));
    controls.primary.allowed1 = PrimaryBased::from_bits_retain(vmcs.read(CPU_BASED_VM_EXEC_CONTROL));
    controls.secondary.allowed1 = SecondaryBased::from_bits_retain(vmcs.read(SECONDARY_VM_EXEC_CONTROL));
    controls.exit.allowed1 = ExitControls::from_bits_retain(vmcs.read(VM_EXIT_CONTROLS));
    controls.entry.allowed1 = EntryControls::from_bits_retain(vmcs.read(VM_ENTRY_CONTROLS));
    // L0 has no use for these.
    controls.tertiary = vmcs::capabilities::Allowed::default();
    controls.secondary_exit = vmcs::capabilities::Allowed::default();
    controls.vm_functions = 0;
    let targets = u64::from(vmcs.read(CR3_TARGET_COUNT));
    controls.misc.0 = controls.misc.0 & !(0x1ff << 16) | targets << 16;
    let has_event = EventInfo(vmcs.read(VM_ENTRY_INTERRUPTION_INFO)).is_valid();
    let pae = vmcs.read(GUEST_CR4) & Cr4::PAE.bits() != 0
        && vmcs.read(GUEST_CR0) & Cr0::PG.bits() != 0
        && vmcs.read(GUEST_IA32_EFER) & Efer::LMA.bits() == 0;
    let counts = |encoding: Encoding| {
        let is = |fields: &[Encoding]| fields.contains(&encoding);
        let event = is(&[
            VM_ENTRY_INTERRUPTION_INFO.encoding(),
            VM_ENTRY_EXCEPTION_ERROR_CODE.encoding(),
            VM_ENTRY_INSTRUCTION_LEN.encoding(),
        ]);
        let pdpte = is(&[GUEST_PDPTE0, GUEST_PDPTE1, GUEST_PDPTE2, GUEST_PDPTE3].map(|field| field.encoding()));
        let own = is(&[
            EPT_POINTER.encoding(),
            VMX_PREEMPTION_TIMER_VALUE.encoding(),
            VMCS_LINK_POINTER.encoding(),
            VMREAD_BITMAP.encoding(),
            VMWRITE_BITMAP.encoding(),
            // Of use in SMM only.
            GUEST_SMBASE.encoding(),
            EXECUTIVE_VMCS_POINTER.encoding(),
        ]);
        let ports = is(&[IO_BITMAP_A.encoding(), IO_BITMAP_B.encoding()])
            && !controls.primary.supports(PrimaryBased::USE_IO_BITMAPS);
        let list = is(&[VM_EXIT_MSR_STORE_ADDR.encoding()]) && values.read(VM_EXIT_MSR_STORE_COUNT) == 0
            || is(&[VM_EXIT_MSR_LOAD_ADDR.encoding()]) && values.read(VM_EXIT_MSR_LOAD_COUNT) == 0
            || is(&[VM_ENTRY_MSR_LOAD_ADDR.encoding()]) && values.read(VM_ENTRY_MSR_LOAD_COUNT) == 0;
        !own && !ports && !list && (has_event || !event) && (pae || !pdpte)
    };
    FIELDS
        .iter()
        .filter(|field| !matches!(field.group, Group::Host | Group::ExitInformation))
        .filter(|field| controls.has_field(field) && counts(field.encoding))
        .map(|field| {
            let ignored = match field.encoding {
                // Where L0 uses VMCS shadowing, vmcs01 says so.
                it if it == SECONDARY_VM_EXEC_CONTROL.encoding() => SecondaryBased::VMCS_SHADOWING.bits().into(),
                // Of the read shadows the bits count that the host owns.
                it if it == CR0_READ_SHADOW.encoding() => !values.read(CR0_GUEST_HOST_MASK),
                it if it == CR4_READ_SHADOW.encoding() => !values.read(CR4_GUEST_HOST_MASK),
                _ => 0,
            };
            (field.encoding, values.read_raw(field.encoding) & !ignored)
        })
        .collect()
}

/// Fails the test with the first difference.
pub(crate) fn assert_same(seen: &[Seen], expected: &[Seen], number: usize, step: &Step) {
    for (seen, expected) in seen.iter().zip(expected) {
        let (a, b) = match (seen, expected) {
            (Seen::Vmcs02(a), Seen::Vmcs02(b))
            | (Seen::Vmcs12(a), Seen::Vmcs12(b))
            | (Seen::Exit(a), Seen::Exit(b)) => (a, b),
            _ => {
                assert_eq!(seen, expected, "at step {number}, {step:?}");
                continue;
            }
        };
        for (a, b) in a.iter().zip(b) {
            assert!(a == b, "at step {number}, {step:?}: {:?} is {:#x} and {:?} {:#x}", a.0, a.1, b.0, b.1);
        }
        assert_eq!(a.len(), b.len());
    }
    assert_eq!(seen.len(), expected.len());
}
