//! What is checked on the host: unit tests, lints and the rules of tidy.

use crate::build;
use crate::command::Tool;
use crate::console::say;
use crate::image;
use crate::places;
use crate::setup::{self, Need};
use crate::tidy;
use anyhow::{Context, Result, bail};
use config::STATUS_REFUSED;

/// One check with its name.
pub(super) struct Step {
    pub(super) name: &'static str,
    run: fn() -> Result<()>,
}

impl Step {
    /// Runs it; an error is its failure.
    pub(super) fn run(&self) -> Result<()> {
        (self.run)()
    }
}

/// All of them, the quickest to fail first.
pub(super) fn steps() -> Vec<Step> {
    vec![
        Step { name: "tidy", run: check_tidy },
        Step { name: "format", run: || cargo().args(["fmt", "--all", "--check"]).output().map(drop) },
        Step { name: "host-tests", run: || tests(&["--", "--skip", EXPLORATION]) },
        Step { name: "apicv-exploration", run: exploration },
        Step { name: "decision-cost", run: decision_cost },
        Step { name: "xtask-tests", run: || tests(&["--package", "xtask"]) },
        Step { name: "command-line-refusals", run: refusals },
        Step { name: "medium-refusals", run: super::netboot::refusals },
        Step { name: "pxe-serve", run: super::netboot::served },
        Step { name: "pxe-edited-tree", run: super::netboot::edited_tree },
        Step { name: "watchdog-and-kept-log", run: super::kept::watchdog_and_log },
        Step { name: "screen", run: super::screen::readable },
        Step { name: "vms-consoles", run: super::vms::consoles },
        Step { name: "vms-keys", run: super::vms::keys },
        Step { name: "vms-side-by-side", run: super::vms::side_by_side },
        Step { name: "vms-moving", run: super::vms::moving },
        Step { name: "vms-weights", run: super::vms::weights },
        Step { name: "vms-neighbours", run: super::vms::neighbours },
        Step { name: "vms-spinlock", run: super::vms::spinlock },
        Step { name: "vms-asleep", run: super::vms::asleep },
        Step { name: "boot-qemu-kvm", run: super::netboot::kvm },
        Step { name: "caps-reproduced", run: super::caps::reproduced },
        Step { name: "clippy-pure-crates", run: || clippy(&["--all-targets"]) },
        Step { name: "clippy-xtask", run: || clippy(&["--package", "xtask", "--all-targets"]) },
        Step { name: "clippy-bare-metal", run: clippy_bare_metal },
        Step { name: "oracle-random", run: crate::oracle::some_random_entries },
        Step { name: "image-size", run: || image::check_size(&build::all()?.image()?) },
    ]
}

/// The test that goes through every state of two vCPUs' APICs: it runs by itself, and says how many there are.
const EXPLORATION: &str = "every_reachable_state_keeps_the_invariants";

fn exploration() -> Result<()> {
    let said = cargo().args(["test", "--package", "nested", "--lib", EXPLORATION, "--", "--nocapture"]).output()?;
    let states = said.lines().find(|line| line.contains("distinct states")).context("it said no number of states")?;
    say(&format!("  {states}"));
    Ok(())
}

/// What each decision of the scheduler costs, as valgrind counts it: the crate's own test, which says so.
fn decision_cost() -> Result<()> {
    setup::ensure(&[Need::Valgrind])?;
    let test = ["test", "--release", "--package", "sched", "--test", "cost", "--", "--ignored", "--nocapture"];
    let said = cargo().args(test).output()?;
    let most = said.lines().find(|line| line.starts_with("at most ")).context("it said no number of instructions")?;
    say(&format!("  {most}"));
    Ok(())
}

/// What takes many minutes.
pub(super) fn long_steps() -> Vec<Step> {
    vec![Step { name: "mistakes", run: crate::mistakes::all }]
}

/// Property tests start from one seed here, so that a change is judged by what it changes; `cargo test` explores.
fn tests(more: &[&str]) -> Result<()> {
    cargo().args(["test", "--quiet"]).args(more).env("PROPTEST_RNG_SEED", "2026").output().map(drop)
}

fn cargo() -> Tool {
    Tool::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())).dir(&places::workspace())
}

/// A warning is a failure here, and only here: while one works, it is a warning.
fn clippy(args: &[&str]) -> Result<()> {
    cargo().args(["clippy", "--quiet"]).args(args).args(["--", "-D", "warnings"]).output().map(drop)
}

