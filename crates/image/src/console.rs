//! The two serial lines: L1's console, and the log.
//!
//! The screen shows Nestling's own sentences, and L1's console where no port takes it; memory keeps the log for the next run.
//!
//! Nobody waits for a line but at the end. [`pump`] sends what the ports take at the moment; it is called while a processor
//! idles and on slow paths, by any processor, and only one at a time does the work. Where a machine has one port for
//! both, L1's bytes travel in log messages.

use core::fmt::{self, Write as _};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use config::{ImageOptions, SerialPort};
use heapless::{Deque, String};
use hw::layout::MAX_PROCESSORS;
use hw::lock::Lock;
use hw::uart::Uart;
use hw::watchdog::Watchdog;
use hw::{delay, percpu, tsc};

use crate::{kept, log, screen};

/// What L1 wrote and the console has not sent yet.
static L1: Lock<L1Bytes> = Lock::new(L1Bytes { queue: Deque::new(), line: String::new() });

struct L1Bytes {
    queue: Deque<u8, 4096>,
    /// With one port for both: the line that is being collected.
    line: String<80>,
}

static LINES: Lock<Lines> = Lock::new(Lines { console: None, log: None, ring: 0, within_frame: false, watchdog: None });

/// L1's bytes travel in log messages.
static SHARED: AtomicBool = AtomicBool::new(false);

/// When [`pump`] should be called again, in TSC ticks; `u64::MAX` while nothing waits to be sent.
static DEADLINE: AtomicU64 = AtomicU64::new(u64::MAX);

/// When the lines want [`pump`], in TSC ticks; `u64::MAX` while nothing waits.
#[inline(always)]
pub(crate) fn deadline() -> u64 {
    DEADLINE.load(Ordering::Relaxed)
}

/// Something waits to be sent.
pub(crate) fn wants_pump() {
    if DEADLINE.load(Ordering::Relaxed) == u64::MAX {
        DEADLINE.store(0, Ordering::Relaxed);
    }
}

struct Lines {
    console: Option<Uart>,
    log: Option<Uart>,
    /// The processor whose messages are being sent.
    ring: usize,
    /// The last byte sent was not the end of a message: the next one comes from the same ring.
    within_frame: bool,
    /// Reloaded by the boot processor whenever it passes here: it runs the devices, so nothing goes on without it.
    watchdog: Option<Watchdog>,
}

/// Opens the ports that `options` names.
pub(crate) fn open(options: &ImageOptions) {
    // SAFETY: a PC has a 16550 or nothing at these ports, and nobody else in L0 uses them.
    let open = |port: SerialPort| unsafe { Uart::new(port.io_port()) };
    let shared = options.console == options.log && options.log.is_some();
    SHARED.store(shared, Ordering::Relaxed);
    let mut lines = LINES.lock();
    lines.log = options.log.and_then(open);
    lines.console = if shared { None } else { options.console.and_then(open) };
}

/// From now on the machine is reset when the boot processor stands still.
pub(crate) fn watch(watchdog: Watchdog) {
    LINES.lock().watchdog = Some(watchdog);
    DEADLINE.store(0, Ordering::Relaxed);
}

/// Ends that: the machine is to stay as it is.
pub(crate) fn unwatch() {
    if let Some(watchdog) = LINES.try_lock().and_then(|mut lines| lines.watchdog.take()) {
        watchdog.stop();
    }
}

impl Lines {
    /// The next byte of the log.
    fn next(&mut self) -> Option<u8> {
        if !self.within_frame {
            let with_bytes = |number: &usize| log::ring(*number).is_some_and(log::Ring::has_bytes);
            self.ring = (self.ring + 1..MAX_PROCESSORS).chain(0..=self.ring).find(with_bytes)?;
        }
        let byte = log::ring(self.ring)?.pop()?;
        self.within_frame = byte != 0;
        kept::keep_frame(byte);
        Some(byte)
    }

    /// Sends what the ports take now. Returns whether everything has been handed to them.
    fn send(&mut self) -> bool {
        let mut done = true;
        match &mut self.console {
            None if SHARED.load(Ordering::Relaxed) => {}
            None => {
                let mut l1 = L1.lock();
                while let Some(byte) = l1.queue.pop_front() {
                    screen::show(&[byte]);
                }
            }
            Some(console) => {
                let mut l1 = L1.lock();
                while !l1.queue.is_empty() {
                    if !console.ready() {
                        done = false;
                        break;
                    }
                    if let Some(byte) = l1.queue.pop_front() {
                        console.try_put(byte);
                    }
                }
            }
        }
        loop {
            if self.log.as_mut().is_some_and(|log| !log.ready()) {
                let empty =
                    !self.within_frame && !(0..MAX_PROCESSORS).any(|n| log::ring(n).is_some_and(log::Ring::has_bytes));
                return done && empty;
            }
            // The run before speaks first, and whole.
            let before = if self.within_frame { None } else { kept::next_before() };
            let Some(byte) = before.or_else(|| self.next()) else { return done };
            // Without a port the messages go nowhere.
            if let Some(log) = &mut self.log {
                log.try_put(byte);
            }
        }
    }
}

