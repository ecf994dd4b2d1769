//! What the VMs write to their COM1s, until the ports take it.
//!
//! A VM that is alone has the console port to itself, byte by byte. Several share it line by line, each line behind the name of
//! its VM: `linux| text`. A line that is longer than there is room for, or that nothing is added to for some time, goes out in
//! parts, all but the last of them marked as such: `linux> login: `. So no byte of a VM is lost or made up, and a program can
//! have each VM's bytes back: what stands behind the mark, without the line's end where the mark is that of a part. A port that
//! a VM has of its own gets its bytes as they are.

use config::protocol::{LINE_MARK, PART_MARK};
use config::vm::{MAX_NAME, MAX_VMS};
use config::{CONFIG_MODULE, Console, SerialPort};
use heapless::{Deque, String, Vec};
use hw::lock::Lock;
use hw::{percpu, tsc};

use crate::end::refuse;
use crate::{console, log};

/// Bytes of a line that are kept until it is complete.
const LINE: usize = 256;
/// Bytes that wait for a port.
pub(crate) type Queue = Deque<u8, 4096>;

/// All of it. Empty, and so without room in the image, until VMs are made.
static WRITTEN: Lock<Written> = Lock::new(Written {
    vms: Vec::new(),
    console: Deque::new(),
    own: [const { Deque::new() }; SerialPort::ALL.len()],
    as_messages: false,
});

/// What was written and not sent.
pub(crate) struct Written {
    /// By number.
    vms: Vec<Source, MAX_VMS>,
    /// For the console port.
    pub console: Queue,
    /// For the ports that VMs have of their own, as in [`SerialPort::ALL`].
    pub own: [Queue; SerialPort::ALL.len()],
    /// The console shares its port with the log: lines travel in log messages.
    as_messages: bool,
}

/// A VM's COM1.
struct Source {
    name: String<MAX_NAME>,
    goes_to: Console,
    /// The line that is being collected, unless its bytes go out as they are.
    line: Vec<u8, LINE>,
    /// When it got its last byte, in TSC ticks.
    added: u64,
}

/// Lets the console port and the log share a port.
pub(crate) fn share_port_with_log() {
    WRITTEN.lock().as_messages = true;
}

/// Gives the next VM its console: VMs are numbered as they come here, from 0, before the first of them runs.
pub(crate) fn register(name: &str, goes_to: Console) {
    if let Console::Port(port) = goes_to
        && !console::open_own(port)
    {
        refuse(format_args!(
            "{CONFIG_MODULE}: virtual machine {name}, key console: this machine has no {}",
            port.name()
        ))
    }
    // A description has no longer name, and no more VMs, than there is room for.
    let name = String::try_from(name).unwrap_or_default();
    let _ = WRITTEN.lock().vms.push(Source { name, goes_to, line: Vec::new(), added: 0 });
}

/// Takes a byte that a VM wrote. Waits only while there is no room for it.
#[inline(never)]
pub(crate) fn put(vm: usize, byte: u8) {
    wait_for(&mut |written| written.take(vm, byte));
}

/// A line, in parts, for the console port itself.
pub(crate) fn put_line(parts: &[&str]) {
    for byte in parts.iter().chain(&["\n"]).flat_map(|part| part.bytes()) {
        wait_for(&mut |written| written.console.push_back(byte).is_ok());
    }
}

/// The VM has ended: what it left of a line goes out.
pub(crate) fn ended(vm: usize) {
    wait_for(&mut |written| written.end_line(vm, PART_MARK));
}

/// A function and not a kind of them: the image is to be small.
#[inline(never)]
fn wait_for(done: &mut dyn FnMut(&mut Written) -> bool) {
    while !done(&mut WRITTEN.lock()) {
        console::pump_ports();
    }
    console::wants_pump();
}

/// Sends the lines on that got nothing for a while before `now`. Returns when there may be more of them.
pub(crate) fn send_parts(now: u64) -> u64 {
    let patience = tsc::frequency() / 5;
    let mut written = WRITTEN.lock();
    let mut next = u64::MAX;
    for vm in 0..written.vms.len() {
        let due = match written.vms.get(vm) {
            Some(source) if !source.line.is_empty() => source.added.saturating_add(patience),
            _ => continue,
        };
        if due > now || !written.end_line(vm, PART_MARK) {
            next = next.min(due);
        }
    }
    next
}

/// Hands out what waits for the ports.
pub(crate) fn with_written<T>(act: impl FnOnce(&mut Written) -> T) -> T {
    act(&mut WRITTEN.lock())
}

/// Takes the lock from whoever holds it: this processor is about to end the machine.
pub(crate) fn seize() {
    if !hw::delay::until(100_000, || WRITTEN.try_lock().is_some()) {
        // SAFETY: the holder is this processor, in what it does not return to, or one that stands still.
        unsafe { WRITTEN.break_open() };
    }
}

impl Written {
    /// Takes a byte; false when there is no room.
    fn take(&mut self, vm: usize, byte: u8) -> bool {
        let is_alone = self.vms.len() == 1;
        let Some(source) = self.vms.get_mut(vm) else { return true };
        match source.goes_to {
            Console::None => return true,
            Console::Port(port) => return self.own[port as usize].push_back(byte).is_ok(),
            Console::Shared if is_alone && !self.as_messages => return self.console.push_back(byte).is_ok(),
            Console::Shared => {}
        }
        if byte == b'\n' {
            return self.end_line(vm, LINE_MARK);
        }
        if source.line.is_full() && !self.end_line(vm, PART_MARK) {
            return false;
        }
        let as_messages = self.as_messages;
        if let Some(source) = self.vms.get_mut(vm)
            && (!as_messages || matches!(byte, b' '..=b'~'))
        {
            source.added = tsc::now();
            // There is room.
            let _ = source.line.push(byte);
        }
        true
    }

    /// Sends the line of a VM on, as a whole or as a part; false when there is no room. A part has bytes.
    fn end_line(&mut self, vm: usize, mark: &str) -> bool {
        let is_alone = self.vms.len() == 1;
        let Some(source) = self.vms.get_mut(vm) else { return true };
        if mark == PART_MARK && source.line.is_empty() {
            return true;
        }
        let name = if is_alone { "L1" } else { source.name.as_str() };
        let bytes = name.len() + mark.len() + source.line.len() + 1;
        if self.as_messages {
            // As a frame they grow, and a message has its text's number and its time.
            if log::ring(percpu::number() as usize).is_some_and(|ring| ring.room() < 2 * bytes + 64) {
                return false;
            }
            let line = core::str::from_utf8(&source.line).unwrap_or_default();
            let mark = if is_alone { ": " } else { mark };
            defmt::println!("{=str}{=str}{=str}", name, mark, line);
        } else {
            if self.console.capacity() - self.console.len() < bytes {
                return false;
            }
            let line = name.bytes().chain(mark.bytes()).chain(source.line.iter().copied()).chain(*b"\n");
            self.console.extend(line);
        }
        source.line.clear();
        true
    }
}
