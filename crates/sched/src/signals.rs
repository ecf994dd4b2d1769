//! What processors tell one another without a lock: wakes, where a vCPU lives, who is idle.
//!
//! # Why no wake is lost
//!
//! Whoever wakes a vCPU leaves what it is woken for, and then looks whether it has a processor. If it has, a kick of that one is
//! enough: a vCPU that goes to sleep first says that it has none, and then looks once more at what was left for it. Otherwise
//! the one who wakes reads its home, sets its bit there, and kicks that processor. A processor takes its bits after every
//! kick and before it halts; its kick stays pending until it has been taken. A bit whose vCPU has moved on meanwhile is
//! passed on to the home that is known by then: it is the old home's processor itself that gives vCPUs away, and it writes the
//! new home before it looks at its bits again.
//!
//! # Why nobody waits beside an idle processor
//!
//! An idle processor announces itself first and looks at the others' queues then; where it sees somebody that it could run, it
//! wakes that one, so that the processor there looks around. Who has somebody in line looks for idle processors, and gives
//! them away. One of the two sees the other.
//!
//! All accesses are sequentially consistent, so that trying all interleavings of them is trying everything: see `src/tests/explore.rs`.

use core::sync::atomic::{AtomicU8, AtomicU64, Ordering::SeqCst};

use crate::member::{MAX_PROCESSORS, MAX_VCPUS, Set, bit};

/// One for the machine, in a static.
#[derive(Debug)]
pub struct Signals {
    homes: [AtomicU8; MAX_VCPUS],
    woken: [Woken; MAX_PROCESSORS],
    idle: AtomicU64,
    waiting: AtomicU64,
}

/// A processor's bits, one a vCPU, on a cache line of their own.
#[derive(Debug)]
#[repr(align(64))]
struct Woken(AtomicU64);

impl Default for Signals {
    fn default() -> Self {
        Self::new()
    }
}

impl Signals {
    /// All vCPUs are at home on processor 0, nobody is woken, nobody is idle.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            homes: [const { AtomicU8::new(0) }; MAX_VCPUS],
            woken: [const { Woken(AtomicU64::new(0)) }; MAX_PROCESSORS],
            idle: AtomicU64::new(0),
            waiting: AtomicU64::new(0),
        }
    }

    /// The processor on which `vcpu` lives.
    #[inline]
    #[must_use]
    pub fn home(&self, vcpu: u16) -> u16 {
        self.homes.get(usize::from(vcpu)).map_or(0, |home| home.load(SeqCst)).into()
    }

    /// `vcpu` lives on `processor` from now on. While both queues, or the one that it leaves, are locked.
    pub fn moves(&self, vcpu: u16, processor: u16) {
        if let (Some(home), Ok(processor)) = (self.homes.get(usize::from(vcpu)), u8::try_from(processor)) {
            home.store(processor, SeqCst);
        }
    }

    /// Sets the bit of `vcpu` at its `home`, as [`Self::home`] said. `true` when that processor must be kicked; otherwise
    /// a kick for an earlier bit is on its way.
    #[inline]
    #[must_use = "the processor may be asleep"]
    pub fn wake(&self, vcpu: u16, home: u16) -> bool {
        self.woken.get(usize::from(home)).is_some_and(|woken| woken.0.fetch_or(bit(vcpu), SeqCst) == 0)
    }

    /// The vCPUs that were woken on `processor` since it last asked.
    #[inline]
    pub fn take_woken(&self, processor: u16) -> Set {
        let Some(woken) = self.woken.get(usize::from(processor)) else { return Set::NONE };
        // Mostly there are none, and a load does not take the line from others.
        Set(if woken.0.load(SeqCst) == 0 { 0 } else { woken.0.swap(0, SeqCst) })
    }

    /// Whether [`Self::take_woken`] would say anybody: one load.
    #[inline]
    #[must_use]
    pub fn has_woken(&self, processor: u16) -> bool {
        self.woken.get(usize::from(processor)).is_some_and(|woken| woken.0.load(SeqCst) != 0)
    }

    /// `processor` has nobody to run, or has somebody again.
    pub fn set_idle(&self, processor: u16, idle: bool) {
        set(&self.idle, processor, idle);
    }

    /// The processors that have nobody to run.
    #[inline]
    #[must_use]
    pub fn idle(&self) -> Set {
        Set(self.idle.load(SeqCst))
    }

    /// Somebody stands in line on `processor`, or nobody does.
    #[inline]
    pub fn set_waiting(&self, processor: u16, waiting: bool) {
        set(&self.waiting, processor, waiting);
    }

    /// The processors on which somebody stands in line: worth taking their lock.
    #[must_use]
    pub fn waiting(&self) -> Set {
        Set(self.waiting.load(SeqCst))
    }
}

/// Sets or clears a bit; one that is right already costs a load.
#[inline]
fn set(word: &AtomicU64, number: u16, value: bool) {
    if Set(word.load(SeqCst)).has(number) != value {
        if value {
            word.fetch_or(bit(number), SeqCst)
        } else {
            word.fetch_and(!bit(number), SeqCst)
        };
    }
}
