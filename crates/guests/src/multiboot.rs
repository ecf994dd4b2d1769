//! What the loader said: command line, modules, size of memory. Multiboot 0.6.96, section 3.3 "Boot information format".

use core::sync::atomic::{AtomicU8, AtomicU32, AtomicUsize, Ordering};

use crate::memory;

/// The longest command line kept, in bytes.
const LONGEST: usize = 1024;
/// The most modules kept.
const MOST_MODULES: usize = 8;

/// Where the information is. The command line is copied because it may lie where the other processors start.
static INFORMATION: AtomicU32 = AtomicU32::new(0);
static COMMAND_LINE: [AtomicU8; LONGEST] = [const { AtomicU8::new(0) }; LONGEST];
static COMMAND_LINE_LENGTH: AtomicUsize = AtomicUsize::new(0);
static MODULES: [[AtomicU32; 3]; MOST_MODULES] = [const { [const { AtomicU32::new(0) }; 3] }; MOST_MODULES];
static MODULE_COUNT: AtomicUsize = AtomicUsize::new(0);
static UPPER_KIB: AtomicU32 = AtomicU32::new(0);

/// A file that was loaded with the guest.
pub struct Module {
    /// Its contents.
    pub contents: &'static [u8],
    /// Its command line.
    pub command_line: &'static str,
}

fn text(address: u32) -> &'static str {
    let length = (0..LONGEST as u64).take_while(|i| memory::read::<u8>(u64::from(address) + i) != 0).count();
    core::str::from_utf8(memory::bytes(address.into(), length)).unwrap_or("(not text)")
}

/// Keeps what is at `information`.
pub(crate) fn init(information: u32) {
    let field = |offset: u64| memory::read::<u32>(u64::from(information) + offset);
    INFORMATION.store(information, Ordering::Relaxed);
    let flags = field(0);
    if flags & 1 != 0 {
        UPPER_KIB.store(field(8), Ordering::Relaxed);
    }
    if flags & 1 << 2 != 0 {
        let line = text(field(16));
        for (kept, byte) in COMMAND_LINE.iter().zip(line.bytes()) {
            kept.store(byte, Ordering::Relaxed);
        }
        COMMAND_LINE_LENGTH.store(line.len(), Ordering::Relaxed);
    }
    if flags & 1 << 3 != 0 {
        let count = MOST_MODULES.min(field(20) as usize);
        for (index, kept) in MODULES.iter().take(count).enumerate() {
            let entry = u64::from(field(24)) + 16 * index as u64;
            for (part, kept) in kept.iter().enumerate() {
                kept.store(memory::read(entry + 4 * part as u64), Ordering::Relaxed);
            }
        }
        MODULE_COUNT.store(count, Ordering::Relaxed);
    }
}

/// The whole command line.
pub fn command_line() -> &'static str {
    let bytes = memory::bytes(&raw const COMMAND_LINE as u64, COMMAND_LINE_LENGTH.load(Ordering::Relaxed));
    core::str::from_utf8(bytes).unwrap_or("(not text)")
}

/// The words after the first, which is the guest's file name.
pub fn arguments() -> impl Iterator<Item = &'static str> {
    command_line().split_ascii_whitespace().skip(1)
}

/// The value of the argument `name=value`, in decimal.
pub fn number(name: &str) -> Option<u32> {
    arguments().find_map(|word| word.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
}

/// Whether the argument `without-NAME` asks to leave a feature alone that this machine may have and another one has not,
/// so that both give the same log.
pub fn is_without(feature: &str) -> bool {
    arguments().any(|word| word.strip_prefix("without-") == Some(feature))
}

/// The modules in the loader's order.
pub fn modules() -> impl Iterator<Item = Module> {
    MODULES.iter().take(MODULE_COUNT.load(Ordering::Relaxed)).map(|module| {
        let [start, end, line] = module.each_ref().map(|part| part.load(Ordering::Relaxed));
        Module {
            contents: memory::bytes(start.into(), end.saturating_sub(start) as usize),
            command_line: if line == 0 { "" } else { text(line) },
        }
    })
}

/// Memory from 1 MiB up to the first hole, in KiB.
pub fn upper_kib() -> u32 {
    UPPER_KIB.load(Ordering::Relaxed)
}