/// What `run` refuses before it starts a machine: a sentence that names what is wrong, and status 125.
fn refusals() -> Result<()> {
    let broken_kernel = places::output()?.join("no-kernel");
    places::write(&broken_kernel, "This is no kernel.\n")?;
    let broken_kernel = broken_kernel.display().to_string();
    let (configs, sentences) = wrong_descriptions()?;
    let configs = configs.iter().map(|file| ["--config", file.as_str()]).collect::<Vec<_>>();
    let mut wrong = Vec::new();
    let described = configs.iter().map(<[&str; 2]>::as_slice).zip(sentences);
    for (arguments, sentence) in [
        (&["--kernel", "/no/such/kernel"][..], "the kernel /no/such/kernel cannot be read"),
        (&["--kernel", &broken_kernel, "--bare"], "kernel"),
        (&["--kernel", &broken_kernel, "--initrd", "/no/such/initrd"], "the initrd /no/such/initrd cannot be read"),
        (&["--kernel", &broken_kernel, "--module", "/no/such/module a b"], "the module /no/such/module cannot be read"),
        (&["--board", "no-such-board"], "no-such-board"),
        (&["--board", "pc-serial"], "real machine"),
        (&["--frobnicate"], "--frobnicate"),
        (&["--cpus", "0"], "--cpus"),
        (&["--cmdline", "text"], "--cmdline needs --kernel"),
        (&["--config", "/no/such/file"], "cannot read /no/such/file"),
        (&["--config", &broken_kernel, "--memory", "64"], "cannot be used with"),
    ]
    .into_iter()
    .chain(described)
    {
        let output = std::process::Command::new(std::env::current_exe()?)
            .args(["run", "--timeout", "30"])
            .args(arguments)
            .stdin(std::process::Stdio::null())
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        if output.status.code() != Some(STATUS_REFUSED.into()) || !said.contains(sentence) {
            wrong.push(format!(
                "run {}: {}, expected 125 and {sentence:?}:\n{said}",
                arguments.join(" "),
                output.status
            ));
        }
    }
    if !wrong.is_empty() {
        bail!("{}", wrong.join("\n"));
    }
    Ok(())
}

/// Files that describe what cannot be run, each with what `run --config` says of it: file, line and key.
fn wrong_descriptions() -> Result<(Vec<String>, Vec<&'static str>)> {
    let vm = |name: &str, more: &str| format!("[[vm]]\nname = \"{name}\"\nmemory-mib = 64\n{more}\n");
    let exclusive = "cpus = 2\npin = [0, 1]\nexclusive = true";
    let folder = places::output()?.join("wrong-descriptions");
    places::fresh_folder(&folder)?;
    let (mut files, mut sentences) = (Vec::new(), Vec::new());
    for (name, text, sentence) in [
        ("key", vm("a", "cpu = 2"), "key.toml: line 4, key cpu: there is no such key"),
        (
            "cpus",
            vm("a", "cpus = 40") + &vm("b", "cpus = 25"),
            "cpus.toml: line 8, key cpus: with the machines before it these are more than 64",
        ),
        (
            "pin",
            vm("a", exclusive) + &vm("b", &exclusive.replace("0, 1", "1, 2")),
            "pin.toml: line 11, key pin: another virtual machine has processor 1",
        ),
        ("nowhere", vm("a", exclusive) + &vm("b", "pin = [1]"), "nowhere.toml: line 10, key pin: others have all"),
        ("processor", vm("a", "pin = [7]"), "processor.toml: line 4, key pin: there is no processor 7"),
        (
            "memory",
            vm("a", "").replace("64", "4194304"),
            "memory.toml: line 3, key memory-mib: with the machines before it this is more",
        ),
        ("file", vm("a", "\nkernel = \"no-such-kernel\""), "file.toml: line 5, key kernel: "),
        ("port", vm("a", "console = \"com2\""), "port.toml: line 4, key console: "),
        ("name", vm("../a", ""), "name.toml: line 2, key name: a name of letters"),
    ] {
        let file = folder.join(format!("{name}.toml"));
        places::write(&file, text)?;
        files.push(file.display().to_string());
        sentences.push(sentence);
    }
    Ok((files, sentences))
}

/// The crates that only build for the bare-metal target. The image carries a guest, so one is built first.
fn clippy_bare_metal() -> Result<()> {
    let demo = build::guests()?.guest("demo");
    build::cargo("clippy", &["hw", "image", "guests"])?
        .env("NESTLING_DEMO", demo)
        .args(["--", "-D", "warnings"])
        .output()
        .map(drop)
}

fn check_tidy() -> Result<()> {
    let (errors, _) = tidy::check(&places::workspace())?;
    if !errors.is_empty() {
        bail!("{}", errors.join("\n"));
    }
    Ok(())
}
