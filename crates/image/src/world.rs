//! What one vCPU sees of its VM.

use arch::apic::Message;
use arch::{GuestPhys, Width};
use nested::Posted;
use vcpu::{Report, Stop, World};
use vlapic::{Bus, Identity, Mailbox, Reason};

use crate::guest_memory::GuestRam;
use crate::vm::{TIMEKEEPER, Vm};
use crate::{console, scheduler};

/// The VM as vCPU `index` sees it.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    /// The VM.
    pub vm: &'static Vm,
    /// The vCPU.
    pub index: usize,
    /// What others post to it.
    pub mailbox: &'static Mailbox,
}

impl Place {
    /// When the devices want attention, if this vCPU keeps their time.
    #[inline(always)]
    pub(crate) fn device_deadline(&self) -> u64 {
        if self.index == TIMEKEEPER { self.vm.device_deadline() } else { u64::MAX }
    }
}

impl Bus for Place {
    fn send(&self, message: Message) {
        self.vm.send(&message, Some(self.index));
    }

    fn end_of_interrupt(&self, vector: u8) {
        self.vm.devices(|platform, out| platform.end_of_interrupt(vector, out));
    }

    fn published(&self, identity: Identity) {
        self.vm.identity_changed(self.index, identity);
    }
}

impl World for Place {
    type Memory = GuestRam;

    #[inline(always)]
    fn memory(&self) -> &GuestRam {
        &self.vm.memory
    }

    #[inline(always)]
    fn mailbox(&self) -> &Mailbox {
        self.mailbox
    }

    fn port_in(&self, port: u16, width: Width, now: u64) -> u32 {
        self.vm.devices(|platform, out| platform.port_read(port, width, now, out))
    }

    fn port_out(&self, port: u16, width: Width, value: u32, now: u64) {
        self.vm.devices(|platform, out| platform.port_write(port, width, value, now, out));
    }

    fn mmio_read(&self, at: GuestPhys, width: Width, now: u64) -> Option<u64> {
        self.vm.devices(|platform, out| platform.mmio_read(at, width, now, out))
    }

    fn mmio_write(&self, at: GuestPhys, width: Width, value: u64, now: u64) -> bool {
        self.vm.devices(|platform, out| platform.mmio_write(at, width, value, now, out))
    }

    fn pic_acknowledge(&self) -> u8 {
        self.vm.devices(|platform, out| platform.pic_acknowledge(out))
    }

    #[inline(always)]
    fn pic_asserted(&self) -> bool {
        self.vm.pic_asserted()
    }

    #[inline(always)]
    fn deadline(&self) -> u64 {
        if self.index == TIMEKEEPER { self.vm.device_deadline().min(console::deadline()) } else { u64::MAX }
    }

    fn wanted_elsewhere(&self) -> bool {
        scheduler::is_anybody_woken()
    }

    fn tick(&self, now: u64) {
        if now >= console::deadline() {
            console::pump();
        }
        self.vm.devices(|platform, out| platform.tick(now, out));
    }

    fn inhibit(&self, reason: Reason, holds: bool) {
        self.vm.inhibit(self.index, reason, holds);
    }

    #[inline(always)]
    fn is_apic_inhibited(&self) -> bool {
        self.vm.is_apic_inhibited()
    }

    fn becomes_hypervisor(&self) {
        self.vm.becomes_hypervisor(self.index);
    }

    fn l2_takes_posts(&self, posted: Option<&Posted>) {
        self.vm.l2_takes_posts(self.index, posted);
    }

    fn stop(&self) -> Option<Stop> {
        self.vm.stop()
    }

    fn report(&self, report: Report) {
        self.vm.reports.lock().add(report);
    }
}
