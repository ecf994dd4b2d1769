//! How interrupts reach the vCPUs of a VM: left in a mailbox, and the processor is told, or the vCPU woken.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use arch::GuestPhys;
use arch::apic::{DeliveryMode, Message, Register};
use hw::apic::Notice;
use hw::interrupts::{NOTIFICATION, NOTIFICATION_OF_L2};
use nested::{L1Memory as _, Posted};

use super::Vm;
use crate::scheduler;

/// What a processor takes in by itself while L2 runs on it. All zeros: nothing.
pub(super) struct L2Posts {
    /// The vector that L1 sends for that, plus 256; 0 while L0 has to see to it.
    notification: AtomicU32,
    /// Where the descriptor and the virtual-APIC page are in L1's memory.
    descriptor: AtomicU64,
    virtual_apic: AtomicU64,
}

/// Beside the vector in [`L2Posts::notification`].
const TAKES_POSTS: u32 = 1 << 8;

impl Vm {
    /// What is posted for the L2 of vCPU `index` is taken in by its processor from now on, or no longer.
    pub(crate) fn l2_takes_posts(&self, index: usize, posted: Option<&Posted>) {
        let l2 = &self.posts[index].l2;
        let Some(posted) = posted else { return l2.notification.store(0, Ordering::Release) };
        l2.descriptor.store(posted.descriptor.get(), Ordering::Relaxed);
        l2.virtual_apic.store(posted.virtual_apic.get(), Ordering::Relaxed);
        l2.notification.store(TAKES_POSTS | u32::from(posted.notification), Ordering::Release);
    }

    /// The task priority that vCPU `index` has at this moment, where it is not the one it published.
    fn priority(&self, index: usize) -> Option<u8> {
        let post = self.posts.get(index).filter(|post| post.has_tpr_shadow.load(Ordering::Relaxed))?;
        Some((post.virtual_apic.read(Register::TPR) & 0xff) as u8)
    }

    /// How many interrupts reached a vCPU on another processor without a kick.
    pub(crate) fn posted(&self) -> u64 {
        self.posted.load(Ordering::Relaxed)
    }

    /// How many notifications of posts reached an L2 on another processor without a kick.
    pub(crate) fn posted_to_l2(&self) -> u64 {
        self.posted_to_l2.load(Ordering::Relaxed)
    }

    /// If vCPU `index` has a processor, or waits for its turn on one, ends the guest's run there, so that it looks around, and is
    /// true. A vCPU without one looks before it runs its guest again. Nothing need be done for the one that asks itself.
    pub(crate) fn kick(&self, index: usize) -> bool {
        let processor = self.posts[index].processor.load(Ordering::SeqCst);
        if processor != 0 && processor - 1 != hw::percpu::number() {
            hw::apic::kick(processor - 1);
        }
        processor != 0
    }

    /// The same; and ends its sleep.
    #[inline(never)]
    pub(crate) fn wake(&self, index: usize) {
        if !self.kick(index) {
            scheduler::wake(self.number(index));
        }
    }

    /// The same for interrupts that were posted to vCPU `index`: a processor that takes them in by itself need not leave its guest.
    fn notify(&self, index: usize) {
        let post = &self.posts[index];
        let (requests, page) = (post.mailbox.requests(), post.virtual_apic.words());
        let notice = Notice::new(NOTIFICATION, requests, page, &post.l2.notification, 0);
        if self.tell(index, &notice) {
            self.posted.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The same for what L1 has posted to the L2 of vCPU `index`, of which `vector` tells. False if the processor does not
    /// take it in by itself.
    fn notify_l2(&self, index: usize, vector: u8) -> bool {
        let post = &self.posts[index];
        let expected = TAKES_POSTS | u32::from(vector);
        if post.l2.notification.load(Ordering::Acquire) != expected {
            return false;
        }
        let at = GuestPhys(post.l2.descriptor.load(Ordering::Relaxed));
        let virtual_apic = GuestPhys(post.l2.virtual_apic.load(Ordering::Relaxed));
        let first = (at.get() >> 3 & 511) as usize;
        let requests = self.memory.words(at.page()).and_then(|page| page[first..].first_chunk());
        let (Some(requests), Some(page)) = (requests, self.memory.words(virtual_apic)) else { return false };
        if !post.mailbox.post_for_l2(vector) {
            return false;
        }
        let notice = Notice::new(NOTIFICATION_OF_L2, requests, page, &post.l2.notification, expected);
        if self.tell(index, &notice) {
            self.posted_to_l2.fetch_add(1, Ordering::Relaxed);
        }
        true
    }

    /// Tells the processor of vCPU `index` what was posted, or wakes the vCPU. Whether its guest runs on meanwhile.
    fn tell(&self, index: usize, notice: &Notice<'_>) -> bool {
        let processor = self.posts[index].processor.load(Ordering::SeqCst);
        if processor == 0 {
            self.wake(index);
        }
        processor != 0 && processor - 1 != hw::percpu::number() && hw::apic::notify(processor - 1, notice)
    }

    /// Sends `message`, from the vCPU `from` or from a device.
    pub(crate) fn send(&self, message: &Message, from: Option<usize>) {
        for target in self
            .directory
            .targets(message, from, |index| self.priority(index))
            .iter()
            .take_while(|&target| target < self.cpus())
        {
            let post = &self.posts[target];
            let is_posted = matches!(message.mode, DeliveryMode::Fixed | DeliveryMode::LowestPriority)
                && !message.level_triggered
                && message.vector > 15;
            if is_posted && self.notify_l2(target, message.vector) {
                continue;
            }
            if post.mailbox.deliver(message) {
                // Whatever a processor does not take in by itself must end its guest's run.
                // A processor takes them in whether or not the guest's APIC is enabled by software.
                if is_posted
                    && !self.inhibits.any()
                    && post.takes_posted.load(Ordering::Relaxed)
                    && self.directory.identity(target).software_enabled
                {
                    self.notify(target);
                } else {
                    self.wake(target);
                }
            }
        }
    }
}
