//! Several guests on one machine: side by side, each with its share, beside those that nobody wants as neighbours, spinning for
//! a lock, and asleep.

use super::machines::Record;
use crate::board::{self, Board};
use crate::bochs;
use crate::build::{self, Built};
use crate::console::say;
use crate::consoles::{Consoles, Piece};
use crate::defmt_log::Line;
use crate::described::Described;
use crate::emulator::{self, Listener, Outcome};
use crate::guest_linux::{self, INIT_EXERCISE};
use crate::places;
use crate::setup::{self, Need, guest_packages};
use crate::spec::Spec;
use anyhow::{Context, Result, ensure};
use config::SerialPort;
use std::collections::VecDeque;
use std::path::Path;
use std::time::Duration;

/// How long any of these may take; many times what they do.
const PATIENCE: Duration = Duration::from_secs(1800);
/// Ticks of a second on the emulated machine: see [`crate::bochs`].
const SECOND: u64 = 100_000_000;

/// What came of the guests.
struct Ended {
    outcome: Outcome,
    /// What each wrote.
    consoles: Vec<String>,
    log: Vec<String>,
}

impl Ended {
    /// Fails with all that a person needs to see.
    fn check(&self, is_right: bool, why: &str) -> Result<()> {
        let last = self.log[self.log.len().saturating_sub(12)..].join("\n");
        let Outcome { status, reason, .. } = &self.outcome;
        ensure!(is_right, "{why}\nstatus {status}: {reason}\nconsoles: {:#?}\nend of the log:\n{last}", self.consoles);
        Ok(())
    }

    fn check_status(&self, status: u8) -> Result<()> {
        self.check(self.outcome.status == status, &format!("status {} instead of {status}", self.outcome.status))
    }

    /// The number between `before` and `after` in a line of guest `vm`.
    fn number(&self, vm: usize, before: &str, after: &str) -> Result<u64> {
        let console = self.consoles.get(vm).map_or("", String::as_str);
        let number = console.split_once(before).and_then(|(_, rest)| rest.split_once(after)?.0.parse().ok());
        self.check(number.is_some(), &format!("guest {vm} did not write {before}N{after}"))?;
        number.context("no number")
    }
}

/// Tells the guests' bytes apart.
struct Listening {
    consoles: Consoles,
    of: Vec<Vec<u8>>,
    record: Record,
    /// What is typed, each once the console port has said what stands before it so often.
    typed: VecDeque<(&'static str, usize, &'static [u8])>,
}

impl Listening {
    fn take(&mut self, pieces: Vec<Piece>) {
        for Piece { vm, bytes, .. } in pieces {
            if let Some(of) = vm.and_then(|vm| self.of.get_mut(vm)) {
                of.extend(bytes);
            }
        }
    }
}

impl Listener for Listening {
    fn console(&mut self, bytes: &[u8]) {
        self.record.console(bytes);
        let pieces = self.consoles.shared(bytes);
        self.take(pieces);
    }

    fn own_port(&mut self, port: SerialPort, bytes: &[u8]) {
        let pieces = self.consoles.own(port, bytes);
        self.take(pieces);
    }

    fn log(&mut self, line: &Line) {
        self.record.log(line);
    }

    fn keys(&mut self) -> Option<Vec<u8>> {
        let console = String::from_utf8_lossy(&self.record.console);
        let next = self.typed.pop_front_if(|(said, times, _)| console.matches(*said).count() >= *times);
        Some(next.map_or(Vec::new(), |(_, _, keys)| keys.to_vec()))
    }
}

/// One `[[vm]]`: `kernel` is a guest of ours unless the folder has it, and `more` further lines.
fn vm(name: &str, kernel: &str, more: &str) -> String {
    format!("[[vm]]\nname = \"{name}\"\nkernel = \"{kernel}\"\n{more}\n")
}

/// The same for one of our guests, with this command line and 64 MiB.
fn small(name: &str, kernel: &str, words: &str, more: &str) -> String {
    vm(name, kernel, &format!("command-line = \"{words}\"\nmemory-mib = 64\n{more}"))
}

/// An empty folder for a test's files, and what is needed to run it.
fn folder(name: &str) -> Result<(std::path::PathBuf, Built)> {
    setup::ensure(&[Need::BootTools, Need::Bochs])?;
    Ok((emulator::run_folder(name)?, build::all()?))
}

