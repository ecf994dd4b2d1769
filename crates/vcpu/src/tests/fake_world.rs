//! The VM around a vCPU, in memory.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use arch::apic::Message;
use arch::{GuestPhys, Width};
use testkit::Ram;
use vlapic::{Bus, Identity as ApicIdentity, Mailbox};

use crate::*;

/// A VM of one vCPU that remembers what was asked of it.
pub(super) struct FakeWorld {
    pub(super) memory: Ram,
    /// For the script too.
    pub(super) mailbox: &'static Mailbox,
    pub(super) ports: RefCell<BTreeMap<u16, u32>>,
    pub(super) reports: RefCell<Vec<Report>>,
    pub(super) deadline: Cell<u64>,
    pub(super) ticks: RefCell<Vec<u64>>,
    pub(super) pic: Cell<Option<u8>>,
    pub(super) stop: Option<Stop>,
    pub(super) l2_takes_posts: Cell<Option<nested::Posted>>,
}

impl Bus for FakeWorld {
    fn send(&self, _: Message) {}
    fn end_of_interrupt(&self, _: u8) {}
    fn published(&self, _: ApicIdentity) {}
}

impl World for FakeWorld {
    type Memory = Ram;

    fn memory(&self) -> &Ram {
        &self.memory
    }

    fn mailbox(&self) -> &Mailbox {
        self.mailbox
    }

    fn port_in(&self, port: u16, _: Width, _: u64) -> u32 {
        self.ports.borrow().get(&port).copied().unwrap_or(u32::MAX)
    }

    fn port_out(&self, port: u16, _: Width, value: u32, _: u64) {
        self.ports.borrow_mut().insert(port, value);
    }

    fn mmio_read(&self, at: GuestPhys, _: Width, _: u64) -> Option<u64> {
        (at.page() == GuestPhys(0xfec0_0000)).then_some(0x1234_5678)
    }

    fn mmio_write(&self, at: GuestPhys, _: Width, _: u64, _: u64) -> bool {
        at.page() == GuestPhys(0xfec0_0000)
    }

    fn pic_acknowledge(&self) -> u8 {
        self.pic.take().unwrap_or(7)
    }

    fn pic_asserted(&self) -> bool {
        self.pic.get().is_some()
    }

    fn deadline(&self) -> u64 {
        self.deadline.get()
    }

    fn wanted_elsewhere(&self) -> bool {
        false
    }

    fn tick(&self, now: u64) {
        self.ticks.borrow_mut().push(now);
        self.deadline.set(u64::MAX);
    }

    fn stop(&self) -> Option<Stop> {
        self.stop
    }

    fn inhibit(&self, _: vlapic::Reason, _: bool) {}

    fn is_apic_inhibited(&self) -> bool {
        false
    }

    fn l2_takes_posts(&self, posted: Option<&nested::Posted>) {
        self.l2_takes_posts.set(posted.copied());
    }

    fn report(&self, report: Report) {
        self.reports.borrow_mut().push(report);
    }
}