/// Sends what the ports take now. Returns at once when another processor is at it.
pub(crate) fn pump() {
    if let Some(mut lines) = LINES.try_lock() {
        let is_boot_processor = percpu::number() == 0;
        if let Some(watchdog) = lines.watchdog.filter(|_| is_boot_processor) {
            watchdog.reload();
        }
        let now = tsc::now();
        let deadline = if !lines.send() {
            // A character takes 87 microseconds at 115200 bit/s, and a 16550 takes 16 at once.
            now.saturating_add(tsc::frequency() / 1000)
        } else if lines.watchdog.is_none() {
            u64::MAX
        } else if is_boot_processor {
            now.saturating_add(tsc::frequency())
        } else {
            // It is the boot processor that has to come by: another one leaves it its deadline.
            DEADLINE.load(Ordering::Relaxed)
        };
        DEADLINE.store(deadline, Ordering::Relaxed);
    }
    report_lost();
}

/// Says how many messages did not fit, once there is room again to say so.
fn report_lost() {
    const ROOM: usize = 128;
    if log::ring(percpu::number() as usize).is_none_or(|ring| ring.room() < ROOM) {
        return;
    }
    for number in 0..MAX_PROCESSORS {
        let Some(ring) = log::ring(number) else { continue };
        match ring.take_lost() {
            0 => {}
            lost => {
                defmt::warn!("{=u32} log messages of processor {=usize} were lost: its buffer was full", lost, number)
            }
        }
    }
}

/// Sends a byte that L1 wrote to its console. Waits only while the buffer is full.
pub(crate) fn put(byte: u8) {
    if SHARED.load(Ordering::Relaxed) {
        put_as_message(byte);
        return;
    }
    while L1.lock().queue.push_back(byte).is_err() {
        pump();
    }
    wants_pump();
}

/// Collects a line of L1's and sends it as a log message.
fn put_as_message(byte: u8) {
    let mut l1 = L1.lock();
    let shown = if byte.is_ascii_graphic() || byte == b' ' { Some(char::from(byte)) } else { None };
    if let Some(shown) = shown {
        // The line has room: it is sent when it is full.
        let _ = l1.line.push(shown);
    }
    let full = l1.line.len() == l1.line.capacity();
    if byte == b'\n' || full {
        while log::ring(percpu::number() as usize).is_some_and(|ring| ring.room() < 128) {
            pump();
        }
        defmt::println!("L1: {=str}", l1.line.as_str());
        l1.line.clear();
    }
}

/// Bytes of a line of plain text.
const LINE: usize = 512;

/// Writes text to the console, line by line.
pub(crate) struct Text(String<LINE>);

impl Text {
    pub(crate) const fn new() -> Self {
        Self(String::new())
    }
}

impl fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            if character != '\n' {
                self.0.push(character).map_err(|_| fmt::Error)?;
                continue;
            }
            if SHARED.load(Ordering::Relaxed) {
                plain(format_args!("{}", self.0));
            } else {
                self.0.bytes().chain(*b"\n").for_each(put);
            }
            self.0.clear();
        }
        Ok(())
    }
}

/// Sends everything and waits until it has left the machine; gives up on a line that stands still for a second.
pub(crate) fn flush() {
    const PATIENCE_MICROS: u64 = 1_000_000;
    report_lost();
    // A full ring and a full console buffer take less than a second at 115200 bit/s.
    delay::until(2 * PATIENCE_MICROS, || LINES.try_lock().is_some_and(|mut lines| lines.send()));
    delay::until(PATIENCE_MICROS, || {
        LINES.try_lock().is_some_and(|lines| [&lines.console, &lines.log].into_iter().flatten().all(Uart::is_idle))
    });
}

/// Takes the lines from whoever holds them: this processor is about to end the machine.
pub(crate) fn seize() {
    if !delay::until(100_000, || LINES.try_lock().is_some()) {
        // SAFETY: the holder is this processor, in what it does not return to, or one that stands still.
        unsafe { LINES.break_open() };
    }
    if !delay::until(100_000, || L1.try_lock().is_some()) {
        // SAFETY: as above.
        unsafe { L1.break_open() };
    }
    screen::seize();
}

/// Writes a line of plain text for a person: on the screen, for the next run to show, and where the log shares its port with
/// the console, because there nobody may be decoding the log.
pub(crate) fn plain(text: fmt::Arguments<'_>) {
    let mut line: String<LINE> = String::new();
    // What is too long is cut.
    let _ = line.write_fmt(text);
    screen::show(line.as_bytes());
    screen::show(b"\n");
    if let Some(_lines) = LINES.try_lock() {
        kept::keep_text(&line);
        kept::keep_text("\n");
    }
    if !SHARED.load(Ordering::Relaxed) {
        return;
    }
    flush();
    if let Some(mut lines) = LINES.try_lock()
        && let Some(log) = &mut lines.log
    {
        // Zeros keep the text apart from the log's frames. A port that stands still loses it.
        let _ = write!(Plain(log), "\0\r\n{text}\r\n\0");
    }
}

struct Plain<'a>(&'a mut Uart);

impl fmt::Write for Plain<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if !delay::until(100_000, || self.0.try_put(byte)) {
                return Err(fmt::Error);
            }
        }
        Ok(())
    }
}
