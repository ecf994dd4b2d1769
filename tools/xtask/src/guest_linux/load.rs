//! Stock Debian Linux under a load of interrupts on two processors, and what must have come of it.

use crate::build;
use crate::places;
use anyhow::Result;

/// Processors that the load needs.
pub(crate) const CPUS: u32 = 2;

/// Ticks of a timer in a second.
const TICKS: u64 = 1000;

/// What Linux says when an interrupt did not come, or came for nobody.
const COMPLAINTS: [&str; 11] = [
    "lockup",
    "rcu",
    "stall",
    "lost",
    "nobody cared",
    "No irq handler",
    "unstable",
    "blocked for more than",
    "NETDEV WATCHDOG",
    "WARNING",
    "BUG",
];

// What a machine must bear: about half of what the emulated one itself does, and a guest of Nestling. A guest's guest must too,
// where the machine is quick enough for it.

/// Rounds of each pair of processes in a second.
const LEAST_ROUNDS: u64 = 500;
/// Percent of the timer's ticks that were not missed.
const LEAST_TICKS: u64 = 60;
/// Lines on the serial port in a second.
const LEAST_LINES: u64 = 50;
/// The longest wait of anybody, in microseconds.
pub(crate) const LONGEST_WAIT: u64 = 50_000;
/// The same in an L2: L1's scheduler says when a virtual processor goes on. It was 2 to 34 milliseconds mostly, 107 once.
pub(crate) const LONGEST_WAIT_IN_L2: u64 = 250_000;

/// An initramfs that makes the load and powers off.
pub(crate) fn initramfs() -> Result<Vec<u8>> {
    super::initramfs_with(include_str!("load.sh"), "load", &places::read(&build::load()?)?)
}

/// Linux's command line for a load of so many seconds of its time. An idle processor shall need an interrupt to wake up,
/// also where it could watch memory.
pub(crate) fn cmdline(mips: u32, seconds: u32) -> String {
    format!("{} idle=halt load={seconds}", super::cmdline(mips))
}

/// Judges the console of a guest that was loaded for so many seconds. Nobody may have waited longer than that, in microseconds.
pub(crate) fn check(console: &str, seconds: u32, longest_wait: u64) -> Result<(), String> {
    let seconds = u64::from(seconds);
    let lines = || console.lines().map(str::trim);
    let numbers = |name: &str| -> Vec<Vec<u64>> {
        let of = |line: &str| line.split(' ').filter_map(|word| word.parse().ok()).collect();
        lines().filter_map(|line| line.strip_prefix(name)).map(of).collect()
    };
    if !lines().any(|line| line == format!("user space reached on {CPUS} processors, load for {seconds} s")) {
        return Err("user space was not reached".to_owned());
    }
    if let Some(line) = lines().filter(|line| line.starts_with("kernel: ")).find(|line| has_complaint(line)) {
        return Err(format!("Linux complains: {line}"));
    }

    let (pings, pongs) = (numbers("ping: rounds "), numbers("pong: rounds "));
    let mut pairs: Vec<(u64, u64)> = pings.iter().filter_map(|n| Some((*n.first()?, *n.get(1)?))).collect();
    let mut answered: Vec<u64> = pongs.iter().filter_map(|n| n.first().copied()).collect();
    pairs.sort_unstable();
    answered.sort_unstable();
    if pairs.len() != 2 || !pairs.iter().map(|(rounds, _)| rounds).eq(&answered) {
        return Err(format!("two pairs of processes did not end with equal counts: {pings:?} {pongs:?}"));
    }
    let fewest = pairs[0].0;
    if fewest < LEAST_ROUNDS * seconds {
        return Err(format!("{fewest} rounds of a pair are fewer than {LEAST_ROUNDS} a second"));
    }
    let timers: Vec<[u64; 3]> = numbers("timer: ticks ").iter().filter_map(|n| n[..].try_into().ok()).collect();
    let [timer0, timer1] = timers[..] else { return Err(format!("not two timers: {timers:?}")) };
    for [ticks, missed, _] in [timer0, timer1] {
        if (ticks + missed).abs_diff(TICKS * seconds) > TICKS * seconds / 50 {
            return Err(format!("{ticks} and {missed} missed are not the ticks of {seconds} s"));
        }
        if ticks * 100 < LEAST_TICKS * TICKS * seconds {
            return Err(format!("{missed} ticks of a timer were missed"));
        }
    }
    let waits = pairs.iter().map(|&(_, longest)| longest).chain([timer0[2], timer1[2]]);
    if let Some(wait) = waits.max().filter(|wait| *wait > longest_wait) {
        return Err(format!("somebody waited for {wait} microseconds"));
    }

    let came = |mark: &str| -> Result<Vec<u64>, String> {
        let count =
            |when| interrupts(console, when, mark).ok_or(format!("/proc/interrupts has no counts of {mark} {when}"));
        Ok(count("after: ")?
            .iter()
            .zip(count("before: ")?)
            .map(|(after, before)| after.saturating_sub(before))
            .collect())
    };
    let fewest_ticks = timer0[0].min(timer1[0]);
    let timer = came("LOC:")?;
    if timer.iter().any(|&count| count < fewest_ticks) {
        return Err(format!("{timer:?} timer interrupts are fewer than the {fewest_ticks} ticks that were seen"));
    }
    let ipis: Vec<u64> = came("RES:")?.iter().zip(came("CAL:")?).map(|(wakes, calls)| wakes + calls).collect();
    if ipis.iter().any(|&count| count * 4 < fewest) {
        return Err(format!("{ipis:?} interrupts between the processors are too few for two times {fewest} rounds"));
    }

    let traffic: Vec<u64> = lines()
        .filter_map(|line| line.strip_prefix("serial: line ")?.strip_suffix(" of the traffic")?.parse().ok())
        .collect();
    let count = numbers("serial: lines ").first().and_then(|n| n.first().copied()).unwrap_or(0);
    if !traffic.iter().copied().eq(1..=count) || count < LEAST_LINES * seconds {
        return Err(format!("{} of {count} lines came over the serial port, in order or not", traffic.len()));
    }
    let serial: u64 = came("ttyS0")?.iter().sum();
    if serial * 4 < count {
        return Err(format!("{serial} interrupts of the serial port are too few for {count} lines"));
    }
    if !lines().any(|line| line == "done") {
        return Err("the script did not come to its end".to_owned());
    }
    Ok(())
}

