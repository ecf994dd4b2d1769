//! What is tested, on the processor of [`machine`](super::machine), beside the oracle.

use std::cell::RefCell;

use arch::apic::{Message, Register};
use arch::{HostPhys, Msr, Width};
use vlapic::{
    Bus, Directory, Frequencies, Hardware, Identity, Inhibits, LocalApic, Reason, VectorSet, VirtualApicPage,
};
use vmcs::Access;
use vmcs::controls::{PrimaryBased, SecondaryBased};
use vmcs::fields::*;

use super::event::Event;
use super::machine::{self, Done, Vmcs, Way};
use super::mistakes::Mistake;
use super::oracle::{EDGE, LEVEL, Mode8, Oracle};
use super::state::{System, VCPUS, Vcpu};
use crate::current::Vmcs01;
use crate::deferred_apicv::{Deferred, Update};
use crate::l1_apic::{ApicPages, L1Apic};

/// What states share: memory that only one of them uses at a time.
pub(super) struct Bench {
    pub(super) hardware: Hardware,
    pub(super) pages: [&'static VirtualApicPage; VCPUS],
    pub(super) inhibits: Inhibits,
    directory: Directory<VCPUS>,
    pub(super) mistake: Option<Mistake>,
}

/// The vectors of whose end the IOAPICs heard.
#[derive(Default)]
struct Ear(RefCell<Vec<u8>>);

impl Bus for Ear {
    fn send(&self, _: Message) {}

    fn end_of_interrupt(&self, vector: u8) {
        self.0.borrow_mut().push(vector);
    }

    fn published(&self, _: Identity) {}
}

const ENABLED: u64 = 1 << 11;
const EXTENDED: u64 = 1 << 10;

impl Bench {
    pub(super) fn new(hardware: Hardware, mistake: Option<Mistake>) -> Self {
        Self {
            hardware,
            pages: std::array::from_fn(|_| &*Box::leak(Box::new(VirtualApicPage::new()))),
            inhibits: Inhibits::new(),
            directory: Directory::new(),
            mistake,
        }
    }

    fn apic_pages(&self, index: usize) -> ApicPages {
        ApicPages {
            hardware: self.hardware,
            virtual_apic: self.pages[index],
            eptp: machine::EPTP,
            eptp_with_apic: machine::EPTP_WITH_APIC,
            msr_bitmaps: [machine::BITMAP_NONE, machine::BITMAP_TPR, machine::BITMAP_ALL].map(HostPhys),
        }
    }

    /// Both vCPUs in L1, their APICs enabled.
    pub(super) fn start(&self) -> System {
        let vcpus = std::array::from_fn(|index| {
            let features = vlapic::Features { writable_xapic_id: true, ..vlapic::Features::DEFAULT };
            let frequencies = Frequencies { tsc_hz: 1, bus_hz: 1 };
            let registers = LocalApic::new(u32::from(index == 1), index == 0, frequencies).with_features(features);
            let mut vcpu = Vcpu {
                apic: L1Apic::new(registers),
                page: (VectorSet::EMPTY, VectorSet::EMPTY, 0),
                vmcs01: Vmcs::default(),
                vmcs02: Vmcs::default(),
                deferred: Deferred::default(),
                in_l2: false,
                posted: false,
                owed: false,
                window: false,
                oracle: Oracle::NEW,
            };
            self.prepare(&mut vcpu, index);
            enable(&mut vcpu);
            vcpu
        });
        let mut system = System { vcpus, blocked: false, hyper_v: [false; VCPUS] };
        self.impose(&system);
        self.settle(&mut system);
        system
    }

    /// Fresh VMCSs, as L0 writes them before the first entry; what vmcs12 asked for stands in vmcs02.
    fn prepare(&self, vcpu: &mut Vcpu, index: usize) {
        vcpu.apic.give_pages(self.apic_pages(index));
        let mut primary = PrimaryBased::HLT_EXITING;
        primary.set(PrimaryBased::USE_TPR_SHADOW, self.hardware.tpr_shadow);
        vcpu.vmcs01 = Vmcs::default();
        vcpu.vmcs01.write(CPU_BASED_VM_EXEC_CONTROL, primary.bits());
        vcpu.vmcs01.write(SECONDARY_VM_EXEC_CONTROL, SecondaryBased::ENABLE_EPT.bits());
        vcpu.vmcs01.write(EPT_POINTER, machine::EPTP);
        vcpu.vmcs01.write(MSR_BITMAP, machine::BITMAP_NONE);
        vcpu.vmcs02 = vmcs02();
    }

