//! Running one emulator test and judging what came out of it.

use super::Verdict;
use super::cases::{Case, Expect, Kernel, Made};
use super::exits;
use crate::build::Built;
use crate::console::say;
use crate::defmt_log::Line;
use crate::emulator::{Listener, Outcome};
use crate::guest_linux::{
    self,
    kvm::{self, L2},
    load,
};
use crate::places;
use crate::setup::guest_packages;
use crate::spec::Spec;
use anyhow::Result;
use std::path::Path;

/// Runs the case, with and without Nestling as it asks, in this folder.
pub(super) fn run(case: &Case, bare_only: bool, built: &Built, dir: &Path) -> Verdict {
    let run_with = |bare: bool, cmdline: Option<&str>| -> Result<Run> {
        let dir = dir.join(if bare { "bare" } else { "nestling" });
        places::make_folder(&dir)?;
        let mut spec = prepare(case, bare, built, &dir)?;
        if let Some(cmdline) = cmdline {
            cmdline.clone_into(&mut spec.cmdline);
        }
        let mut record = Record::default();
        let outcome = spec.run(built, &dir, &mut record)?;
        // Up to 90 MB, and made again by the next run.
        let _ = spec.initrd.as_deref().map(std::fs::remove_file);
        places::write(&dir.join("serial"), &record.console)?;
        places::write(&dir.join("log"), record.log.join("\n"))?;
        Ok(Run { outcome, console: text(&record.console), log: record.log })
    };
    let run = |bare: bool| run_with(bare, None);
    let mut runs = Vec::new();
    for &bare in case.worlds(bare_only) {
        let run = run(bare).map_err(|error| format!("{error:#}"))?;
        judge(case, bare, &run).map_err(|why| describe(&why, bare, &run, dir))?;
        runs.push(run);
    }
    if let (Some(limit), [bare, nestling]) = (case.most_ticks_of_bare, &runs[..]) {
        compare_ticks(&case.name, limit, bare, nestling)?;
    }
    if let Some(first) = runs.last()
        && case.expect.iter().any(|expect| matches!(expect, Expect::SameAgain))
    {
        let again = run(false).map_err(|error| format!("{error:#}"))?;
        same_lines(&first.console, &again.console)
            .map_err(|why| describe(&format!("not as in the run before: {why}"), false, &again, dir))?;
    }
    for expect in &case.expect {
        if let Expect::SameExits { vcpu, cmdline } = expect
            && !bare_only
            && let Some(first) = runs.last()
        {
            let other = run_with(false, Some(cmdline)).map_err(|error| format!("{error:#}"))?;
            same_exits(*vcpu, first, &other).map_err(|why| describe(&why, false, first, dir))?;
        }
    }
    if let [bare, nestling] = &runs[..]
        && case.expect.iter().any(|expect| matches!(expect, Expect::SameAsBare))
    {
        same_lines(&bare.console, &nestling.console)
            .map_err(|why| describe(&format!("not as on the bare machine: {why}"), false, nestling, dir))?;
    }
    Ok(())
}

struct Run {
    outcome: Outcome,
    console: String,
    log: Vec<String>,
}

/// Keeps everything.
#[derive(Default)]
pub(super) struct Record {
    pub(super) console: Vec<u8>,
    pub(super) log: Vec<String>,
}

impl Listener for Record {
    fn console(&mut self, bytes: &[u8]) {
        self.console.extend_from_slice(bytes);
    }

    fn log(&mut self, line: &Line) {
        self.log.push(line.text.clone());
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).replace("\r\n", "\n")
}

