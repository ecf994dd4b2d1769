//! Stock Debian Linux as a guest: its initramfs, what its /init does, and what its console must say.

use crate::cpio::Archive;
use crate::places;
use crate::setup::guest_packages;
use anyhow::Result;
use std::sync::LazyLock;

/// Keeps the boot short and the console readable; nothing here is needed for Linux to run under Nestling.
///
/// `tsc_early_khz`: the CPUID of Bochs tells the frequency of the processor that it imitates (3.5 GHz), while its TSC
/// counts 100 million ticks in a second of its PIT; a Linux that believes the former sleeps 35 times too long.
pub(crate) const CMDLINE: &str = "console=ttyS0 quiet mitigations=off nokaslr panic=-1 tsc=reliable \
     tsc_early_khz=100000 lpj=1000000 init_on_alloc=0";

/// How many mebibytes the guest writes and reads back.
const MEMORY_BLOCKS: u32 = 256;
const BLOCK: usize = 1 << 20;

/// What stands in [`INIT_EXERCISE`] for the names of the files that make up the memory test.
const NUMBERED_BLOCKS: &str = "NUMBERED_BLOCKS";

/// Powers off as soon as user space is reached: the ticks of the whole run are the ticks of a boot.
pub(crate) const INIT_BOOT: &str = include_str!("guest_linux/boot.sh");

/// Exercises what a guest's user sees of the machine. Each line of its console that the host checks has a name first.
pub(crate) const INIT_EXERCISE: &str = include_str!("guest_linux/exercise.sh");

/// An initramfs of busybox and this /init.
pub(crate) fn initramfs(init: &str) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    for folder in ["bin", "dev", "proc", "sys", "tmp"] {
        archive.folder(folder);
    }
    // The kernel opens /dev/console for /init before anything could make it.
    archive.device("dev/console", 5, 1);
    archive.file("bin/busybox", &places::read(&guest_packages::busybox()?)?);
    let numbers = 0..MEMORY_BLOCKS;
    let blocks: Vec<String> = numbers.clone().map(|number| format!("/number/{number} /block")).collect();
    archive.file("init", init.replace(NUMBERED_BLOCKS, &blocks.join(" ")).as_bytes());
    archive.folder("number");
    for number in numbers {
        archive.file(&format!("number/{number}"), number_line(number).as_bytes());
    }
    archive.file("block", &block());
    Ok(archive.finish())
}

/// One mebibyte in which no two pages are alike.
fn block() -> Vec<u8> {
    let mut state: u64 = 0x9E37_79B9_7F4A_7C15;
    let next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    std::iter::repeat_with(next).take(BLOCK / 8).flat_map(u64::to_le_bytes).collect()
}

/// Makes each block of the memory test differ from all others, and shifts it against the pages.
fn number_line(number: u32) -> String {
    format!("{number:015}\n")
}

/// The sum of the file that the guest wrote into its memory.
static EXPECTED_SUM: LazyLock<String> = LazyLock::new(|| {
    let block = block();
    let mut crc = Crc32::new();
    for number in 0..MEMORY_BLOCKS {
        crc.add(number_line(number).as_bytes());
        crc.add(&block);
    }
    format!("{:08x}", crc.finish())
});

/// The CRC of IEEE 802.3, as `crc32` and gzip have it: polynomial 0x04C11DB7 with its bits reversed.
struct Crc32 {
    table: [u32; 256],
    state: u32,
}

impl Crc32 {
    fn new() -> Self {
        let mut table = [0; 256];
        for (byte, entry) in (0u32..).zip(&mut table) {
            *entry = (0..8).fold(byte, |crc, _| (crc >> 1) ^ if crc & 1 == 1 { 0xEDB8_8320 } else { 0 });
        }
        Crc32 { table, state: !0 }
    }

    fn add(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.state = (self.state >> 8) ^ self.table[usize::from(self.state.to_le_bytes()[0] ^ byte)];
        }
    }

    fn finish(self) -> u32 {
        !self.state
    }
}