/// Runs the guests that `text` describes, on `pcpus` processors, with files from `dir`, in which nothing has run yet.
fn run(dir: &Path, built: &Built, pcpus: u32, text: &str) -> Result<Ended> {
    run_typing(dir, built, pcpus, text, &[])
}

/// The same, while somebody types.
fn run_typing(
    dir: &Path,
    built: &Built,
    pcpus: u32,
    text: &str,
    typed: &[(&'static str, usize, &'static [u8])],
) -> Result<Ended> {
    places::make_folder(dir)?;
    for kernel in text.lines().filter_map(|line| line.strip_prefix("kernel = \"")?.strip_suffix('"')) {
        if !dir.join(kernel).exists() {
            std::fs::copy(built.guest(kernel), dir.join(kernel)).with_context(|| kernel.to_owned())?;
        }
    }
    let file = dir.join("guests.toml");
    places::write(&file, text)?;
    let board = Board::load(board::DEFAULT)?;
    let described = Described::read(&file, &board, Some(pcpus))?;
    let consoles = Consoles::new(described.config());
    let of = consoles.names().map(|_| Vec::new()).collect();
    let mut spec = Spec::new(board).with(described);
    spec.pcpus = Some(pcpus);
    spec.input = !typed.is_empty();
    spec.timeout = Some(PATIENCE);
    let mut listening = Listening { consoles, of, record: Record::default(), typed: typed.iter().copied().collect() };
    let outcome = spec.run(built, dir, &mut listening)?;
    let pieces = listening.consoles.finish();
    listening.take(pieces);
    places::write(&dir.join("serial"), &listening.record.console)?;
    places::write(&dir.join("log"), listening.record.log.join("\n"))?;
    let consoles = listening.of.iter().map(|bytes| String::from_utf8_lossy(bytes).into_owned()).collect();
    Ok(Ended { outcome, consoles, log: listening.record.log })
}

/// Each guest's bytes come out as it wrote them: on a console that they share, on a port of its own, or nowhere.
pub(super) fn consoles() -> Result<()> {
    let (dir, built) = folder("vms-consoles")?;
    // More than a line of the console port takes.
    let long = "long ".repeat(100);
    let text = small("shared-1", "hello", &long, "")
        + &small("shared-2", "hello", "exit=3", "")
        + &small("own", "hello", "exit=4", "console = \"com3\"")
        + &small("none", "hello", "", "console = \"none\"");
    let ended = run(&dir, &built, 1, &text)?;
    // The first that did not end well is the second.
    ended.check_status(2)?;
    ended.check(ended.outcome.reason.contains("shared-2"), "the reason names another guest")?;
    let expected = places::read(&places::workspace().join("crates/guests/src/bin/hello.expected"))?;
    let expected = String::from_utf8(expected)?;
    for (vm, words) in [long.trim(), "exit=3", "exit=4"].iter().enumerate() {
        let expected = expected.replace("arguments:", &format!("arguments: {words}"));
        ended.check(ended.consoles[vm] == expected, &format!("guest {vm} wrote {expected:?}"))?;
    }
    let own = places::read(&dir.join("com3"))?;
    ended.check(own == ended.consoles[2].as_bytes(), "the port of its own has more than the guest's bytes")?;
    ended.check(ended.consoles[3].is_empty(), "the guest without a console has one")
}

/// Keys reach the guest that Ctrl-A and its number choose, and wake it; two Ctrl-A are one; Ctrl-A i logs the counters.
pub(super) fn keys() -> Result<()> {
    let (dir, built) = folder("vms-keys")?;
    let text = ["a", "b", "c"].map(|name| small(name, "echo", "", "")).concat();
    let typed: [(&str, usize, &[u8]); 5] = [
        ("| type", 3, b"first\r"),
        ("typed", 1, b"\x01i\x012one of more than sixteen keys\r\x01\x01\r"),
        ("typed", 3, b"\x019\x013end\r"),
        ("typed", 4, b"\x01?\x011end\r"),
        ("typed", 5, b"\x012end\r"),
    ];
    let ended = run_typing(&dir, &built, 1, &text, &typed)?;
    ended.check_status(0)?;
    let end = "typed \"end\"\nby interrupts: true\n";
    for (vm, lines) in
        ["typed \"first\"\n", "typed \"one of more than sixteen keys\"\ntyped \"\\u{1}\"\n", ""].iter().enumerate()
    {
        let wanted = format!("type\n{lines}{end}");
        ended.check(ended.consoles[vm] == wanted, &format!("guest {vm} did not write {wanted:?}"))?;
    }
    // At the keys Ctrl-A i, and at each one's end.
    let counted = ended.log.iter().filter(|line| line.contains(" vCPU 0: ") && line.ends_with(" exits")).count();
    ended.check(counted == 6, &format!("the counters were logged {counted} times, not twice for each guest"))
}

