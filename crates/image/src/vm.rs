//! One virtual machine: what its vCPUs share.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use arch::Width;
use arch::apic::Message;
use devices::{Outside, Platform, PowerRequest};
use hw::lock::Lock;
use vcpu::Stop;
use vlapic::{Directory, Mailbox};

use crate::console;
use crate::guest_memory::GuestRam;
use crate::reports::Reports;

/// Most vCPUs of a VM.
pub(crate) const MAX_VCPUS: usize = 64;

/// One virtual machine. Its vCPUs run on several processors at once; nothing here is locked on their fast paths.
pub(crate) struct Vm {
    /// L1's RAM.
    pub memory: GuestRam,
    /// What was worth a line in the log.
    pub reports: Lock<Reports>,
    platform: Lock<Platform>,
    /// The devices' next deadline, for the vCPU that keeps their time without taking the lock.
    device_deadline: AtomicU64,
    pic_asserted: AtomicBool,
    /// The PIC's output rose since a waiting timekeeper last looked.
    pic_rose: AtomicBool,
    /// Which vCPU answers to which APIC address.
    pub directory: Directory<MAX_VCPUS>,
    posts: &'static [Post],
    /// vCPUs that only another vCPU can wake.
    deaf: AtomicU64,
    stopping: AtomicBool,
    stop: Lock<Option<Stop>>,
}

/// Where others reach a vCPU.
pub(crate) struct Post {
    mailbox: Mailbox,
    /// The processor that runs the vCPU.
    processor: AtomicU32,
}

impl Post {
    /// Nothing posted; on the boot processor until [`Vm::place`] says otherwise.
    pub(crate) const fn new() -> Self {
        Self { mailbox: Mailbox::new(), processor: AtomicU32::new(0) }
    }
}

/// The vCPU that keeps the devices' time.
pub(crate) const TIMEKEEPER: usize = 0;

impl Vm {
    /// A VM whose devices are `platform`.
    pub(crate) fn new(memory: GuestRam, posts: &'static [Post], platform: Platform) -> Self {
        Self {
            memory,
            posts,
            reports: Lock::new(Reports::new()),
            device_deadline: AtomicU64::new(platform.deadline()),
            pic_asserted: AtomicBool::new(platform.pic_has_interrupt()),
            pic_rose: AtomicBool::new(false),
            platform: Lock::new(platform),
            directory: Directory::new(),
            deaf: AtomicU64::new(0),
            stopping: AtomicBool::new(false),
            stop: Lock::new(None),
        }
    }

    /// Number of vCPUs.
    pub(crate) const fn cpus(&self) -> usize {
        self.posts.len()
    }

