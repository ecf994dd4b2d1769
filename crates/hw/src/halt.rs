//! Waiting without work.

use core::arch::asm;
use core::sync::atomic::Ordering;

use crate::{apic, control, percpu};

/// What woke a processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Woken {
    /// A kick.
    pub kicked: bool,
    /// The processor's timer.
    pub timer: bool,
}

/// Takes what has come for this processor since it was last asked, and forgets it.
#[inline]
pub fn take() -> Woken {
    let this = percpu::this();
    // Mostly nothing has, and a look is cheaper than an exchange.
    if !this.kicked.load(Ordering::Acquire) && !this.timer_fired.load(Ordering::Acquire) {
        return Woken::default();
    }
    Woken { kicked: this.kicked.swap(false, Ordering::Acquire), timer: this.timer_fired.swap(false, Ordering::Acquire) }
}

/// Halts until a kick or the timer has come, and takes it. Returns at once if one has come already.
///
/// An interrupt that comes between the question and the HLT is not lost: it stays pending until STI, whose effect
/// begins behind the HLT, and ends the HLT.
pub fn wait() -> Woken {
    let halting = &percpu::this().halting;
    loop {
        halting.store(true, Ordering::SeqCst);
        let woken = take();
        if woken != Woken::default() {
            halting.store(false, Ordering::SeqCst);
            // An NMI that came since has sent an interrupt, which no guest may meet.
            apic::take_late();
            return woken;
        }
        halt_once();
    }
}

/// Halts until the next interrupt of any kind.
pub fn halt_once() {
    // SAFETY: handlers set flags of this processor only.
    unsafe { asm!("sti", "hlt", "cli", options(nostack)) };
}

/// Stops this processor for good.
pub fn forever() -> ! {
    loop {
        // SAFETY: nothing is left to do here; an NMI ends the HLT, hence the loop.
        unsafe { asm!("cli", "hlt", options(nomem, nostack)) };
        control::pause();
    }
}