/// Makes the case's files and the description of its run.
fn prepare(case: &Case, bare: bool, built: &Built, dir: &Path) -> Result<Spec> {
    let mut spec = case.spec.clone();
    spec.bare = bare;
    spec.kernel = match &case.kernel {
        Kernel::Demo => None,
        Kernel::Ours(name) => {
            // Guests print their command line: its first word must be the same on every machine.
            let path = dir.join(name);
            std::fs::copy(built.guest(name), &path)?;
            Some(path)
        }
        Kernel::Linux(_) | Kernel::Load { .. } | Kernel::Kvm { .. } => Some(guest_packages::kernel()?),
        Kernel::Xen(_) => Some(guest_packages::xen().folder()?.join("xen")),
        Kernel::Made(make) => {
            let path = dir.join("kernel");
            let bytes = match make {
                Made::Bytes(bytes) => bytes.clone(),
                Made::TruncatedLinux(size) => places::read(&guest_packages::kernel()?)?[..*size].to_vec(),
                Made::TruncatedGuest(name, size) => places::read(&built.guest(name))?[..*size].to_vec(),
            };
            places::write(&path, bytes)?;
            Some(path)
        }
    };
    if let Kernel::Linux(init) = &case.kernel {
        let path = dir.join("initramfs.cpio");
        places::write(&path, guest_linux::initramfs(init)?)?;
        spec.initrd = Some(path);
        spec.cmdline = guest_linux::cmdline(spec.mips);
    }
    if let Kernel::Load { seconds } = case.kernel {
        let path = dir.join("initramfs.cpio");
        places::write(&path, load::initramfs()?)?;
        spec.initrd = Some(path);
        spec.cmdline = format!("{} strict", load::cmdline(spec.mips, seconds));
    }
    if let Kernel::Kvm { l2, words } = case.kernel {
        let path = dir.join("initramfs.cpio");
        kvm::initramfs(&[L2::of_ours(l2, built, spec.mips)?], &path)?;
        spec.initrd = Some(path);
        spec.cmdline = kvm::cmdline(spec.mips, l2, words);
        spec.memory = kvm::MEMORY;
    }
    if let Kernel::Xen(init) = &case.kernel {
        let initramfs = dir.join("initramfs.cpio");
        places::write(&initramfs, guest_linux::initramfs(init)?)?;
        spec.modules.push(format!("{} console=hvc0 quiet", guest_packages::kernel()?.display()));
        spec.modules.push(initramfs.display().to_string());
    }
    for (name, bytes, arguments) in &case.modules {
        let path = dir.join(name);
        places::write(&path, bytes)?;
        spec.modules.push(format!("{} {arguments}", path.display()).trim_end().to_owned());
    }
    if let Some(size) = case.initrd_size {
        let path = dir.join("initrd");
        places::write(&path, vec![0; size])?;
        spec.initrd = Some(path);
    }
    Ok(spec)
}

fn judge(case: &Case, bare: bool, run: &Run) -> Verdict {
    if run.outcome.status != case.status {
        return Err(format!("status {} instead of {}: {}", run.outcome.status, case.status, run.outcome.reason));
    }
    for expect in &case.expect {
        match expect {
            Expect::Console(text) if !run.console.contains(text.as_str()) => {
                return Err(format!("the guest's console lacks {text:?}"));
            }
            Expect::ConsoleLacks(text) => lacks("the guest's console", run.console.lines(), text)?,
            Expect::LogLacks(text) => lacks("Nestling's log", run.log.iter().map(String::as_str), text)?,
            Expect::Log(text)
                if !run.log.iter().any(|line| line.contains(text.as_str())) && !run.outcome.reason.contains(text) =>
            {
                return Err(format!("Nestling's log lacks {text:?}"));
            }
            Expect::Sentence(text) if !run.outcome.reason.contains(text.as_str()) => {
                return Err(format!("the reason lacks {text:?}: {}", run.outcome.reason));
            }
            Expect::ConsoleIs(path) => {
                let expected =
                    std::fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
                same_lines(&text(&expected), &run.console)?;
            }
            Expect::LinuxExercise => guest_linux::check_exercise(&run.console, case.spec.cpus)?,
            Expect::Load { seconds, longest_wait } => load::check(&run.console, *seconds, *longest_wait)?,
            // On the bare machine there are none.
            Expect::ExitsExplained if bare => {}
            Expect::ExitsExplained => exits::explained(&run.log, case.spec.cpus)?,
            Expect::L2Exercise => guest_linux::check_exercise(&run.console, 1)?,
            Expect::Console(_)
            | Expect::Log(_)
            | Expect::Sentence(_)
            | Expect::SameAsBare
            | Expect::SameAgain
            | Expect::SameExits { .. } => {}
        }
    }
    Ok(())
}

