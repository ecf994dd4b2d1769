//! One run of an emulated machine: starting it, following what comes out of it, noticing its end.

use crate::bochs::{self, Event};
use crate::defmt_log::{self, Decoder, Line};
use crate::keys::Wire;
use crate::places;
use anyhow::{Context, Result};
use config::{STATUS_REFUSED, STATUS_TIMEOUT, SerialPort};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::time::{Duration, Instant};

/// How often the files that the emulator writes are looked at.
const POLL: Duration = Duration::from_millis(20);
/// How long the emulator may take to stop after Nestling has said that the run is over.
const GRACE: Duration = Duration::from_secs(10);
/// The status of a run that its user ended, as a shell has it after Ctrl-C.
const STATUS_ENDED: u8 = 130;
/// Lines of the emulator's own log that are kept for the person to read after a failure.
const KEPT_LINES: usize = 12;

/// Who takes what comes out of the machine.
pub(crate) trait Listener {
    /// Bytes of the console port.
    fn console(&mut self, bytes: &[u8]);
    /// Bytes of a port that a guest has for itself.
    fn own_port(&mut self, _port: SerialPort, _bytes: &[u8]) {}
    /// A line of Nestling's log.
    fn log(&mut self, line: &Line);
    /// Keys for the guests since the last time; none when the run is to end.
    fn keys(&mut self) -> Option<Vec<u8>> {
        Some(Vec::new())
    }
}

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// The status for the shell.
    pub(crate) status: u8,
    /// One sentence saying why.
    pub(crate) reason: String,
    /// Ticks of the emulated machine from power-on to its end, where the emulator counts them.
    pub(crate) ticks: Option<u64>,
    /// The last lines of the emulator's own log, for failures that Nestling could not explain.
    pub(crate) emulator_log: Vec<String>,
}

/// What is started.
pub(crate) struct Session<'a> {
    /// The emulator, to be started in `dir`, where it writes `com1`, `com2` and what more ports the machine has.
    pub(crate) command: Command,
    pub(crate) dir: &'a Path,
    /// Reads Nestling's log from `com2`; none when the machine runs without Nestling.
    pub(crate) decoder: Option<Decoder>,
    /// Whether the emulator is QEMU, whose exit status tells of the guest's exit port.
    pub(crate) is_qemu: bool,
    pub(crate) timeout: Option<Duration>,
    /// Where keys go.
    pub(crate) wire: Option<Wire>,
}

impl Session<'_> {
    /// Runs the machine to its end.
    pub(crate) fn run(mut self, listener: &mut dyn Listener) -> Result<Outcome> {
        // Bochs's log and QEMU's complaints come on standard error.
        self.command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = self.command.spawn().context("cannot start the emulator")?;
        let result = self.follow(&mut child, listener);
        // On every way out: the emulator must not outlive the run.
        let _ = child.kill();
        let _ = child.wait();
        result
    }

    fn follow(&mut self, child: &mut Child, listener: &mut dyn Listener) -> Result<Outcome> {
        let lines = read_lines(child.stderr.take().context("the emulator has no output")?);
        let mut emulator = EmulatorLog { ticks: None, kept: VecDeque::new() };
        let [mut com1, mut com2, mut com3, mut com4] =
            SerialPort::ALL.map(|port| Tail::new(self.dir.join(port.name())));
        let started = Instant::now();
        let mut said: Option<(u8, String, Instant)> = None;
        loop {
            // The order matters at the end: first see that the emulator has gone, then read what it left.
            let exited = child.try_wait().context("cannot wait for the emulator")?;
            let event = emulator.read(&lines, exited.is_some());
            if event.is_some() || exited.is_some() {
                self.unplug(child);
            }
            listen(&mut com1, |bytes| listener.console(bytes))?;
            listen(&mut com3, |bytes| listener.own_port(SerialPort::Com3, bytes))?;
            listen(&mut com4, |bytes| listener.own_port(SerialPort::Com4, bytes))?;
            let mut log = Vec::new();
            if let Some(decoder) = &mut self.decoder {
                log.extend(decoder.feed(&com2.read()?));
                if exited.is_some() || event.is_some() {
                    log.extend(decoder.finish());
                }
            }
            for line in &log {
                listener.log(line);
                if let Some((status, reason)) = defmt_log::end_of_run(&line.message) {
                    said = Some((status, reason, Instant::now()));
                }
            }
            let keys = listener.keys();
            if let (Some(wire), Some(keys)) = (&mut self.wire, &keys) {
                wire.send(keys);
            }
            let has_ended = exited.is_some() || event.is_some();
            let end = if let Some((status, reason, since)) = &said
                && (has_ended || since.elapsed() > GRACE)
            {
                // Nestling's own word comes before what the emulator makes of it.
                Some((*status, reason.clone()))
            } else if let Some(event) = event {
                Some(self.judge(event))
            } else if let Some(status) = exited {
                Some(self.judge_exit(status.code()))
            } else if self.timeout.is_some_and(|limit| started.elapsed() > limit) {
                let limit = self.timeout.unwrap_or_default().as_secs();
                Some((STATUS_TIMEOUT, format!("the time limit of {limit} s is over; the machine was stopped")))
            } else if keys.is_none() {
                Some((STATUS_ENDED, "the keys Ctrl-A x stopped the machine".to_owned()))
            } else {
                None
            };
            if let Some((status, reason)) = end {
                return Ok(Outcome { status, reason, ticks: emulator.ticks, emulator_log: emulator.kept.into() });
            }
            std::thread::sleep(POLL);
        }
    }

    /// Sees to it that the last bytes of COM1 are where they are read, when the machine has ended.
    fn unplug(&mut self, child: &mut Child) {
        if let Some(wire) = self.wire.take() {
            let started = Instant::now();
            while matches!(child.try_wait(), Ok(None)) && started.elapsed() < GRACE {
                std::thread::sleep(POLL);
            }
            let _ = child.kill();
            wire.finish();
        }
    }

    fn is_bare(&self) -> bool {
        self.decoder.is_none()
    }

    fn judge(&self, event: Event) -> (u8, String) {
        let failed = STATUS_REFUSED;
        match event {
            Event::ExitPort(value) if self.is_bare() => exit_port(value),
            Event::PowerOff if self.is_bare() => (0, "the guest powered off".to_owned()),
            Event::Reset if self.is_bare() => (0, "the guest reset the machine".to_owned()),
            Event::Shutdown if self.is_bare() => (0, "the guest ended the emulator".to_owned()),
            Event::TripleFault if self.is_bare() => (failed, "a triple fault stopped the machine".to_owned()),
            Event::TripleFault => (failed, "a triple fault in Nestling stopped the machine".to_owned()),
            Event::Panic(why) => (failed, format!("the emulator gave up: {why}")),
            Event::ExitPort(_) | Event::PowerOff | Event::Shutdown | Event::Reset => {
                (failed, "the machine ended and Nestling did not say why".to_owned())
            }
        }
    }

    fn judge_exit(&self, code: Option<i32>) -> (u8, String) {
        match code {
            // QEMU ends with twice the exit port's value plus one, or with 0 after a power-off or reset.
            Some(code) if self.is_qemu && self.is_bare() && code & 1 == 1 => {
                exit_port(u32::try_from(code >> 1).unwrap_or(1))
            }
            Some(0) if self.is_qemu && self.is_bare() => (0, "the guest powered off or reset the machine".to_owned()),
            _ => (STATUS_REFUSED, "the emulator ended and nobody said why".to_owned()),
        }
    }
}