/// Two stock Linux and a hypervisor with its guest, five vCPUs on two processors, come to their ends.
pub(super) fn side_by_side() -> Result<()> {
    setup::ensure(&[Need::LinuxGuest])?;
    let (dir, built) = folder("vms-side-by-side")?;
    std::fs::copy(guest_packages::kernel()?, dir.join("vmlinuz"))?;
    places::write(&dir.join("initramfs.cpio"), guest_linux::initramfs(INIT_EXERCISE)?)?;
    let linux = |name, cpus| {
        let command_line = guest_linux::cmdline(bochs::MIPS);
        let more =
            format!("initrd = \"initramfs.cpio\"\ncommand-line = \"{command_line}\"\nmemory-mib = 512\ncpus = {cpus}");
        vm(name, "vmlinuz", &more)
    };
    let text = linux("linux-2", 2) + &linux("linux-1", 1) + &small("hypervisor", "demo", "", "cpus = 2");
    let ended = run(&dir, &built, 2, &text)?;
    ended.check_status(0)?;
    for (vm, nproc) in [(0, 2), (1, 1)] {
        let lines: Vec<&str> = ended.consoles[vm].lines().map(str::trim).collect();
        for wanted in ["user space reached", &format!("nproc: {nproc}"), "memory: 0", "done"] {
            ended.check(lines.contains(&wanted), &format!("guest {vm} did not write {wanted:?}"))?;
        }
    }
    for wanted in ["2 of 2", "Goodbye."] {
        ended.check(ended.consoles[2].contains(wanted), &format!("the hypervisor did not write {wanted:?}"))?;
    }
    Ok(())
}

/// Hypervisors whose vCPUs move between two processors while their L2s run, and back to where they were, write what they write on
/// the bare machine. Those that sleep and work let a processor idle, and fill it again.
pub(super) fn moving() -> Result<()> {
    const HYPERVISORS: [(&str, &str); 3] = [("l2_events", ""), ("l2_apicv", ""), ("l2_smp", "cpus = 2")];
    let (dir, built) = folder("vms-moving")?;
    let hypervisors = HYPERVISORS.map(|(name, more)| small(name, name, "", more)).concat();
    let sleepers =
        [15, 45, 75].map(|ticks| small(&format!("s{ticks}"), "share", &format!("sleep={ticks} work=10"), ""));
    let ended = run(&dir, &built, 2, &(hypervisors + &sleepers.concat()))?;
    ended.check_status(0)?;
    for (vm, (name, _)) in HYPERVISORS.iter().enumerate() {
        let expected = places::read(&places::workspace().join(format!("crates/guests/src/bin/{name}.expected")))?;
        let is_right = ended.consoles[vm].replace('\r', "").as_bytes() == expected;
        ended.check(is_right, &format!("{name} wrote something else than on the bare machine"))?;
    }
    let moves = |line: &String| {
        line.split_once("l2_events vCPU 0: ran ")?.1.rsplit_once(", ")?.1.split_once(' ')?.0.parse().ok()
    };
    let moves: u32 = ended.log.iter().find_map(moves).context("the log does not tell how often a vCPU moved")?;
    say(&format!("    vms-moving: l2_events moved {moves} times"));
    ended.check(moves >= 2, "it did not come back to where it was")
}

/// Three guests of weights 1, 2 and 3 on one processor get their shares of 5 seconds, within 2 %.
pub(super) fn weights() -> Result<()> {
    let (dir, built) = folder("vms-weights")?;
    let words = format!("count={}", 5 * SECOND / 1_000_000);
    let text: String =
        [1, 2, 3].map(|weight| small(&format!("w{weight}"), "share", &words, &format!("weight = {weight}"))).concat();
    let ended = run(&dir, &built, 1, &text)?;
    ended.check_status(0)?;
    let counts = [0, 1, 2].map(|vm| ended.number(vm, "counted ", " rounds"));
    let [first, second, third] = counts;
    let counts = [first?, second?, third?];
    let total: u64 = counts.iter().sum();
    say(&format!("    vms-weights: {counts:?} rounds of {total}"));
    for (weight, count) in (1..).zip(counts) {
        let share = total * weight / 6;
        ended.check(
            count.abs_diff(share) * 50 <= share,
            &format!("weight {weight}: {count} rounds, its share is {share}"),
        )?;
    }
    Ok(())
}