/// The line that should not be there says more than that there is one.
fn lacks<'a>(what: &str, mut lines: impl Iterator<Item = &'a str>, text: &str) -> Verdict {
    lines.find(|line| line.contains(text)).map_or(Ok(()), |line| Err(format!("{what} has the line {line:?}")))
}

/// Line by line: the first line that differs says more than that something does.
fn same_lines(expected: &str, console: &str) -> Verdict {
    let (mut want, mut have) = (expected.lines(), console.lines());
    for number in 1.. {
        match (want.next(), have.next()) {
            (None, None) => break,
            (want, have) if want == have => {}
            (want, have) => {
                let show = |line: Option<&str>| line.map_or("the end".to_owned(), |line| format!("{line:?}"));
                return Err(format!("line {number} is {}, expected {}", show(have), show(want)));
            }
        }
    }
    Ok(())
}

/// Whether the two runs' logs count the same exits of a vCPU.
fn same_exits(vcpu: usize, run: &Run, other: &Run) -> Verdict {
    let exits = |run: &Run| -> std::result::Result<Vec<String>, String> {
        // Each processor has a vCPU, and counts its exits in lines of its own.
        let start = format!("cpu{vcpu} INFO ");
        let lines = run.log.iter().filter_map(|line| line.split_once(&start)).map(|(_, text)| text);
        let counts: Vec<String> = lines
            .skip_while(|text| !text.starts_with("vCPU "))
            .filter(|text| text.starts_with("  ") && !text.contains("timer expired"))
            .map(str::to_owned)
            .collect();
        if counts.is_empty() { Err(format!("Nestling's log has no exits of vCPU {vcpu}")) } else { Ok(counts) }
    };
    let (exits, others) = (exits(run)?, exits(other)?);
    if exits == others { Ok(()) } else { Err(format!("vCPU {vcpu} has the exits {exits:?}, not {others:?}")) }
}

fn compare_ticks(name: &str, limit: f64, bare: &Run, nestling: &Run) -> Verdict {
    let (Some(bare), Some(nestling)) = (bare.outcome.ticks, nestling.outcome.ticks) else {
        return Err("the emulator did not count ticks".to_owned());
    };
    #[expect(clippy::cast_precision_loss, reason = "a ratio for people, of numbers far below 2^53")]
    let ratio = nestling as f64 / bare as f64;
    say(&format!("    {name}: {nestling} ticks, {ratio:.3} times the {bare} of the bare machine"));
    if ratio > limit {
        return Err(format!("{ratio:.3} times the ticks of the bare machine, at most {limit} are allowed"));
    }
    Ok(())
}

/// What a person needs to see of a failed run.
fn describe(why: &str, bare: bool, run: &Run, dir: &Path) -> String {
    let world = if bare { "on the bare machine" } else { "under Nestling" };
    let last = |lines: &[&str]| {
        lines[lines.len().saturating_sub(5)..].iter().map(|l| format!("\n  | {l}")).collect::<String>()
    };
    let console: Vec<&str> = run.console.lines().collect();
    let log: Vec<&str> = run.log.iter().map(String::as_str).collect();
    let emulator: Vec<&str> = run.outcome.emulator_log.iter().map(String::as_str).collect();
    format!(
        "{world}: {why}\nfiles: {}\nend of the console:{}\nend of the log:{}\nend of the emulator's log:{}",
        dir.display(),
        last(&console),
        last(&log),
        last(&emulator)
    )
}