    /// What was posted to vCPU `index`.
    #[inline(always)]
    pub(crate) fn mailbox(&self, index: usize) -> &'static Mailbox {
        &self.posts[index].mailbox
    }

    /// Says which processor runs vCPU `index`.
    pub(crate) fn place(&self, index: usize, processor: u32) {
        self.posts[index].processor.store(processor, Ordering::Release);
    }

    /// Makes the processor of vCPU `index` look around, unless it is the one that asks.
    pub(crate) fn kick(&self, index: usize) {
        let processor = self.posts[index].processor.load(Ordering::Acquire);
        if processor != hw::percpu::number() {
            hw::apic::kick(processor);
        }
    }

    /// Sends `message`, from the vCPU `from` or from a device.
    pub(crate) fn send(&self, message: &Message, from: Option<usize>) {
        for target in self.directory.targets(message, from).iter().take_while(|&target| target < self.cpus()) {
            if self.posts[target].mailbox.deliver(message) {
                self.kick(target);
            }
        }
    }

    /// Whether the PIC asks for an interrupt.
    #[inline(always)]
    pub(crate) fn pic_asserted(&self) -> bool {
        self.pic_asserted.load(Ordering::Acquire)
    }

    /// The devices' next deadline in TSC; `u64::MAX` for none.
    #[inline(always)]
    pub(crate) fn device_deadline(&self) -> u64 {
        self.device_deadline.load(Ordering::Acquire)
    }

    /// Calls the devices, and tells the timekeeper when they want attention earlier than before.
    pub(crate) fn devices<T>(&self, act: impl FnOnce(&mut Platform, &mut Wires<'_>) -> T) -> T {
        let mut platform = self.platform.lock();
        let result = act(&mut platform, &mut Wires { vm: self });
        let deadline = platform.deadline();
        let before = self.device_deadline.swap(deadline, Ordering::AcqRel);
        drop(platform);
        if deadline < before {
            self.kick(TIMEKEEPER);
        }
        result
    }

    /// The VM must stop. The first reason counts; every vCPU learns of it.
    pub(crate) fn end(&self, stop: Stop) {
        self.stop.lock().get_or_insert(stop);
        self.stopping.store(true, Ordering::Release);
        for index in 0..self.cpus() {
            self.kick(index);
        }
    }

    /// Why the VM must stop, once somebody said so.
    #[inline]
    pub(crate) fn stop(&self) -> Option<Stop> {
        if self.stopping.load(Ordering::Acquire) { *self.stop.lock() } else { None }
    }

    /// Whether vCPU `index`, which waits, must look at the PIC again.
    pub(crate) fn take_pic_change(&self, index: usize) -> bool {
        index == TIMEKEEPER && self.pic_rose.load(Ordering::Relaxed) && self.pic_rose.swap(false, Ordering::AcqRel)
    }

    /// Whether another vCPU that lives on the processor of vCPU `index` was sent something.
    pub(crate) fn neighbour_has_mail(&self, index: usize) -> bool {
        let home = self.posts[index].processor.load(Ordering::Relaxed);
        let mut others = self.posts.iter().enumerate().filter(|(other, _)| *other != index);
        others.any(|(_, post)| post.processor.load(Ordering::Relaxed) == home && !post.mailbox.is_empty())
    }

    /// vCPU `index` is about to run: before it takes its mail, so that nobody thinks that nothing can wake it.
    pub(crate) fn runs(&self, index: usize) {
        self.deaf.fetch_and(!(1 << index), Ordering::AcqRel);
    }

    /// vCPU `index` waits; `deaf` when no interrupt can wake it. When all are deaf, nothing ever will: the VM ends, and
    /// the answer is true.
    pub(crate) fn waits(&self, index: usize, deaf: bool) -> bool {
        if !deaf {
            return false;
        }
        let bit = 1 << index;
        let all = u64::MAX >> (64 - self.cpus());
        let mask = self.deaf.fetch_or(bit, Ordering::AcqRel) | bit;
        if mask & all == all && (0..self.cpus()).all(|index| self.posts[index].mailbox.is_empty()) {
            self.end(Stop::HaltedForEver);
            return true;
        }
        false
    }
}

/// The devices' wires, while the platform's lock is held.
pub(crate) struct Wires<'a> {
    vm: &'a Vm,
}

impl Outside for Wires<'_> {
    fn interrupt(&mut self, message: Message) {
        self.vm.send(&message, None);
    }

    fn pic_output(&mut self, asserted: bool) {
        self.vm.pic_asserted.store(asserted, Ordering::Release);
        if asserted {
            self.vm.pic_rose.store(true, Ordering::Release);
            self.vm.kick(TIMEKEEPER);
        }
    }

    fn serial_out(&mut self, byte: u8) {
        console::put(byte);
    }

    fn power(&mut self, request: PowerRequest) {
        self.vm.end(match request {
            PowerRequest::Off => Stop::PowerOff,
            PowerRequest::Reset => Stop::Reset,
            PowerRequest::Exit(code) => Stop::ExitPort(code),
        });
    }

    fn unknown_port(&mut self, port: u16, width: Width, write: bool) {
        self.vm.reports.lock().port(port, width, write);
    }
}