/// Judges the console of a guest that ran [`INIT_EXERCISE`] on this many processors.
pub(crate) fn check_exercise(console: &str, cpus: u32) -> Result<(), String> {
    judge(console, cpus, &EXPECTED_SUM)
}

fn judge(console: &str, cpus: u32, expected_sum: &str) -> Result<(), String> {
    let value = |name: &str| {
        let prefix = format!("{name}: ");
        console.lines().find_map(|line| line.strip_prefix(&prefix)).map(str::trim).ok_or(format!("no line {name:?}"))
    };
    if !console.lines().any(|line| line.trim() == "user space reached") {
        return Err("user space was not reached".to_owned());
    }
    let nproc = value("nproc")?;
    if nproc != cpus.to_string() {
        return Err(format!("nproc says {nproc}, not {cpus}"));
    }
    let sleep = value("sleep")?;
    let times: Vec<f64> = sleep.split(' ').filter_map(|time| time.parse().ok()).collect();
    let [start, between, end] = times[..] else { return Err(format!("no three times in {sleep:?}")) };
    let slept = (end - between) - (between - start);
    if (slept - 1.0).abs() > 0.02 {
        return Err(format!("sleep 1 took {slept:.3} s"));
    }
    let sum = value("sum")?;
    if !sum.starts_with(expected_sum) {
        return Err(format!("256 MiB that were written to memory came back with the sum {sum}"));
    }
    let interrupts: Vec<&str> = console.lines().filter_map(|line| line.strip_prefix("interrupts: ")).collect();
    for (what, mark, all_cpus) in [("timer", "LOC:", true), ("serial", "ttyS0", false)] {
        let row = interrupts.iter().find(|row| row.split_whitespace().any(|word| word == mark));
        let row = row.ok_or(format!("/proc/interrupts has no {what} row"))?;
        let counts: Vec<u64> = row.split_whitespace().skip(1).map_while(|word| word.parse().ok()).collect();
        let is_counted = if all_cpus { counts.iter().all(|&n| n > 0) } else { counts.iter().any(|&n| n > 0) };
        if counts.len() != usize::try_from(cpus).unwrap_or(0) || !is_counted {
            return Err(format!("{what} interrupts are not counted on each processor: {row}"));
        }
    }
    if !console.lines().any(|line| line.trim() == "done") {
        return Err("the script did not come to its end".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The check value of the CRC catalogue for CRC-32/ISO-HDLC, and the empty input.
    #[test]
    fn sums_are_those_of_crc32() {
        for (text, sum) in [("", 0), ("123456789", 0xCBF4_3926)] {
            let mut crc = Crc32::new();
            crc.add(text.as_bytes());
            assert_eq!(crc.finish(), sum, "{text:?}");
        }
    }

    const SUM: &str = "1badcafe";
    const GOOD: &str = "user space reached\r\nnproc: 2\r\nsleep: 17.400 17.410 18.425\r\nsum: 1badcafe /tmp/file\r\n\
        interrupts: CPU0 CPU1\r\ninterrupts: 4: 31 0 IO-APIC 4-edge ttyS0\r\n\
        interrupts: LOC: 800 700 Local timer interrupts\r\ndone\r\n";

    /// The check accepts a good console and names what is wrong with a bad one.
    #[test]
    fn a_console_is_judged() {
        assert_eq!(judge(GOOD, 2, SUM), Ok(()));
        for (good, bad, complaint) in [
            ("user space", "kernel space", "user space"),
            ("nproc: 2", "nproc: 1", "nproc says 1"),
            ("18.425", "18.441", "1.021 s"),
            ("sum: ", "sum: 0", "memory"),
            ("800 700", "800 0", "timer interrupts"),
            ("31 0", "0 0", "serial interrupts"),
            ("done", "Oops", "end"),
        ] {
            let error = judge(&GOOD.replace(good, bad), 2, SUM).unwrap_err();
            assert!(error.contains(complaint), "{error}");
        }
    }
}
