//! A spin lock for state that several processors share off the exit path.
//!
//! It knows its owner: taking it twice on one processor is a bug that would otherwise hang silently. Interrupt handlers of
//! L0 take no locks, so it need not mask interrupts.

use core::cell::UnsafeCell;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicU32, Ordering};

use crate::percpu;

/// Nobody's. Zero, so that a lock around zeros takes no room in the image; an owner is its processor's number plus one.
const FREE: u32 = 0;

#[inline(always)]
fn me() -> u32 {
    percpu::number() + 1
}

/// A value that one processor at a time can reach.
pub struct Lock<T> {
    owner: AtomicU32,
    value: UnsafeCell<T>,
}

// SAFETY: the lock gives out one reference at a time, so sharing it sends the value between processors at most.
unsafe impl<T: Send> Sync for Lock<T> {}

impl<T> Lock<T> {
    /// A free lock around `value`.
    pub const fn new(value: T) -> Self {
        Self { owner: AtomicU32::new(FREE), value: UnsafeCell::new(value) }
    }

    /// Waits until the lock is free and takes it.
    ///
    /// # Panics
    /// If this processor holds it already.
    #[inline]
    pub fn lock(&self) -> Guard<'_, T> {
        loop {
            if let Some(guard) = self.try_lock() {
                return guard;
            }
            if self.owner.load(Ordering::Relaxed) == me() {
                taken_twice();
            }
            core::hint::spin_loop();
        }
    }

    /// Takes the lock if it is free.
    #[inline]
    pub fn try_lock(&self) -> Option<Guard<'_, T>> {
        self.owner
            .compare_exchange(FREE, me(), Ordering::Acquire, Ordering::Relaxed)
            .is_ok()
            .then(|| Guard { lock: self })
    }

    /// Frees the lock whoever holds it.
    ///
    /// # Safety
    /// The holder will not run again: the machine is about to end, on this processor.
    pub unsafe fn break_open(&self) {
        self.owner.store(FREE, Ordering::Release);
    }
}

#[cold]
#[expect(clippy::panic, reason = "a bug of L0")]
fn taken_twice() -> ! {
    panic!("a processor waits for a lock that it holds itself")
}

/// The right to use the locked value; frees the lock when dropped.
pub struct Guard<'a, T> {
    lock: &'a Lock<T>,
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: while the guard lives no other one exists.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T> DerefMut for Guard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as in `deref`, and the guard itself is borrowed exclusively.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T> Drop for Guard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.lock.owner.store(FREE, Ordering::Release);
    }
}
