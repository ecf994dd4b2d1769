//! Stock Debian Linux as a guest: its initramfs, what its /init does, and what its console must say.

mod elf;
mod exit_port;
pub(crate) mod kvm;
pub(crate) mod load;
mod memory_test;

use crate::cpio::Archive;
use crate::places;
use crate::setup::guest_packages;
use anyhow::Result;

/// Keeps the boot short and the console readable; nothing here is needed for Linux to run under Nestling.
///
/// `tsc_early_khz`: the CPUID of Bochs tells the frequency of the processor that it imitates (3.5 GHz), while its TSC
/// counts `mips` million ticks in a second of its PIT; a Linux that believes the former sleeps too long, by default 35 times.
pub(crate) fn cmdline(mips: u32) -> String {
    format!(
        "console=ttyS0 quiet mitigations=off nokaslr panic=-1 tsc=reliable tsc_early_khz={mips}000 lpj={mips}0000 \
         init_on_alloc=0"
    )
}

/// Powers off as soon as user space is reached: the ticks of the whole run are the ticks of a boot.
pub(crate) const INIT_BOOT: &str = include_str!("guest_linux/boot.sh");

/// Exercises what a guest's user sees of the machine. Each line of its console that the host checks has a name first.
pub(crate) const INIT_EXERCISE: &str = include_str!("guest_linux/exercise.sh");

/// An initramfs of busybox and this /init.
pub(crate) fn initramfs(init: &str) -> Result<Vec<u8>> {
    initramfs_with(init, "memory-test", &memory_test::program())
}

/// The same with this program as /bin/NAME.
fn initramfs_with(init: &str, name: &str, program: &[u8]) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    for folder in ["bin", "dev", "proc", "sys", "tmp"] {
        archive.folder(folder);
    }
    // The kernel opens /dev/console for /init before anything could make it.
    archive.device("dev/console", 5, 1);
    archive.file("bin/busybox", &places::read(&guest_packages::busybox()?)?);
    archive.file("init", init.as_bytes());
    archive.file(&format!("bin/{name}"), program);
    Ok(archive.finish())
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
    let [start, between, end] = times[..] else { return Err(format!("no three times in {sleep:?}")) };
    let slept = (end - between) - (between - start);
    if (slept - 1.0).abs() > 0.02 {
        return Err(format!("sleep 1 took {slept:.3} s"));
    }
    let memory = value("memory")?;
    if memory != "0" {
        return Err(format!("256 MiB of memory were not read back as they were written: status {memory}"));
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

    const GOOD: &str = "user space reached\r\nnproc: 2\r\nsleep: 17.400 17.410 18.425\r\nmemory: 0\r\n\
        interrupts: CPU0 CPU1\r\ninterrupts: 4: 31 0 IO-APIC 4-edge ttyS0\r\n\
        interrupts: LOC: 800 700 Local timer interrupts\r\ndone\r\n";

    /// The check accepts a good console and names what is wrong with a bad one.
    #[test]
    fn a_console_is_judged() {
        assert_eq!(check_exercise(GOOD, 2), Ok(()));
        for (good, bad, complaint) in [
            ("user space", "kernel space", "user space"),
            ("nproc: 2", "nproc: 1", "nproc says 1"),
            ("18.425", "18.441", "1.021 s"),
            ("memory: 0", "memory: 1", "status 1"),
            ("800 700", "800 0", "timer interrupts"),
            ("31 0", "0 0", "serial interrupts"),
            ("done", "Oops", "end"),
        ] {
            let error = check_exercise(&GOOD.replace(good, bad), 2).unwrap_err();
            assert!(error.contains(complaint), "{error}");
        }
    }
}
