//! Keys for a guest: from standard input, by way of a socket, to the emulated machine's COM1.

use anyhow::{Context, Result};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{IsTerminal, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

/// Ctrl-A, as in QEMU; Nestling takes what follows it, but for [`END`].
const ESCAPE: u8 = 1;
/// After the escape: end the run.
const END: u8 = b'x';
/// Bytes that go to the machine at a time. A 16550 has room for 16, and Nestling looks every hundredth of a second.
const AT_A_TIME: usize = 4;

/// The machine's COM1 as a socket: what it sends goes into a file as without one.
pub(crate) struct Wire {
    address: String,
    stream: Arc<OnceLock<TcpStream>>,
    copy: JoinHandle<()>,
    waiting: VecDeque<u8>,
}

impl Wire {
    /// Waits for the emulator to connect; what the machine sends goes to `file`.
    pub(crate) fn new(file: &Path) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("cannot make a socket for COM1")?;
        let address = listener.local_addr()?.to_string();
        let mut file = File::create(file).with_context(|| format!("cannot create {}", file.display()))?;
        let stream = Arc::new(OnceLock::new());
        let here = Arc::clone(&stream);
        let copy = std::thread::spawn(move || {
            if let Ok((mut from, _)) = listener.accept() {
                if let Ok(to) = from.try_clone() {
                    let _ = here.set(to);
                }
                // The emulator's end ends it.
                let _ = std::io::copy(&mut from, &mut file);
            }
        });
        Ok(Wire { address, stream, copy, waiting: VecDeque::new() })
    }

    /// Where the emulator connects: host and port.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Sends `keys`, and what waits from earlier times, as fast as the machine takes them.
    pub(crate) fn send(&mut self, keys: &[u8]) {
        self.waiting.extend(keys);
        if let Some(mut stream) = self.stream.get() {
            let some: Vec<u8> = self.waiting.drain(..self.waiting.len().min(AT_A_TIME)).collect();
            // An emulator that has gone is noticed elsewhere.
            let _ = stream.write_all(&some);
        }
    }

    /// Waits for the last byte, once the emulator has gone. One that never connected sent none.
    pub(crate) fn finish(self) {
        if self.stream.get().is_some() {
            let _ = self.copy.join();
        }
    }
}

/// Standard input, key by key.
pub(crate) struct StandardInput {
    keys: Receiver<u8>,
    escaped: bool,
    /// The terminal's state before.
    before: Option<String>,
}

impl StandardInput {
    /// Takes it; a terminal passes on every key from now on.
    pub(crate) fn open() -> Result<Self> {
        let before = if std::io::stdin().is_terminal() {
            let before = stty(&["-g"])?.trim().to_owned();
            stty(&["-icanon", "-echo", "-isig", "-icrnl", "-ixon", "min", "1"])?;
            Some(before)
        } else {
            None
        };
        let (sender, keys) = mpsc::channel();
        std::thread::spawn(move || {
            for byte in std::io::stdin().lock().bytes() {
                let Ok(byte) = byte else { break };
                if sender.send(byte).is_err() {
                    break;
                }
            }
        });
        Ok(StandardInput { keys, escaped: false, before })
    }

    /// The keys since the last time; none of them when the run is to end.
    pub(crate) fn read(&mut self) -> Option<Vec<u8>> {
        let keys = self.keys.try_iter().collect();
        passed_on(keys, &mut self.escaped)
    }
}

/// `keys` as they are, unless the run is to end.
fn passed_on(keys: Vec<u8>, escaped: &mut bool) -> Option<Vec<u8>> {
    for &key in &keys {
        if *escaped && key == END {
            return None;
        }
        *escaped = !*escaped && key == ESCAPE;
    }
    Some(keys)
}

impl Drop for StandardInput {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = stty(&[before]);
        }
    }
}

/// Standard input's terminal, by the program for it.
fn stty(arguments: &[&str]) -> Result<String> {
    let output = Command::new("stty").args(arguments).stdin(Stdio::inherit()).output().context("cannot start stty")?;
    anyhow::ensure!(output.status.success(), "stty: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Only the escape and then x, not an escaped escape and then x, ends the run, also when they come apart.
    #[test]
    fn the_end_by_keys() {
        let mut escaped = false;
        assert_eq!(passed_on(b"x\x012\x01\x01x\x01".to_vec(), &mut escaped), Some(b"x\x012\x01\x01x\x01".to_vec()));
        assert_eq!(passed_on(b"x".to_vec(), &mut escaped), None);
    }
}
