//! The serial lines: the guests' console, the ports that guests have of their own, and the log.
//!
//! The screen shows Nestling's own sentences, and the console where no port takes it; memory keeps the log for the next run.
//! [`guest_console`] has what the guests wrote.
//!
//! Nobody waits for a line but at the end. [`pump`] sends what the ports take at the moment; it is called while a processor
//! idles and on slow paths, by any processor, and only one at a time does the work. Where a machine has one port for
//! console and log, the guests' lines travel in log messages.

use core::fmt::{self, Write as _};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use config::{ImageOptions, SerialPort};
use heapless::String;
use hw::lock::Lock;
use hw::uart::Uart;
use hw::watchdog::Watchdog;
use hw::{delay, percpu, tsc};

use crate::guest_console::{self, Queue};
use crate::{input, kept, log, screen};

static LINES: Lock<Lines> = Lock::new(Lines {
    console: None,
    own: [const { None }; SerialPort::ALL.len()],
    log: None,
    ring: 0,
    within_frame: false,
    watchdog: None,
});

/// Console and log have one port.
static SHARED: AtomicBool = AtomicBool::new(false);

/// When [`pump`] should be called again, in TSC ticks; `u64::MAX` while nothing waits to be sent.
static DEADLINE: AtomicU64 = AtomicU64::new(u64::MAX);

/// When the lines want [`pump`], in TSC ticks; `u64::MAX` while nothing waits.
#[inline(always)]
pub(crate) fn deadline() -> u64 {
    DEADLINE.load(Ordering::Relaxed)
}

/// Something waits to be sent, or will.
pub(crate) fn wants_pump() {
    // A pump that is to come soon finds a port that was busy ready again.
    if DEADLINE.load(Ordering::Relaxed) > tsc::now().saturating_add(busy_ticks()) {
        DEADLINE.store(0, Ordering::Relaxed);
    }
}

/// For how long a port that takes no more is left alone: a character takes 87 microseconds at 115200 bit/s, and a 16550 takes 16
/// at once.
fn busy_ticks() -> u64 {
    tsc::frequency() / 1000
}

struct Lines {
    console: Option<Uart>,
    /// What guests have of their own, by number.
    own: [Option<Uart>; SerialPort::ALL.len()],
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
    let shared = options.console == options.log && options.log.is_some();
    SHARED.store(shared, Ordering::Relaxed);
    if shared {
        guest_console::share_port_with_log();
    }
    if options.input {
        input::switch_on();
        DEADLINE.store(0, Ordering::Relaxed);
    }
    let mut lines = LINES.lock();
    lines.log = options.log.and_then(open_port);
    lines.console = if shared { None } else { options.console.and_then(open_port) };
}

/// Opens a port that a guest shall have for itself. False when the machine does not have it.
pub(crate) fn open_own(port: SerialPort) -> bool {
    let uart = open_port(port);
    let is_there = uart.is_some();
    LINES.lock().own[port as usize] = uart;
    is_there
}

fn open_port(port: SerialPort) -> Option<Uart> {
    // SAFETY: a PC has a 16550 or nothing at these ports. Nobody else in L0 uses them: console and log are opened once, and the
    // description may give a guest neither of them, nor one to two guests.
    unsafe { Uart::new(port.io_port()) }
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
            // In turn, the last one last.
            let mut waiting = log::rings().filter(|(_, ring)| ring.has_bytes()).map(|(number, _)| number);
            let first = waiting.clone().next();
            self.ring = waiting.find(|number| *number > self.ring).or(first)?;
        }
        let byte = log::ring(self.ring)?.pop()?;
        self.within_frame = byte != 0;
        kept::keep_frame(byte);
        Some(byte)
    }

    /// Takes what arrived at the console's port.
    fn receive(&mut self) {
        let port = if SHARED.load(Ordering::Relaxed) { &mut self.log } else { &mut self.console };
        if let Some(port) = port {
            input::take_from(port);
        }
    }

    /// Sends what the ports take now. Returns whether everything has been handed to them.
    fn send(&mut self) -> bool {
        let done = guest_console::with_written(|written| {
            let mut done = true;
            match &mut self.console {
                // With SHARED nothing is there.
                None => {
                    while let Some(byte) = written.console.pop_front() {
                        screen::show(&[byte]);
                    }
                }
                Some(console) => done = send(&mut written.console, console),
            }
            for (queue, own) in written.own.iter_mut().zip(&mut self.own) {
                if let Some(own) = own {
                    done &= send(queue, own);
                }
            }
            done
        });
        loop {
            if self.log.as_mut().is_some_and(|log| !log.ready()) {
                let empty = !self.within_frame && !log::rings().any(|(_, ring)| ring.has_bytes());
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

/// Sends what the port takes now. Returns whether that was all.
fn send(queue: &mut Queue, port: &mut Uart) -> bool {
    while !queue.is_empty() {
        if !port.ready() {
            return false;
        }
        if let Some(byte) = queue.pop_front() {
            port.try_put(byte);
        }
    }
    true
}

/// Sends what the ports take now, and gives guests what arrived. The caller holds no lock of a guest's.
pub(crate) fn pump() {
    pump_ports();
    input::deliver();
}

/// Sends what the ports take now. Returns at once when another processor is at it.
pub(crate) fn pump_ports() {
    if let Some(mut lines) = LINES.try_lock() {
        let is_boot_processor = percpu::number() == 0;
        if let Some(watchdog) = lines.watchdog.filter(|_| is_boot_processor) {
            watchdog.reload();
        }
        let now = tsc::now();
        // What comes while this is at work asks for itself.
        let before = DEADLINE.swap(u64::MAX, Ordering::Relaxed);
        let parts = guest_console::send_parts(now);
        let deadline = if !lines.send() {
            now.saturating_add(busy_ticks())
        } else if lines.watchdog.is_none() {
            u64::MAX
        } else if is_boot_processor {
            now.saturating_add(tsc::frequency())
        } else {
            // It is the boot processor that has to come by: another one leaves it its deadline.
            before
        };
        let keys = if input::is_on() {
            lines.receive();
            now.saturating_add(tsc::frequency() / 100)
        } else {
            u64::MAX
        };
        DEADLINE.fetch_min(deadline.min(parts).min(keys), Ordering::Relaxed);
    }
    report_lost();
}

/// Says how many messages did not fit, once there is room again to say so.
fn report_lost() {
    const ROOM: usize = 128;
    if log::ring(percpu::number() as usize).is_none_or(|ring| ring.room() < ROOM) {
        return;
    }
    for (number, ring) in log::rings() {
        match ring.take_lost() {
            0 => {}
            lost => {
                defmt::warn!("{=u32} log messages of processor {=usize} were lost: its buffer was full", lost, number)
            }
        }
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
                guest_console::put_line(&[&self.0]);
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
    delay::until(2 * PATIENCE_MICROS, || {
        guest_console::send_parts(u64::MAX) == u64::MAX && LINES.try_lock().is_some_and(|mut lines| lines.send())
    });
    delay::until(PATIENCE_MICROS, || {
        LINES.try_lock().is_some_and(|lines| {
            [&lines.console, &lines.log].into_iter().chain(&lines.own).flatten().all(Uart::is_idle)
        })
    });
}

/// Takes the lines from whoever holds them: this processor is about to end the machine.
pub(crate) fn seize() {
    if !delay::until(100_000, || LINES.try_lock().is_some()) {
        // SAFETY: the holder is this processor, in what it does not return to, or one that stands still.
        unsafe { LINES.break_open() };
    }
    guest_console::seize();
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
