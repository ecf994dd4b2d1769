//! One virtual machine: what its vCPUs share.

mod deliver;

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use arch::apic::Message;
use arch::{HostPhys, Width};
use devices::{Outside, Platform, PowerRequest};
use hw::lock::{Guard, Lock};
use vcpu::Stop;
use vlapic::{Directory, Hardware, Identity, Inhibits, Mailbox, Reason, VirtualApicPage};

use self::deliver::L2Posts;
use crate::guest_console;
use crate::guest_memory::GuestRam;
use crate::reports::Reports;

/// Most vCPUs of a VM.
pub(crate) const MAX_VCPUS: usize = 64;
/// Bytes of what others reach of a vCPU.
pub(crate) const BYTES_PER_VCPU: u64 = size_of::<Post>() as u64;

/// Processors that wait for others to learn that a VM's reasons have changed, a bit each.
static WAITING: AtomicU64 = AtomicU64::new(0);

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
    /// Held while an identity is published.
    identities: Lock<()>,
    /// Why the processors do not help the APICs.
    inhibits: Inhibits,
    /// How often each reason switched the help off or on.
    apic_changes: [AtomicU32; Reason::ALL.len()],
    /// Interrupts that reached a vCPU on another processor without a kick.
    posted: AtomicU64,
    posted_to_l2: AtomicU64,
    posts: &'static [Post],
    /// Its place among the others.
    pub numbers: Numbers,
    /// vCPUs that have not stopped.
    left: AtomicU32,
    /// vCPUs that only another vCPU can wake.
    deaf: AtomicU64,
    stopping: AtomicBool,
    stop: Lock<Option<Stop>>,
}

/// What tells a VM from the others of the machine.
#[derive(Clone, Copy)]
pub(crate) struct Numbers {
    /// Its own number, in the order of the description.
    pub vm: usize,
    /// The number of its first vCPU on the machine; the others follow.
    pub first_vcpu: u16,
}

/// Where others reach a vCPU. It begins a page, where processors that want a posted-interrupt descriptor look for nothing else
/// (SDM 3C asks for 64 bytes' alignment; Bochs 3.0 for a page's). All zeros are one to which nothing was posted.
#[repr(C, align(4096))]
pub(crate) struct Post {
    mailbox: Mailbox,
    /// The processor that the vCPU has, plus 1, or had last when it only waits for its next turn there; 0 when it sleeps or moves.
    processor: AtomicU32,
    /// While the vCPU has it, the processor takes posted interrupts in by itself.
    takes_posted: AtomicBool,
    /// The task priority stands in the virtual-APIC page, where the guest changes it unnoticed.
    has_tpr_shadow: AtomicBool,
    l2: L2Posts,
    virtual_apic: VirtualApicPage,
}

/// The vCPU that keeps the devices' time.
pub(crate) const TIMEKEEPER: usize = 0;