fn has_complaint(line: &str) -> bool {
    COMPLAINTS.iter().any(|text| line.contains(text))
}

/// The counts of each processor in the row of /proc/interrupts that has this word.
fn interrupts(console: &str, when: &str, mark: &str) -> Option<Vec<u64>> {
    let rows = console.lines().filter_map(|line| line.strip_prefix(when));
    let row = rows.map(str::split_whitespace).find(|row| row.clone().any(|word| word == mark))?;
    let counts: Vec<u64> = row.skip(1).map_while(|word| word.parse().ok()).collect();
    (counts.len() == CPUS as usize).then_some(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "user space reached on 2 processors, load for 1 s\r\n\
        before: 4: 5 0 IO-APIC 4-edge ttyS0\r\nbefore: LOC: 100 200 Local timer interrupts\r\n\
        before: RES: 3 4 Rescheduling interrupts\r\nbefore: CAL: 5 6 Function call interrupts\r\n\
        ping: rounds 900 longest 7000\r\nTRAFFICpong: rounds 900\r\n\
        timer: ticks 950 missed 50 latest 4000\r\ntimer: ticks 940 missed 58 latest 4100\r\n\
        ping: rounds 910 longest 8000\r\npong: rounds 910\r\nserial: lines 50\r\n\
        after: 4: 20 0 IO-APIC 4-edge ttyS0\r\nafter: LOC: 1100 1240 Local timer interrupts\r\n\
        after: RES: 203 304 Rescheduling interrupts\r\nafter: CAL: 105 206 Function call interrupts\r\n\
        kernel: [ 9.0 ] clocksource: Switched to clocksource tsc\r\ndone\r\n";

    /// The check accepts a good console and names what is wrong with a bad one.
    #[test]
    fn a_console_is_judged() {
        let traffic: String = (1..=50).map(|line| format!("serial: line {line:06} of the traffic\n")).collect();
        let console = GOOD.replace("TRAFFIC", &traffic);
        assert_eq!(check(&console, 1, LONGEST_WAIT), Ok(()));
        for (good, bad, complaint) in [
            ("user space reached on 2", "user space reached on 1", "user space"),
            ("Switched to", "hrtimer: interrupt lost", "Linux complains: kernel: [ 9.0 ]"),
            ("clocksource: Switched", "watchdog: BUG: soft lockup", "Linux complains"),
            ("pong: rounds 910", "pong: rounds 909", "equal counts"),
            ("pong: rounds 910", "", "equal counts"),
            ("rounds 900", "rounds 400", "400 rounds"),
            ("ticks 950 missed 50", "ticks 500 missed 500", "500 ticks of a timer were missed"),
            ("ticks 950 missed 50", "ticks 950 missed 0", "not the ticks of 1 s"),
            ("timer: ticks 950", "timer: tricks 950", "not two timers"),
            ("longest 8000", "longest 80000", "80000 microseconds"),
            ("latest 4100", "latest 51000", "51000 microseconds"),
            ("LOC: 1100", "LOC: 1000", "900, 1040"),
            ("LOC: 1100", "LOC: many", "no counts of LOC: after"),
            ("RES: 203", "RES: 3", "100, 500"),
            ("line 000002", "line 000003", "50 of 50 lines"),
            ("serial: lines 50", "serial: lines 49", "50 of 49 lines"),
            ("serial: lines 50", "serial: lines 51", "50 of 51 lines"),
            ("after: 4: 20", "after: 4: 5", "serial port are too few"),
            ("done", "Oops", "end"),
        ] {
            assert!(console.contains(good), "{good}");
            let error = check(&console.replace(good, bad), 1, LONGEST_WAIT).unwrap_err();
            assert!(error.contains(complaint), "{good} to {bad}: {error}");
        }
    }
}
