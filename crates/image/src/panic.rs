//! A bug of L0: what happened, where, and the VMCS that was current; then the run ends.

use core::fmt::{self, Write as _};
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicU32, Ordering};

use config::STATUS_REFUSED;
use heapless::String;
use hw::percpu;

use crate::{console, dump, end, log};

/// The processor that panics first; others stop.
static PANICKING: AtomicU32 = AtomicU32::new(u32::MAX);

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let me = percpu::number();
    match PANICKING.compare_exchange(u32::MAX, me, Ordering::AcqRel, Ordering::Relaxed) {
        Ok(_) => {}
        Err(first) if first == me => end::end(
            u32::from(STATUS_REFUSED),
            format_args!("Nestling failed, and again while it said why: {}", info.message()),
        ),
        Err(_) => hw::halt::forever(),
    }
    log::abandon_frame();
    console::seize();
    let mut lines = Lines { line: String::new() };
    // Lines take any text.
    let _ = write!(lines, "{info}");
    lines.send();
    dump::current_vmcs();
    let mut reason: String<160> = String::new();
    // The sentence at the end is the first line, as far as there is room for it.
    let _ = write!(reason, "{}", info.message());
    let reason = reason.lines().next().unwrap_or_default();
    end::end(u32::from(STATUS_REFUSED), format_args!("Nestling failed, which is a bug of it: {reason}"))
}

/// Text as log messages, one a line.
struct Lines {
    line: String<160>,
}

impl Lines {
    fn send(&mut self) {
        if !self.line.is_empty() {
            defmt::error!("{=str}", self.line.as_str());
            console::plain(format_args!("{}", self.line));
            console::flush();
            self.line.clear();
        }
    }
}

impl fmt::Write for Lines {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            if character == '\n' || self.line.push(character).is_err() {
                self.send();
            }
        }
        Ok(())
    }
}
