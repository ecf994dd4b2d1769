//! `pxe` and `usb` as a user calls them: what they refuse, a tree that is edited, and a server that machines boot from.

use super::machines::Record;
use crate::board::{Board, Boot, Firmware};
use crate::build;
use crate::carried::Carried;
use crate::console::say;
use crate::defmt_log::Decoder;
use crate::emulator::{self, Outcome, Session};
use crate::medium::{self, TREE, netboot};
use crate::places;
use crate::qemu;
use crate::setup::{self, Need};
use crate::spec::{Made, Spec};
use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use config::{CONFIG_MODULE, STATUS_REFUSED};
use std::process::{Command, Stdio};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(120);
/// A board of QEMU without VT-x, which boots up to Nestling's refusal.
const QEMU: &str = "qemu-q35";

/// What a user might write into a tree's nestling.toml.
const EDITED: &str =
    "[[vm]]\nname = \"edited\"\nkernel = \"hello\"\ncommand-line = \"edited in place\"\nmemory-mib = 64\n";

/// What `pxe`, `usb` and `caps` refuse before they do anything: a sentence that names what is wrong, and status 125.
pub(super) fn refusals() -> Result<()> {
    let dir = emulator::run_folder("medium-refusals")?;
    let wrong_key = dir.join("wrong-key.toml");
    places::write(&wrong_key, "[[vm]]\nname = \"a\"\nmemory-mib = 64\nprocessors = 2\n")?;
    let no_such_file = dir.join("no-such-file.toml");
    places::write(&no_such_file, "[[vm]]\nname = \"a\"\nkernel = \"bzImage\"\nmemory-mib = 64\n")?;
    let [wrong_key, no_such_file] = [wrong_key, no_such_file].map(|path| path.display().to_string());
    let mut wrong = Vec::new();
    for (arguments, sentence) in [
        (&["pxe", "no-such-board"][..], "there is no board \"no-such-board\""),
        (&["usb", "no-such-board"], "there is no board \"no-such-board\""),
        (&["caps", "--board", "no-such-board"], "there is no board \"no-such-board\""),
        (&["caps", "--board", QEMU], "no VT-x"),
        (&["pxe", QEMU, "--config", &wrong_key], "wrong-key.toml: line 4, key processors: there is no such key"),
        (&["usb", QEMU, "--config", &no_such_file], "names the file \"bzImage\", which is not there"),
        (&["usb", QEMU, "--guest", "/no/such/guest"], "cannot read /no/such/guest"),
        (&["usb", QEMU, "--device", "/dev/no-such-stick"], "there is no device /dev/no-such-stick"),
        (&["usb", QEMU, "--device", "/dev/null"], "/dev/null is not a disk"),
        (&["pxe", QEMU, "--serve"], "--interface"),
        (&["pxe", QEMU, "--serve", "--interface", "no-such-net"], "there is no network interface \"no-such-net\""),
        (&["run", "--boot", "kernel"], "boots by no --boot kernel"),
        (&["run", "--firmware", "uefi"], "has a BIOS only"),
        (&["run", "--board", QEMU, "--firmware", "uefi", "--boot", "ipxe"], "UEFI boots by GRUB"),
        (&["run", "--board", QEMU, "--bare", "--boot", "kernel"], "--bare boots by GRUB"),
    ] {
        let output = Command::new(std::env::current_exe()?).args(arguments).stdin(Stdio::null()).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        if output.status.code() != Some(STATUS_REFUSED.into()) || !said.contains(sentence) {
            wrong.push(format!("{}: {}, expected 125 and {sentence:?}:\n{said}", arguments.join(" "), output.status));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// A tree as `pxe` writes it runs the demo; after an edit of nestling.toml in it, and nothing else, another guest.
pub(super) fn edited_tree() -> Result<()> {
    #[derive(clap::Parser)]
    struct Arguments {
        #[command(flatten)]
        carried: Carried,
    }
    setup::ensure(&[Need::BootTools, Need::Bochs])?;
    let built = build::all()?;
    let files = Arguments::parse_from(["pxe", crate::board::DEFAULT]).carried.read(None)?;
    let written = emulator::run_folder("pxe-edited-tree")?;
    netboot::write(&files.menu(&built)?, &written.join(TREE), None)?;
    let edited = emulator::run_folder("pxe-edited-tree-after")?;
    let mut spec = Spec::new(Board::load(crate::board::DEFAULT)?);
    spec.board.boot = Boot::Ipxe;
    spec.timeout = Some(PATIENCE);
    for (dir, console) in [(&written, "Hello. This is a guest"), (&edited, "arguments: edited in place")] {
        let mut record = Record::default();
        let outcome = spec.start(&built, dir, &Made::There, &mut record)?;
        expect(&outcome, &record, 0, console)?;
        if dir == &written {
            std::fs::rename(written.join(TREE), edited.join(TREE))?;
            places::write(&edited.join(TREE).join(CONFIG_MODULE), EDITED)?;
        }
    }
    medium::remove(&edited);
    Ok(())
}

/// The demo guest on this host's own processor. Skipped where KVM or its nesting is not there.
pub(super) fn kvm() -> Result<()> {
    if let Some(why) = qemu::kvm_is_missing() {
        say(&format!("    boot-qemu-kvm: skipped, for {why}"));
        return Ok(());
    }
    setup::ensure(&[Need::BootTools, Need::Qemu])?;
    let mut spec = Spec::new(Board::load("qemu-kvm")?);
    spec.timeout = Some(PATIENCE);
    let mut record = Record::default();
    let outcome = spec.run(&build::all()?, &emulator::run_folder("boot-qemu-kvm")?, &mut record)?;
    expect(&outcome, &record, 0, "Goodbye.")
}

/// Machines that boot over a network whose DHCP server knows nothing of Nestling, from `pxe --serve` in another network
/// namespace: iPXE on BIOS, and UEFI. Skipped where network namespaces cannot be had.
pub(super) fn served() -> Result<()> {
    if let Some(why) = no_namespaces()? {
        say(&format!("    pxe-serve: skipped, for {why}"));
        return Ok(());
    }
    setup::ensure(&[Need::BootTools, Need::Qemu])?;
    let image = places::read(&build::all()?.image()?)?;
    for (firmware, loader) in [(Firmware::Bios, "booted by iPXE"), (Firmware::Uefi, "booted by GRUB")] {
        let dir = emulator::run_folder(&format!("pxe-serve-{firmware:?}").to_lowercase())?;
        let mut machine = qemu::Machine::small(Boot::GrubPxe, firmware);
        machine.tap = Some("client");
        let mut record = Record::default();
        let session = Session {
            command: in_namespaces(&["boot"], Some(&qemu::command(&machine, &dir)?), &dir)?,
            dir: &dir,
            decoder: Some(Decoder::new(&image)?),
            is_qemu: true,
            timeout: Some(PATIENCE),
            wire: None,
        };
        let outcome = session.run(&mut record)?;
        let server = String::from_utf8_lossy(&places::read(&dir.join("server.log")).unwrap_or_default()).into_owned();
        expect(&outcome, &record, STATUS_REFUSED, loader)
            .and_then(|()| expect(&outcome, &record, STATUS_REFUSED, "no VMX"))
            .with_context(|| format!("{firmware:?}; the server said:\n{server}"))?;
        let shown = server.lines().any(|line| line.contains("sent") && line.contains("boot/nestling"));
        ensure!(shown, "the server did not show who booted:\n{server}");
    }
    for (case, sentence) in [
        ("port-taken", "another DHCP or TFTP server of this machine has the port"),
        ("no-address", "has no IPv4 address"),
        ("no-dnsmasq", "dnsmasq-base"),
        ("no-rights", "root rights"),
    ] {
        let dir = emulator::run_folder(&format!("pxe-serve-{case}"))?;
        let output = in_namespaces(&[case], None, &dir)?.output()?;
        let server = String::from_utf8_lossy(&places::read(&dir.join("server.log")).unwrap_or_default()).into_owned();
        ensure!(
            output.status.code() == Some(STATUS_REFUSED.into()) && server.contains(sentence),
            "{case}: {}, expected 125 and {sentence:?}:\n{server}{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}

/// Runs the script beside this file: its words, and the machine that boots.
fn in_namespaces(words: &[&str], machine: Option<&Command>, dir: &std::path::Path) -> Result<Command> {
    let script = dir.join("namespaces.sh");
    places::write(&script, include_str!("namespaces.sh"))?;
    let mut command = Command::new("setpriv");
    command.args([
        "--pdeathsig",
        "KILL",
        "unshare",
        "--net",
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
    ]);
    command.args(["sh", "namespaces.sh"]).arg(std::env::current_exe()?).arg(QEMU).args(words);
    if let Some(machine) = machine {
        command.arg(machine.get_program()).args(machine.get_args());
    }
    command.current_dir(dir);
    Ok(command)
}

fn no_namespaces() -> Result<Option<&'static str>> {
    let can = |command: &str| {
        let status =
            Command::new("unshare").args(["--net", "--mount", "--pid", "--fork", "sh", "-c", command]).output();
        status.is_ok_and(|output| output.status.success())
    };
    if !can("true") {
        return Ok(Some("this user may not make network namespaces"));
    }
    setup::ensure(&[Need::NetbootServer])?;
    let has_devices = can("ip link add net0 type bridge && ip tuntap add client mode tap");
    Ok((!has_devices).then_some("this kernel has no bridges or no tap devices"))
}

fn expect(outcome: &Outcome, record: &Record, status: u8, text: &str) -> Result<()> {
    let console = String::from_utf8_lossy(&record.console);
    let log = record.log.join("\n");
    if outcome.status != status || !(console.contains(text) || log.contains(text)) {
        bail!("status {}: {}; expected {status} and {text:?}\n{console}\n{log}", outcome.status, outcome.reason);
    }
    Ok(())
}