    /// The shared memory becomes that of `system`.
    fn impose(&self, system: &System) {
        let _ = self.inhibits.set_for_vm(Reason::BlockIrq, system.blocked);
        for (index, vcpu) in system.vcpus.iter().enumerate() {
            self.directory.publish(index, vcpu.apic.settings().identity());
            let page = self.pages[index];
            page.set_vectors(Register::IRR, &vcpu.page.0);
            page.set_vectors(Register::ISR, &vcpu.page.1);
            page.write(Register::TPR, vcpu.page.2);
            // No test looks at the command register.
            page.write(Register::ICR, 0);
            page.write(Register::ICR_HIGH, 0);
        }
        for (index, vcpu) in system.vcpus.iter().enumerate() {
            let _ = self.inhibits.set_for_vcpu(index, Reason::HyperV, system.hyper_v[index]);
            let _ = self.inhibits.set_by_registers(index, vcpu.apic.settings(), &self.directory);
        }
    }

    /// What follows from `event` on vCPU `index`; `None` where it cannot happen.
    ///
    /// # Panics
    /// When an invariant does not hold afterwards.
    pub(super) fn after(&self, system: &System, index: usize, event: Event) -> Option<System> {
        self.after_unchecked(system, index, event).inspect(|next| self.check(next))
    }

    /// The same, without a look at the invariants; [`check`](Self::check) may follow, while the shared memory is the new
    /// system's.
    ///
    /// # Panics
    /// When what the event brought is not what the oracle says.
    pub(super) fn after_unchecked(&self, system: &System, index: usize, event: Event) -> Option<System> {
        self.impose(system);
        let mut next = system.clone();
        let ear = Ear::default();
        let mut heard = Vec::new();
        if !self.happen(&mut next, index, event, &ear, &mut heard) {
            return None;
        }
        assert_eq!(*ear.0.borrow(), heard, "ends of interrupts that the IOAPICs heard of");
        self.impose_reasons(&next);
        self.settle(&mut next);
        for (vcpu, page) in next.vcpus.iter_mut().zip(self.pages) {
            vcpu.page = (page.vectors(Register::IRR), page.vectors(Register::ISR), page.read(Register::TPR));
        }
        Some(next)
    }

    fn impose_reasons(&self, system: &System) {
        let _ = self.inhibits.set_for_vm(Reason::BlockIrq, system.blocked);
        for (index, vcpu) in system.vcpus.iter().enumerate() {
            self.directory.publish(index, vcpu.apic.settings().identity());
            let _ = self.inhibits.set_for_vcpu(index, Reason::HyperV, system.hyper_v[index]);
        }
        for (index, vcpu) in system.vcpus.iter().enumerate() {
            let _ = self.inhibits.set_by_registers(index, vcpu.apic.settings(), &self.directory);
        }
    }

