//! Keys for the guests: what arrives at the console port goes to one of them, where `input=on` says so.
//!
//! Ctrl-A and a digit choose which, by its number in the description, from 1; at first it is the first. Ctrl-A twice is one
//! Ctrl-A for the guest; Ctrl-A i sends all counters to the log.

use core::sync::atomic::{AtomicBool, Ordering};

use heapless::Deque;
use hw::lock::Lock;
use hw::uart::Uart;

use crate::{guest_console, scheduler};

/// Ctrl-A.
const ESCAPE: u8 = 1;

static ON: AtomicBool = AtomicBool::new(false);
static KEYS: Lock<Keys> = Lock::new(Keys { waiting: Deque::new(), escaped: false, guest: 0 });

struct Keys {
    /// What arrived and no guest has taken.
    waiting: Deque<u8, 64>,
    /// The last one was the escape.
    escaped: bool,
    /// Who gets them.
    guest: usize,
}

/// Lets guests have what arrives.
pub(crate) fn switch_on() {
    ON.store(true, Ordering::Relaxed);
}

/// Whether they do.
pub(crate) fn is_on() -> bool {
    ON.load(Ordering::Relaxed)
}

/// Takes what has arrived at `port`.
pub(crate) fn take_from(port: &mut Uart) {
    // Who has the lock may wait for a guest's devices, and these for the ports: nobody waits for it here.
    if let Some(mut keys) = KEYS.try_lock() {
        while !keys.waiting.is_full()
            && let Some(byte) = port.try_get()
        {
            // There is room.
            let _ = keys.waiting.push_back(byte);
        }
    }
}

/// Gives guests their keys, as many as they take. The caller holds no lock of a guest's.
pub(crate) fn deliver() {
    if is_on()
        && let Some(mut keys) = KEYS.try_lock()
    {
        while let Some(byte) = keys.waiting.front().copied()
            && keys.give(byte)
        {
            keys.waiting.pop_front();
        }
    }
}

impl Keys {
    /// Does what `byte` wants; false when its guest cannot take it yet.
    fn give(&mut self, byte: u8) -> bool {
        let Some(all) = scheduler::get() else { return false };
        match (self.escaped, byte) {
            (false, ESCAPE) => self.escaped = true,
            (true, b'1'..=b'9') => {
                self.escaped = false;
                let chosen = usize::from(byte - b'1');
                if let Some(guest) = all.guests.get(chosen) {
                    self.guest = chosen;
                    guest_console::put_line(&["-- keys go to ", &guest.name]);
                }
            }
            (true, b'i') => {
                self.escaped = false;
                all.ask_for_counters();
            }
            (true, other) if other != ESCAPE => self.escaped = false,
            _ => {
                let guest = all.guests.get(self.guest).filter(|guest| guest.vm.stop().is_none());
                let taken = guest.is_none_or(|guest| guest.vm.devices(|platform, out| platform.serial_in(byte, out)));
                self.escaped &= !taken;
                return taken;
            }
        }
        true
    }
}