/// What the fourth guest does, how many vCPUs want the processor then, and the status of the run.
const NEIGHBOURS: [(&str, u64, u8); 4] = [
    ("spin_deaf ticks=400", 4, 0),
    // It has two.
    ("ipi_flood ticks=500", 5, 0),
    ("triple_fault", 3, 1),
    ("hlt_if0", 3, 1),
];

/// While one of four guests on a processor spins with interrupts off, floods processors with IPIs, crashes or halts for good, the
/// others do their work in at most 1.1 times the ticks of their fair share.
pub(super) fn neighbours() -> Result<()> {
    const WORK: &str = "work=50";
    let (dir, built) = folder("vms-neighbours")?;
    let alone = run(&dir.join("alone"), &built, 1, &small("alone", "share", WORK, ""))?;
    alone.check_status(0)?;
    let alone = alone.number(0, "worked for ", " ticks")?;
    for (abuse, vcpus, status) in NEIGHBOURS {
        let cpus = if vcpus == 5 { 2 } else { 1 };
        let text = small("neighbour", "abuse", abuse, &format!("cpus = {cpus}"))
            + &["a", "b", "c"].map(|name| small(name, "share", WORK, "")).concat();
        let name = abuse.split(' ').next().unwrap_or(abuse);
        let ended = run(&dir.join(name), &built, 1, &text).with_context(|| abuse.to_owned())?;
        ended.check_status(status)?;
        for vm in 1..4 {
            let took = ended.number(vm, "worked for ", " ticks")?;
            let fair = alone * vcpus;
            say(&format!("    vms-neighbours: {abuse}: {took} ticks, the fair share is {fair}"));
            ended.check(took * 10 <= fair * 11, &format!("{abuse}: {took} ticks, fair are {fair}"))?;
        }
    }
    Ok(())
}

/// Two vCPUs on one processor that spin for one lock take at most 1.5 times the ticks of the same work with a lock for each.
pub(super) fn spinlock() -> Result<()> {
    let (dir, built) = folder("vms-spinlock")?;
    let ended = run(&dir, &built, 1, &small("locks", "spinlock", "ticks", "cpus = 2"))?;
    ended.check_status(0)?;
    let (apart, together) = (ended.number(0, "apart ", " ticks")?, ended.number(0, " ticks, together ", " ticks")?);
    say(&format!("    vms-spinlock: {apart} ticks apart, {together} together"));
    ended.check(together * 2 <= apart * 3, &format!("{together} ticks for one lock, {apart} for two"))
}

/// While all guests sleep for 10 seconds, nothing happens: fewer than 10,000 exits in the whole run.
pub(super) fn asleep() -> Result<()> {
    let (dir, built) = folder("vms-asleep")?;
    let words = format!("sleep={}", 10 * SECOND / 1_000_000);
    let text = ["a", "b", "c", "d"].map(|name| small(name, "share", &words, "")).concat();
    let ended = run(&dir, &built, 2, &text)?;
    ended.check_status(0)?;
    for vm in 0..4 {
        ended.check(ended.consoles[vm] == "sleeping, and awake\n", &format!("guest {vm} did not sleep"))?;
    }
    let port = String::from_utf8(places::read(&dir.join("serial"))?)?;
    ended.check(port.contains("a> sleeping, \n"), "what a guest wrote before it slept came out later only")?;
    ended.check(ended.outcome.ticks.is_some_and(|ticks| ticks >= 10 * SECOND), "these were not 10 seconds")?;
    // "vCPU 0: 144 exits", once for each vCPU.
    let exits =
        |line: &String| line.rsplit_once("vCPU ")?.1.split_once(": ")?.1.strip_suffix(" exits")?.parse::<u64>().ok();
    let exits: Vec<u64> = ended.log.iter().filter_map(exits).collect();
    ended.check(exits.len() == 4, "the log does not tell the exits of four vCPUs")?;
    let total: u64 = exits.iter().sum();
    say(&format!("    vms-asleep: {total} exits"));
    ended.check(total < 10_000, &format!("{total} exits"))
}