    fn happen(&self, system: &mut System, index: usize, event: Event, ear: &Ear, heard: &mut Vec<u8>) -> bool {
        let page = self.pages[index];
        let base_modified = system.vcpus[index].oracle.base_modified;
        match event {
            Event::HyperV(on) => {
                let changes = system.hyper_v[index] != on;
                system.hyper_v[index] = on;
                return changes;
            }
            Event::Block(on) => {
                let changes = system.blocked != on;
                system.blocked = on;
                return changes && index == 0;
            }
            _ => {}
        }
        let vcpu = &mut system.vcpus[index];
        let way = if vcpu.oracle.mode == Mode8::X2apic { Way::Msr } else { Way::Page };
        match event {
            Event::Cr8(class) => {
                vcpu.oracle.tpr = class << 4;
                let done = if vcpu.in_l2 { Done::Exit } else { machine::set_cr8(&vcpu.vmcs01, page, class) };
                match done {
                    Done::Exit => {
                        vcpu.apic.registers().set_cr8(class.into(), ear).expect("a class");
                        self.attend(vcpu);
                    }
                    Done::BelowThreshold => self.attend(vcpu),
                    Done::Yes | Done::Ended(_) => {}
                }
            }
            Event::Eoi if vcpu.oracle.mode != Mode8::Disabled && vcpu.oracle.in_service != 0 => {
                heard.extend(vcpu.oracle.end());
                let done = if vcpu.in_l2 { Done::Exit } else { machine::end_of_interrupt(&mut vcpu.vmcs01, page, way) };
                match done {
                    Done::Exit => {
                        vcpu.apic.registers().end_of_interrupt(ear);
                        self.attend(vcpu);
                    }
                    Done::Ended(vector) => {
                        vcpu.apic.registers().ended_by_processor(vector, ear);
                        self.attend(vcpu);
                    }
                    Done::Yes | Done::BelowThreshold => {}
                }
            }
            Event::OldPageEoi if way == Way::Msr && !vcpu.in_l2 => {
                // Nothing is there: an EPT violation, and no device answers.
                let done = machine::end_of_interrupt(&mut vcpu.vmcs01, page, Way::Page);
                assert_eq!(done, Done::Exit, "the old page still works in x2APIC mode");
                self.attend(vcpu);
            }
            Event::SelfIpi if vcpu.oracle.mode != Mode8::Disabled => {
                vcpu.oracle.accept(EDGE);
                let done = if vcpu.in_l2 { Done::Exit } else { machine::self_ipi(&mut vcpu.vmcs01, page, way, EDGE) };
                if done == Done::Exit {
                    vcpu.apic.registers().accept(EDGE, false);
                    self.attend(vcpu);
                }
            }
            Event::Post if !vcpu.posted => (vcpu.posted, vcpu.owed) = (true, true),
            Event::Notice if vcpu.posted => {
                if !vcpu.in_l2 && machine::takes_posted(&vcpu.vmcs01) {
                    vcpu.posted = false;
                    vcpu.arrives();
                    machine::request(&mut vcpu.vmcs01, page, EDGE);
                } else {
                    self.attend(vcpu);
                }
            }
            Event::Level => {
                vcpu.oracle.accept(LEVEL);
                vcpu.apic.registers().accept(LEVEL, true);
                self.attend(vcpu);
            }
            Event::Take if vcpu.in_l2 => {
                // The exit comes for what L0 sees, and acknowledges.
                if !vcpu.apic.has_pending() {
                    return false;
                }
                let taken = vcpu.apic.registers().acknowledge().map(|vector| vector.0);
                assert_eq!(taken, vcpu.oracle.take());
                self.lend(vcpu);
                self.resume_l1(vcpu);
                self.attend(vcpu);
            }
            Event::Take => {
                let expected = vcpu.oracle.take();
                let taken = if machine::delivers(&vcpu.vmcs01) {
                    machine::deliver(&mut vcpu.vmcs01, page)
                } else if vcpu.window {
                    let taken = vcpu.apic.registers().acknowledge().map(|vector| vector.0);
                    self.attend(vcpu);
                    taken
                } else {
                    None
                };
                assert_eq!(taken, expected, "the interrupt that L1 takes");
                return taken.is_some();
            }
            Event::Mode(mode) => {
                if vcpu.oracle.mode == mode || !vcpu.oracle.set_mode(mode) {
                    return false;
                }
                self.write_base(vcpu, mode, base_modified, ear);
                if mode == Mode8::Xapic {
                    enable(vcpu);
                }
                self.attend(vcpu);
            }
            Event::Base(modified) if vcpu.oracle.base_modified != modified => {
                vcpu.oracle.base_modified = modified;
                self.write_base(vcpu, vcpu.oracle.mode, modified, ear);
                self.attend(vcpu);
            }
            Event::Id(modified) if vcpu.oracle.mode == Mode8::Xapic && vcpu.oracle.id_modified != modified => {
                vcpu.oracle.id_modified = modified;
                let id = (index ^ usize::from(modified)) as u64;
                vcpu.apic.registers().write_mmio(Register::ID.0, Width::Dword, id << 24, 0, ear);
                self.attend(vcpu);
            }
            Event::Enter if !vcpu.in_l2 => vcpu.in_l2 = true,
            Event::EnterFails if !vcpu.in_l2 => {
                vcpu.in_l2 = true;
                self.resume_l1(vcpu);
                self.attend(vcpu);
            }
            Event::Exit if vcpu.in_l2 => {
                self.resume_l1(vcpu);
                self.attend(vcpu);
            }
            Event::Migrate => {
                // What is saved are the registers, and whether L2 runs; what waits for vmcs01 follows from them.
                vcpu.apic = L1Apic::new(vcpu.apic.registers().clone());
                vcpu.deferred = Deferred::default();
                self.prepare(vcpu, index);
                self.attend(vcpu);
            }
            _ => return false,
        }
        true
    }

