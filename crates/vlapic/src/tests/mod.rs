//! Tests of the whole APIC, one file a topic, and what they share.

use core::cell::RefCell;

use arch::apic::{Message, Register};
use arch::{Fault, Msr, Width};

use crate::{Bus, Features, Frequencies, Identity, LocalApic};

mod apicv;
mod directory;
mod eoi;
mod errors;
mod ipi;
mod lint;
mod lvt;
mod mailbox;
mod mmio;
mod modes;
mod priority;
mod registers;
mod reset;
mod timer;
mod timer_steps;

/// A bus that remembers.
#[derive(Default)]
struct Recorder {
    sent: RefCell<Vec<Message>>,
    ended: RefCell<Vec<u8>>,
    published: RefCell<Vec<Identity>>,
}

impl Bus for Recorder {
    fn send(&self, message: Message) {
        self.sent.borrow_mut().push(message);
    }

    fn end_of_interrupt(&self, vector: u8) {
        self.ended.borrow_mut().push(vector);
    }

    fn published(&self, identity: Identity) {
        self.published.borrow_mut().push(identity);
    }
}

/// Two TSC ticks to one of the bus, so that the two cannot be mixed up unnoticed.
const FREQUENCIES: Frequencies = Frequencies { tsc_hz: 2_000_000_000, bus_hz: 1_000_000_000 };

/// An APIC and its bus, with the time standing at 0 unless a test says otherwise.
struct Fixture {
    apic: LocalApic,
    bus: Recorder,
    now: u64,
}

impl Fixture {
    /// After RESET, as the bootstrap processor.
    fn reset(id: u32) -> Self {
        Self { apic: LocalApic::new(id, true, FREQUENCIES), bus: Recorder::default(), now: 0 }
    }

    /// xAPIC mode, software-enabled, spurious vector 0xff.
    fn xapic(id: u32) -> Self {
        let mut fixture = Self::reset(id);
        fixture.write(Register::SVR, 0x1ff);
        fixture
    }

    /// x2APIC mode, software-enabled, spurious vector 0xff.
    fn x2apic(id: u32) -> Self {
        let mut fixture = Self::xapic(id);
        fixture.wrmsr(Msr::APIC_BASE, 0xfee0_0d00).unwrap();
        fixture
    }

    fn with_features(self, features: Features) -> Self {
        Self { apic: self.apic.with_features(features), ..self }
    }

    fn read(&mut self, register: Register) -> u32 {
        u32::try_from(self.apic.read_mmio(register.0, Width::Dword, self.now)).unwrap()
    }

    fn write(&mut self, register: Register, value: u32) {
        self.apic.write_mmio(register.0, Width::Dword, value.into(), self.now, &self.bus);
    }

    fn rdmsr(&mut self, msr: Msr) -> Result<u64, Fault> {
        self.apic.read_msr(msr, self.now)
    }

    fn wrmsr(&mut self, msr: Msr, value: u64) -> Result<(), Fault> {
        self.apic.write_msr(msr, value, self.now, &self.bus)
    }

    /// RDMSR of the MSR behind `register`.
    fn read_x2(&mut self, register: Register) -> Result<u64, Fault> {
        self.rdmsr(x2(register))
    }

    /// WRMSR of the MSR behind `register`.
    fn write_x2(&mut self, register: Register, value: u64) -> Result<(), Fault> {
        self.wrmsr(x2(register), value)
    }

    /// What ESR shows after the write that software must do first.
    fn errors(&mut self) -> u32 {
        self.write(Register::ESR, 0);
        self.read(Register::ESR)
    }
}

/// The MSR of a register: 0x800 plus its number.
fn x2(register: Register) -> Msr {
    Msr(0x800 + u32::from(register.0) / 16)
}
