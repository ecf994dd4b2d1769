//! Stock Debian Linux as a guest: its initramfs, what its /init does, and what its console must say.

use crate::cpio::Archive;
use crate::places;
use crate::setup::guest_packages;
use anyhow::Result;

/// Keeps the boot short and the console readable; nothing here is needed for Linux to run under Nestling.
///
/// `tsc_early_khz`: the CPUID of Bochs tells the frequency of the processor that it imitates (3.5 GHz), while its TSC
/// counts 100 million ticks in a second of its PIT; a Linux that believes the former sleeps 35 times too long.
pub(crate) const CMDLINE: &str = "console=ttyS0 quiet mitigations=off nokaslr panic=-1 tsc=reliable \
     tsc_early_khz=100000 lpj=1000000 init_on_alloc=0";

/// How many mebibytes the guest writes and reads back.
const MEMORY_FILES: u32 = 256;
const BLOCK: usize = 1 << 20;

/// Powers off as soon as user space is reached: the ticks of the whole run are the ticks of a boot.
pub(crate) const INIT_BOOT: &str = "#!/bin/busybox sh
echo 'user space reached'
exec /bin/busybox poweroff -f
";

/// Exercises what a guest's user sees of the machine. Each line of its console that the host checks has a name first.
pub(crate) const INIT_EXERCISE: &str = "#!/bin/busybox sh
export PATH=/bin
busybox mount -t proc proc /proc
busybox mount -t tmpfs -o size=300m tmpfs /tmp
echo 'user space reached'
echo \"nproc: $(busybox nproc)\"
read before rest < /proc/uptime
busybox sleep 1
read after rest < /proc/uptime
echo \"sleep: $before $after\"
cd /tmp
i=0
while [ $i -lt 256 ]; do
  { printf '%015d\\n' $i; busybox cat /block; } > $i
  i=$((i+1))
done
echo \"written: $(busybox du -sm . | busybox cut -f1) MiB\"
i=0
while [ $i -lt 256 ]; do echo $i; i=$((i+1)); done | busybox xargs busybox crc32 > /sums
busybox cmp /sums /expected-sums && echo 'memory: 256 MiB read back'
while read line; do echo \"interrupts: $line\"; done < /proc/interrupts
echo 'done'
exec busybox poweroff -f
";

/// An initramfs of busybox and this /init.
pub(crate) fn initramfs(init: &str) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    for folder in ["bin", "dev", "proc", "sys", "tmp"] {
        archive.folder(folder);
    }
    // The kernel opens /dev/console for /init before anything could make it.
    archive.device("dev/console", 5, 1);
    archive.file("bin/busybox", &places::read(&guest_packages::busybox()?)?);
    archive.file("init", init.as_bytes());
    let block = block();
    archive.file("expected-sums", expected_sums(&block).as_bytes());
    archive.file("block", &block);
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

/// What busybox's `crc32` must print for the files that the guest wrote: a number of 16 bytes, then the block.
fn expected_sums(block: &[u8]) -> String {
    let line = |number: u32| {
        let mut file = format!("{number:015}\n").into_bytes();
        file.extend_from_slice(block);
        format!("{:08x} {number}\n", crc32(&file))
    };
    (0..MEMORY_FILES).map(line).collect()
}

/// The CRC of IEEE 802.3, as `crc32` and gzip have it: polynomial 0x04C11DB7 with its bits reversed.
fn crc32(bytes: &[u8]) -> u32 {
    let table: Vec<u32> = (0..256u32)
        .map(|byte| (0..8).fold(byte, |crc, _| (crc >> 1) ^ if crc & 1 == 1 { 0xEDB8_8320 } else { 0 }))
        .collect();
    !bytes.iter().fold(!0u32, |crc, &byte| (crc >> 8) ^ table[usize::from(crc.to_le_bytes()[0] ^ byte)])
}

/// Judges the console of a guest that ran [`INIT_EXERCISE`] on this many processors.
pub(crate) fn check_exercise(console: &str, cpus: u32) -> Result<(), String> {
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
    let [before, after] = times[..] else { return Err(format!("no two times in {sleep:?}")) };
    // /proc/uptime has hundredths; 0.98 to 1.02 s is the 2 % that are allowed, with room for the last binary digit.
    if (after - before - 1.0).abs() > 0.020_001 {
        return Err(format!("sleep 1 took {:.2} s", after - before));
    }
    if value("memory")? != "256 MiB read back" {
        return Err("memory was not read back".to_owned());
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
            assert_eq!(crc32(text.as_bytes()), sum, "{text:?}");
        }
    }

    const GOOD: &str = "user space reached\r\nnproc: 2\r\nsleep: 7.48 8.49\r\nmemory: 256 MiB read back\r\n\
        interrupts: CPU0 CPU1\r\ninterrupts: 4: 31 0 IO-APIC 4-edge ttyS0\r\n\
        interrupts: LOC: 800 700 Local timer interrupts\r\ndone\r\n";

    /// The check accepts a good console and names what is wrong with a bad one.
    #[test]
    fn a_console_is_judged() {
        assert_eq!(check_exercise(GOOD, 2), Ok(()));
        for (good, bad, complaint) in [
            ("user space", "kernel space", "user space"),
            ("nproc: 2", "nproc: 1", "nproc says 1"),
            ("8.49", "8.51", "1.03 s"),
            ("read back", "differ", "memory"),
            ("800 700", "800 0", "timer interrupts"),
            ("31 0", "0 0", "serial interrupts"),
            ("done", "Oops", "end"),
        ] {
            let error = check_exercise(&GOOD.replace(good, bad), 2).unwrap_err();
            assert!(error.contains(complaint), "{error}");
        }
    }
}
