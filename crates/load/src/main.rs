//! A program for Linux guests: makes interrupts, and counts what came of them.
//!
//! Its parts are processes of their own, so that `taskset` can give each its processor. Whoever waits for what others or a
//! timer do sees a lost interrupt as a long wait, or never ends. Each part ends with one line on standard error; times are
//! those of the guest, in microseconds.

#![forbid(unsafe_code)]

use std::io::{ErrorKind, Read, Write, stdin, stdout};
use std::process::ExitCode;
use std::time::{Duration, Instant};

const USAGE: &str = "usage: load ping SECONDS | load pong | load timer SECONDS | load serial SECONDS";

/// How far apart the timer's ticks are.
const TICK: Duration = Duration::from_millis(1);
/// How far apart lines on the serial port are: at 115,200 baud the port is busy for a third of the time.
const LINE: Duration = Duration::from_millis(10);

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let seconds = args.get(1).and_then(|text| text.parse().ok()).map(Duration::from_secs);
    let done = match (args.first().map(String::as_str), seconds) {
        (Some("ping"), Some(time)) => ping(time),
        (Some("pong"), None) => pong(),
        (Some("timer"), Some(time)) => Ok(timer(time)),
        (Some("serial"), Some(time)) => serial(time),
        _ => Err(std::io::Error::new(ErrorKind::InvalidInput, USAGE)),
    };
    // One write for each line: lines of other processes come between, not into it.
    match done {
        Ok(line) => say(&line),
        Err(error) => say(&format!("load {}: {error}", args.join(" "))),
    }
}

fn say(line: &str) -> ExitCode {
    match std::io::stderr().write_all(format!("{line}\n").as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Sends a byte to another process and waits for its answer, again and again. Where that one is pinned to another processor,
/// each of the two is woken by an interrupt of the other's.
fn ping(time: Duration) -> std::io::Result<String> {
    let start = Instant::now();
    let (mut rounds, mut longest, mut last) = (0u64, Duration::ZERO, start);
    while last - start < time {
        let mut byte = [rounds.to_le_bytes()[0]];
        stdout().write_all(&byte)?;
        stdout().flush()?;
        stdin().read_exact(&mut byte)?;
        if byte[0] != rounds.to_le_bytes()[0] {
            return Err(std::io::Error::new(ErrorKind::InvalidData, "another byte came back"));
        }
        let now = Instant::now();
        longest = longest.max(now - last);
        last = now;
        rounds += 1;
    }
    Ok(format!("ping: rounds {rounds} longest {}", longest.as_micros()))
}

/// The other process: gives back each byte, until there will be none any more.
fn pong() -> std::io::Result<String> {
    let mut rounds = 0u64;
    let mut byte = [0];
    while stdin().read(&mut byte)? == 1 {
        stdout().write_all(&byte)?;
        stdout().flush()?;
        rounds += 1;
    }
    Ok(format!("pong: rounds {rounds}"))
}

/// Sleeps from one tick to the next. A tick that comes before the last one has been seen is missed.
fn timer(time: Duration) -> String {
    let start = Instant::now();
    let (mut ticks, mut missed, mut latest) = (0u64, 0u64, Duration::ZERO);
    let mut due = start + TICK;
    while due - start <= time {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        latest = latest.max(due.elapsed());
        ticks += 1;
        due += TICK;
        while due - start <= time && due < Instant::now() {
            missed += 1;
            due += TICK;
        }
    }
    format!("timer: ticks {ticks} missed {missed} latest {}", latest.as_micros())
}

/// Writes numbered lines to the serial port, which standard output is.
fn serial(time: Duration) -> std::io::Result<String> {
    let start = Instant::now();
    let mut lines = 0u32;
    while start.elapsed() < time {
        lines += 1;
        stdout().write_all(format!("serial: line {lines:06} of the traffic\n").as_bytes())?;
        std::thread::sleep((start + LINE * lines).saturating_duration_since(Instant::now()));
    }
    Ok(format!("serial: lines {lines}"))
}