impl Vm {
    /// A VM whose devices are `platform`.
    pub(crate) fn new(memory: GuestRam, posts: &'static [Post], numbers: Numbers, platform: Platform) -> Self {
        Self {
            memory,
            posts,
            numbers,
            // At most 64.
            left: AtomicU32::new(u32::try_from(posts.len()).unwrap_or(0)),
            reports: Lock::new(Reports::new()),
            device_deadline: AtomicU64::new(platform.deadline()),
            pic_asserted: AtomicBool::new(platform.pic_has_interrupt()),
            pic_rose: AtomicBool::new(false),
            platform: Lock::new(platform),
            directory: Directory::new(),
            identities: Lock::new(()),
            inhibits: Inhibits::new(),
            apic_changes: [const { AtomicU32::new(0) }; Reason::ALL.len()],
            posted: AtomicU64::new(0),
            posted_to_l2: AtomicU64::new(0),
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

    /// Where the mailbox of vCPU `index` is, whose beginning is a posted-interrupt descriptor.
    pub(crate) fn descriptor(&self, index: usize) -> HostPhys {
        hw::physmem::physical(&self.posts[index].mailbox)
    }

    /// The number of vCPU `index` on the machine.
    pub(crate) fn number(&self, index: usize) -> u16 {
        // At most 64.
        self.numbers.first_vcpu + u16::try_from(index).unwrap_or(0)
    }

    /// The virtual-APIC page of vCPU `index`.
    pub(crate) fn virtual_apic(&self, index: usize) -> &'static VirtualApicPage {
        &self.posts[index].virtual_apic
    }

    /// The processor of vCPU `index` does so much for its APIC.
    pub(crate) fn set_help(&self, index: usize, hardware: Hardware) {
        let post = &self.posts[index];
        post.takes_posted.store(hardware.posting, Ordering::Release);
        post.has_tpr_shadow.store(hardware.tpr_shadow, Ordering::Release);
    }

    /// vCPU `index` may run an L2 from now on. On Bochs a notification that arrives then would deliver what waits for L2,
    /// whether or not L2 has interrupts on, so it gets kicks.
    pub(crate) fn becomes_hypervisor(&self, index: usize) {
        if hw::apic::kicks_are_nmis() {
            self.posts[index].takes_posted.store(false, Ordering::Release);
        }
    }

    /// vCPU `index` has, or has no longer, a reason for which the VM does without help for APICs.
    pub(crate) fn inhibit(&self, index: usize, reason: Reason, holds: bool) {
        if self.inhibits.set_for_vcpu(index, reason, holds) {
            self.apics_changed(reason);
        }
    }

    /// The same of the VM as a whole. No lock that another processor may wait for is held.
    pub(crate) fn inhibit_all(&self, reason: Reason, holds: bool) {
        if self.inhibits.set_for_vm(reason, holds) {
            self.apics_changed(reason);
        }
    }

    /// Whether the VM does without help for its APICs.
    #[inline(always)]
    pub(crate) fn is_apic_inhibited(&self) -> bool {
        self.inhibits.any()
    }

    /// vCPU `index` has published another identity: one that it shares, or shared, with others concerns them too.
    pub(crate) fn identity_changed(&self, index: usize, identity: Identity) {
        // One after the other, so that the last sees all.
        let guard = self.identities.lock();
        let before = self.directory.identity(index);
        self.directory.publish(index, identity);
        let mut changed = false;
        if (before.id, before.mode) != (identity.id, identity.mode) {
            for other in 0..self.cpus() {
                let is_aliased = self.directory.is_aliased(other);
                changed |= self.inhibits.set_for_vcpu(other, Reason::PhysicalIdAliased, is_aliased);
            }
        }
        drop(guard);
        if changed {
            self.apics_changed(Reason::PhysicalIdAliased);
        }
    }

    /// Returns when no vCPU can run its guest any more as it was before the change: each processor that has one has taken a
    /// kick, and whoever gets one looks at the reasons before it runs its guest. A processor that waits here too runs none
    /// either, so that two need not wait for each other.
    fn apics_changed(&self, reason: Reason) {
        self.apic_changes[reason as usize].fetch_add(1, Ordering::Relaxed);
        let own = hw::percpu::number();
        WAITING.fetch_or(1 << own, Ordering::SeqCst);
        for post in self.posts {
            let processor = post.processor.load(Ordering::SeqCst).wrapping_sub(1);
            if processor == u32::MAX || processor == own {
                continue;
            }
            let before = hw::percpu::kicks(processor);
            hw::apic::kick(processor);
            while hw::percpu::kicks(processor) == before
                && WAITING.load(Ordering::SeqCst) & 1 << processor == 0
                && !self.stopping.load(Ordering::Acquire)
            {
                hw::control::pause();
            }
        }
        WAITING.fetch_and(!(1 << own), Ordering::SeqCst);
    }

    /// How often each reason switched the help for APICs off or on, and why it is off now.
    pub(crate) fn apic_changes(&self) -> impl Iterator<Item = (Reason, u32, u64)> {
        let counts = Reason::ALL.into_iter().zip(&self.apic_changes);
        counts.map(|(reason, count)| (reason, count.load(Ordering::Relaxed), self.inhibits.count(reason)))
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
        self.devices_done(platform);
        result
    }

    /// Tells the timekeeper when the devices want attention earlier than before. Apart, so that the image is small.
    #[inline(never)]
    fn devices_done(&self, platform: Guard<'_, Platform>) {
        let deadline = platform.deadline();
        let before = self.device_deadline.swap(deadline, Ordering::SeqCst);
        drop(platform);
        if deadline < before {
            self.wake(TIMEKEEPER);
        }
    }

    /// The VM must stop. The first reason counts; every vCPU learns of it.
    pub(crate) fn end(&self, stop: Stop) {
        self.stop.lock().get_or_insert(stop);
        self.stopping.store(true, Ordering::SeqCst);
        for index in 0..self.cpus() {
            self.wake(index);
        }
    }

    /// Why the VM must stop, once somebody said so.
    #[inline]
    pub(crate) fn stop(&self) -> Option<Stop> {
        if self.stopping.load(Ordering::Acquire) { *self.stop.lock() } else { None }
    }

    /// Whether vCPU `index`, which waits, must look at the PIC again.
    pub(crate) fn take_pic_change(&self, index: usize) -> bool {
        index == TIMEKEEPER && self.pic_rose.load(Ordering::SeqCst) && self.pic_rose.swap(false, Ordering::AcqRel)
    }

    /// vCPU `index` has got `processor`: before it takes its mail, so that nobody thinks that nothing can wake it.
    pub(crate) fn runs(&self, index: usize, processor: u32) {
        self.posts[index].processor.store(processor + 1, Ordering::SeqCst);
        if self.deaf.load(Ordering::Relaxed) & 1 << index != 0 {
            self.deaf.fetch_and(!(1 << index), Ordering::AcqRel);
        }
    }

    /// vCPU `index` has no processor any more, and is not ready for one: before its mail is looked at for the last time. One whose
    /// turn is over stays where it is, since it looks before it runs again.
    pub(crate) fn leaves(&self, index: usize) {
        self.posts[index].processor.store(0, Ordering::SeqCst);
    }

    /// One of its vCPUs never runs again. Whether it was the last one.
    pub(crate) fn vcpu_stopped(&self) -> bool {
        self.left.fetch_sub(1, Ordering::AcqRel) == 1
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
            self.vm.pic_rose.store(true, Ordering::SeqCst);
            self.vm.wake(TIMEKEEPER);
        }
    }

    fn serial_out(&mut self, byte: u8) {
        guest_console::put(self.vm.numbers.vm, byte);
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