fn exit_port(value: u32) -> (u8, String) {
    let low = u8::try_from(value & 0xFF).unwrap_or(u8::MAX);
    // A shell sees eight bits of a status, and must not see success where there was none.
    (if low == 0 && value != 0 { 1 } else { low }, format!("the guest wrote {value} to its exit port"))
}

fn listen(port: &mut Tail, hear: impl FnOnce(&[u8])) -> Result<()> {
    let bytes = port.read()?;
    if !bytes.is_empty() {
        hear(&bytes);
    }
    Ok(())
}

/// The emulator's own log as it comes.
struct EmulatorLog {
    ticks: Option<u64>,
    kept: VecDeque<String>,
}

impl EmulatorLog {
    /// Reads the lines there are, all of them once the emulator has gone, up to the first that ends the run.
    fn read(&mut self, lines: &Receiver<String>, has_exited: bool) -> Option<Event> {
        loop {
            let line = match lines.try_recv() {
                Ok(line) => line,
                Err(TryRecvError::Empty) if has_exited => match lines.recv() {
                    Ok(line) => line,
                    Err(_) => return None,
                },
                Err(_) => return None,
            };
            let (ticks, event) = bochs::read_line(&line);
            self.ticks = ticks.or(self.ticks);
            // Unmapped ports are many and tell nobody anything but this program.
            if !line.contains("d[UNMAP ]") {
                if self.kept.len() == KEPT_LINES {
                    self.kept.pop_front();
                }
                self.kept.push_back(line);
            }
            if event.is_some() {
                return event;
            }
        }
    }
}

/// Lines of a pipe, read by a thread so that the emulator never waits for us.
fn read_lines(pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).split(b'\n') {
            let Ok(line) = line else { break };
            if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                break;
            }
        }
    });
    receiver
}

/// A file that another program is writing.
struct Tail {
    path: std::path::PathBuf,
    file: Option<File>,
}

impl Tail {
    fn new(path: std::path::PathBuf) -> Self {
        Tail { path, file: None }
    }

    /// What was written since the last time.
    fn read(&mut self) -> Result<Vec<u8>> {
        if self.file.is_none() {
            // Bochs creates it with the first byte.
            match File::open(&self.path) {
                Ok(file) => self.file = Some(file),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
                Err(error) => return Err(error).with_context(|| format!("cannot read {}", self.path.display())),
            }
        }
        let mut bytes = Vec::new();
        if let Some(file) = &mut self.file {
            file.read_to_end(&mut bytes).with_context(|| format!("cannot read {}", self.path.display()))?;
        }
        Ok(bytes)
    }
}

/// An empty folder for one run's files.
pub(crate) fn run_folder(name: &str) -> Result<std::path::PathBuf> {
    let dir = places::output()?.join("runs").join(name);
    places::fresh_folder(&dir)?;
    Ok(dir)
}