    fn write_base(&self, vcpu: &mut Vcpu, mode: Mode8, modified: bool, ear: &Ear) {
        let base = if modified { 0xfed0_0000 } else { arch::apic::DEFAULT_BASE };
        let bits = match mode {
            Mode8::Disabled => 0,
            Mode8::Xapic => ENABLED,
            Mode8::X2apic => ENABLED | EXTENDED,
        };
        vcpu.apic.registers().write_msr(Msr::APIC_BASE, base | bits, 0, ear).expect("a mode that may follow");
    }

    /// L0 looks around before an entry: takes the posts in, and asks for a window if an interrupt waits.
    fn attend(&self, vcpu: &mut Vcpu) {
        if vcpu.posted {
            vcpu.posted = self.mistake == Some(Mistake::PostLeftBehind);
            vcpu.arrives();
            vcpu.apic.registers().accept(EDGE, false);
        }
        self.lend(vcpu);
        vcpu.window = vcpu.apic.has_pending();
    }

    /// Every vCPU learns of a reason that came or went before it runs again.
    fn settle(&self, system: &mut System) {
        for vcpu in &mut system.vcpus {
            let before = vcpu.apic.lent();
            self.lend(vcpu);
            if vcpu.apic.lent() != before {
                vcpu.window = vcpu.apic.has_pending();
            }
        }
    }

    fn lend(&self, vcpu: &mut Vcpu) {
        let inhibited = self.inhibits.any();
        let before = vcpu.apic.lent();
        let Vcpu { apic, vmcs01, vmcs02, deferred, in_l2, .. } = vcpu;
        let mut door = |update: Update| match *in_l2 {
            true => deferred.defer(update),
            false => update.write(&mut Vmcs01::assume(vmcs01)),
        };
        let Some(mistake) = self.mistake else { return apic.lend(inhibited, door) };
        let mut updates = Vec::new();
        apic.lend(inhibited, |update| updates.push(update));
        for update in updates {
            match mistake.of_door(update, *in_l2, before) {
                super::mistakes::Door::Right => door(update),
                super::mistakes::Door::Lost => {}
                super::mistakes::Door::IntoVmcs02 => update.write(&mut Vmcs01::assume(vmcs02)),
            }
        }
    }

    fn resume_l1(&self, vcpu: &mut Vcpu) {
        vcpu.in_l2 = false;
        if self.mistake == Some(Mistake::RequestInsteadOfValue) {
            // The request asks whether the state changed; that was noted when it was deferred, so nothing is to be done.
            let mut waiting: Vec<_> = vcpu.deferred.waiting().collect();
            waiting.retain(|update| update.kind() > 2);
            vcpu.deferred = Deferred::default();
            waiting.into_iter().for_each(|update| vcpu.deferred.defer(update));
        }
        if self.mistake == Some(Mistake::NotDrained) {
            return;
        }
        vcpu.deferred.drain(&mut Vmcs01::assume(&mut vcpu.vmcs01));
    }
}

/// What vmcs12 asked for: everything that L1's APIC does not have at that moment, and other values.
pub(super) fn vmcs02() -> Vmcs {
    let mut vmcs = Vmcs::default();
    vmcs.write(SECONDARY_VM_EXEC_CONTROL, SecondaryBased::ENABLE_EPT.bits());
    vmcs.write(EPT_POINTER, 0x7000);
    vmcs.write(MSR_BITMAP, 0x8000);
    vmcs
}

/// Software enables the APIC.
fn enable(vcpu: &mut Vcpu) {
    vcpu.apic.registers().write_mmio(Register::SVR.0, Width::Dword, 0x1ff, 0, &Ear::default());
}
