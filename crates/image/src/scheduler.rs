//! What the processors share to run all vCPUs: a queue for each processor, where each vCPU is, what they tell one another.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

use config::vm::MAX_VMS;
use heapless::Vec;
use hw::lock::Lock;
use hw::{apic, percpu, tsc};
use sched::{Member, RunQueue, Signals};

use crate::guest::{Guest, Sentence, leak, no_memory_for_tables, sentence};
use crate::resident::{Resident, move_in};

/// Bits, a vCPU or a processor each.
static SIGNALS: Signals = Signals::new();
/// vCPUs whose counters somebody wants to see, a bit each.
static ASKED: AtomicU64 = AtomicU64::new(0);
/// All else, once it is made.
static SCHEDULER: AtomicPtr<Scheduler> = AtomicPtr::new(core::ptr::null_mut());

/// The queues, and who is in them.
pub(crate) struct Scheduler {
    /// By processor.
    queues: &'static [Lock<RunQueue>],
    /// By vCPU number.
    residents: &'static [Slot],
    /// The virtual machines, in the order of their description.
    pub(crate) guests: Vec<&'static Guest, MAX_VMS>,
    /// How many of them have not ended.
    left: AtomicU32,
}

/// A vCPU. The processor that has it in its queue may touch it, nobody else; the queue's lock hands it over.
struct Slot(UnsafeCell<Option<Resident>>);

// SAFETY: one processor at a time touches what is in it, as said there.
unsafe impl Sync for Slot {}

/// The number of the processor that executes this, as the queues have it.
#[inline(always)]
pub(crate) fn here() -> u16 {
    // At most 64 processors are started.
    (percpu::number() & 63) as u16
}

/// vCPU `number` has no processor at the moment, and something to look at.
pub(crate) fn wake(number: u16) {
    let home = SIGNALS.home(number);
    // This processor looks before it runs a guest again or sleeps.
    if SIGNALS.wake(number, home) && home != here() {
        apic::kick(home.into());
    }
}

/// Whether a vCPU of this processor was woken, or is wanted elsewhere.
#[inline]
pub(crate) fn is_anybody_woken() -> bool {
    SIGNALS.has_woken(here())
}

/// Whether somebody wants to see the counters of vCPU `number`. Once it was told, nobody does.
pub(crate) fn take_asked(number: u16) -> bool {
    let bit = 1 << (number & 63);
    ASKED.load(Ordering::Relaxed) & bit != 0 && ASKED.fetch_and(!bit, Ordering::Relaxed) & bit != 0
}

/// The signals, for the processors' loops.
pub(crate) fn signals() -> &'static Signals {
    &SIGNALS
}

/// All queues, if they are made.
pub(crate) fn get() -> Option<&'static Scheduler> {
    // SAFETY: `publish` stored a pointer that stays valid and is only shared.
    unsafe { SCHEDULER.load(Ordering::Acquire).as_ref() }
}

impl Scheduler {
    /// Empty queues for `processors`, and room for `members`, the vCPUs of `guests`.
    pub(crate) fn new(
        guests: Vec<&'static Guest, MAX_VMS>,
        members: &[Member],
        processors: u32,
    ) -> Result<Self, Sentence> {
        let left = AtomicU32::new(u32::try_from(guests.len()).unwrap_or(0));
        Ok(Self {
            queues: new_queues(members, processors)?,
            residents: leak(members.len(), |_| Slot(UnsafeCell::new(None)))?,
            guests,
            left,
        })
    }

    /// Makes the vCPU that `member` names, and puts it into the queue of its home. `shares`: others may come there.
    pub(crate) fn add(&mut self, member: &Member, home: u16, shares: bool) -> Result<(), Sentence> {
        let slot = self.residents.get(usize::from(member.vcpu)).ok_or_else(no_memory_for_tables)?;
        let guest = self.guests.get(usize::from(member.vm)).ok_or_else(no_memory_for_tables)?;
        // SAFETY: it is in no queue yet, and `&mut self` says that no other processor knows of it.
        let state =
            move_in(unsafe { &mut *slot.0.get() }, guest, usize::from(member.vcpu - guest.vm.number(0)), shares)?;
        SIGNALS.moves(member.vcpu, home);
        let added = self.queue(home).lock().add(*member, state, tsc::now());
        added.map_err(|_| sentence(format_args!("a processor cannot run so many vCPUs")))
    }

    /// The queue of `processor`.
    pub(crate) fn queue(&self, processor: u16) -> &'static Lock<RunQueue> {
        &self.queues[usize::from(processor) % self.queues.len()]
    }

    /// The vCPU of this number.
    ///
    /// # Safety
    /// It is in this processor's queue, or was just taken out of it, and no other reference to it lives.
    #[expect(clippy::mut_from_ref, reason = "each is one processor's at a time, which the caller promises to be")]
    pub(crate) unsafe fn resident(&self, number: u16) -> Option<&mut Resident> {
        // SAFETY: the caller's promise.
        unsafe { (*self.residents.get(usize::from(number))?.0.get()).as_mut() }
    }

    /// The counters of every vCPU shall go to the log: each comes from the processor that has it.
    pub(crate) fn ask_for_counters(&self) {
        for number in (0..).take(self.residents.len()) {
            ASKED.fetch_or(1 << (number & 63), Ordering::Relaxed);
            wake(number);
        }
    }

    /// A virtual machine has ended. Whether it was the last one.
    pub(crate) fn one_ended(&self) -> bool {
        self.left.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// Hands everything to all processors.
    pub(crate) fn publish(&'static mut self) -> &'static Self {
        let all = core::ptr::from_mut(self);
        SCHEDULER.store(all, Ordering::Release);
        for number in (0..).take(hw::layout::MAX_PROCESSORS) {
            if number != percpu::number() {
                apic::kick(number);
            }
        }
        // SAFETY: it came from a `&'static mut` and is only shared from here on.
        unsafe { &*all }
    }
}

/// The least ticks for which a vCPU runs: several times what a switch takes.
const LEAST: u64 = 10_000;

/// Apart from the rest: a queue is large, and is made on the stack.
#[inline(never)]
fn new_queues(members: &[Member], processors: u32) -> Result<&'static [Lock<RunQueue>], Sentence> {
    let slice = tsc::frequency() / 100;
    Ok(leak(processors as usize, |processor| {
        let processor = u16::try_from(processor).unwrap_or(u16::MAX);
        let may_come = members.iter().filter(|member| member.allowed.has(processor));
        let heaviest = may_come.map(|member| member.weight).max();
        Lock::new(RunQueue::new(slice, heaviest.unwrap_or(1), LEAST))
    })?)
}
