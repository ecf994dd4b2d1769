//! Ways of booting: one image, and each way in that there is.
//!
//! QEMU without KVM has no VT-x, so there the way ends at the refusal that says so: the image, its command line and the
//! machine's tables have arrived by then. In Bochs the guest runs.

use super::{Case, Expect, Kernel, Made};
use crate::board::{self, Boot, Firmware};
use crate::guest_linux::INIT_EXERCISE;
use crate::places;
use anyhow::Result;
use config::STATUS_TIMEOUT;

/// Seconds for a machine that only boots.
const PATIENCE: u64 = 90;

/// The tests of this file.
pub(super) fn all() -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    for (boot, firmware, name, loader) in [
        (Boot::GrubIso, Firmware::Bios, "iso-bios", "GRUB"),
        (Boot::GrubIso, Firmware::Uefi, "iso-uefi", "GRUB"),
        (Boot::GrubUsb, Firmware::Bios, "usb-bios", "GRUB"),
        (Boot::GrubUsb, Firmware::Uefi, "usb-uefi", "GRUB"),
        (Boot::GrubPxe, Firmware::Bios, "pxe-bios", "GRUB"),
        (Boot::GrubPxe, Firmware::Uefi, "pxe-uefi", "GRUB"),
        (Boot::Ipxe, Firmware::Bios, "ipxe", "iPXE"),
        (Boot::Kernel, Firmware::Bios, "kernel", "qemu"),
    ] {
        let mut case = Case::new(&format!("boot-qemu-{name}"), "qemu-q35", Kernel::Demo, PATIENCE)?.refused("no VMX");
        case.spec.board.boot = boot;
        case.spec.board.firmware = firmware;
        // The memory map, with what lies above the hole below 4 GiB, and the tables, by whichever way they came.
        case.spec.board.memory = None;
        case.spec.machine_memory = Some(6144);
        case.spec.pcpus = Some(4);
        let booted = format!("booted by {loader}");
        for text in [booted.as_str(), "memory 0x100000000 to 0x", "the firmware lists 4 processors"] {
            case.expect.push(Expect::Log(text.to_owned()));
        }
        cases.push(case);
    }
    cases.extend(refusals()?);
    cases.extend(machines()?);
    for (boot, name) in [(Boot::GrubIso, "iso"), (Boot::GrubUsb, "usb"), (Boot::GrubPxe, "pxe"), (Boot::Ipxe, "ipxe")] {
        let mut case = Case::new(&format!("boot-bochs-{name}"), board::DEFAULT, Kernel::Demo, PATIENCE)?;
        case.spec.board.boot = boot;
        // The demo with a guest of its own.
        for text in ["Our guest has ended.", "Goodbye."] {
            case.expect.push(Expect::Console(text.to_owned()));
        }
        cases.push(case);
    }
    Ok(cases)
}

/// What arrives broken: the loader or the image says so, and nothing half done runs.
fn refusals() -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    for (boot, name, seconds) in [(Boot::Ipxe, "ipxe", PATIENCE), (Boot::GrubPxe, "grub", 15)] {
        let mut case = Case::new(&format!("refusal-truncated-image-{name}"), "qemu-q35", Kernel::Demo, seconds)?
            .refused("truncated");
        case.spec.board.boot = boot;
        case.spec.image_bytes = Some(300_000);
        if boot == Boot::GrubPxe {
            // GRUB itself refuses, on its console, and stays there for its user.
            case.spec.grub_commands = vec!["serial --unit=0", "terminal_output serial"];
            case.status = STATUS_TIMEOUT;
            case.expect = vec![
                Expect::Console("premature end of file".to_owned()),
                Expect::Console("Nestling does not start".to_owned()),
            ];
        }
        cases.push(case);
    }
    // A guest that TFTP brought in part.
    let cut = Kernel::Made(Made::TruncatedGuest("hello", 9000));
    let mut guest = Case::new("refusal-truncated-guest-pxe", board::DEFAULT, cut, PATIENCE)?.refused("truncated");
    guest.spec.board.boot = Boot::GrubPxe;
    cases.push(guest);
    // A Core Duo, which has VMX and no 64-bit mode.
    let mut short =
        Case::new("refusal-no-64-bit-mode", board::DEFAULT, Kernel::Demo, PATIENCE)?.refused("no 64-bit mode");
    short.spec.cpu_model = Some("core_duo_t2400_yonah".to_owned());
    cases.push(short);
    for (name, text, sentence) in [
        ("key", "[[vm]]\nname = \"a\"\nmemory-mib = 64\ncpu = 1\n", "nestling.toml: line 4, key cpu:"),
        (
            "file",
            "[[vm]]\nname = \"a\"\nkernel = \"bzImage\"\nmemory-mib = 64\n",
            "nestling.toml: line 3, key kernel: the boot medium has no such file",
        ),
        (
            "cpus",
            "[[vm]]\nname = \"a\"\ncpus = 40\nmemory-mib = 64\n[[vm]]\nname = \"b\"\ncpus = 40\nmemory-mib = 64\n",
            "nestling.toml: line 7, key cpus: with the machines before it these are more than 64",
        ),
        (
            "pin",
            "[[vm]]\nname = \"a\"\nmemory-mib = 64\npin = [0]\nexclusive = true\n[[vm]]\nname = \"b\"\nmemory-mib = 64\n",
            "nestling.toml: line 6, key pin: others have all processors for themselves",
        ),
        (
            "processor",
            "[[vm]]\nname = \"a\"\nmemory-mib = 64\npin = [1]\n",
            "nestling.toml: line 4, key pin: there is no processor 1, the machine has 1",
        ),
        (
            "memory",
            "[[vm]]\nname = \"a\"\nmemory-mib = 4000\n",
            "nestling.toml: line 3, key memory-mib: with the machines before it this is more than",
        ),
        ("port", "[[vm]]\nname = \"a\"\nmemory-mib = 64\nconsole = \"com2\"\n", "nestling.toml: line 4, key console:"),
        (
            "no-port",
            "[[vm]]\nname = \"a\"\nmemory-mib = 64\nconsole = \"com4\"\n",
            "machine a, key console: this machine has no com4",
        ),
        ("empty", "", "nestling.toml: line 1: the description has no [[vm]]"),
        ("no-text", "\u{80}\0", "nestling.toml: line 1"),
    ] {
        let mut case = Case::new(&format!("refusal-config-{name}"), board::DEFAULT, Kernel::Demo, PATIENCE)?;
        case = case.refused(sentence);
        case.spec.config_text = Some(text);
        cases.push(case);
    }
    Ok(cases)
}

/// Machines that are larger than most, or come up otherwise.
fn machines() -> Result<Vec<Case>> {
    let mut large = Case::new("machine-8-processors-4-gib", board::DEFAULT, Kernel::Ours("smp"), PATIENCE)?;
    large.spec.cpus = 8;
    large.spec.machine_memory = Some(4096);
    large.expect.push(Expect::Log("8 processors are in VMX root operation".to_owned()));
    large.expect.push(Expect::Console("8 processors".to_owned()));

    // Console and log on one port, as on a PC: L1's lines are messages among Nestling's.
    let mut one_port = Case::new("machine-one-serial-port", board::DEFAULT, Kernel::Demo, PATIENCE)?;
    one_port.spec.image_words = vec!["console=com2"];
    for text in ["L1: Hello. This is a guest", "L1: Switching the machine off", "1 processors are in VMX root"] {
        one_port.expect.push(Expect::Log(text.to_owned()));
    }

    let mut two_guests = Case::new("machine-one-serial-port-two-guests", board::DEFAULT, Kernel::Demo, PATIENCE)?;
    two_guests.spec.image_words = vec!["console=com2"];
    two_guests.spec.config_text =
        Some("[[vm]]\nname = \"one\"\nmemory-mib = 64\n[[vm]]\nname = \"two\"\nmemory-mib = 64\n");
    for text in ["one| Hello. This is a guest", "two| Hello. This is a guest", "two| Switching the machine off"] {
        two_guests.expect.push(Expect::Log(text.to_owned()));
    }

    // Without a port L1's console goes to the screen; that must not hold L1 up.
    let mut on_screen = Case::new("machine-console-on-screen", board::DEFAULT, Kernel::Demo, PATIENCE)?;
    on_screen.spec.image_words = vec!["console=none"];
    on_screen.expect.push(Expect::Sentence("L1 turned its machine off".to_owned()));

    let mut linux = Case::new("linux-8-vcpus", board::DEFAULT, Kernel::Linux(INIT_EXERCISE), 1500)?;
    linux.spec.cpus = 8;
    linux.expect.push(Expect::LinuxExercise);

    // As firmware leaves it that uses interrupt remapping: IA32_APIC_BASE with EN, EXTD and BSP.
    let mut x2apic = Case::new("machine-x2apic-by-firmware", board::DEFAULT, Kernel::Ours("smp"), PATIENCE)?;
    x2apic.spec.cpus = 2;
    x2apic.spec.grub_commands = vec!["wrmsr 0x1b 0xfee00d00"];
    let expected = places::workspace().join("crates/guests/src/bin/smp.2.expected");
    x2apic.expect.push(Expect::ConsoleIs(expected));
    x2apic.expect.push(Expect::Log("the firmware has switched x2APIC on".to_owned()));
    Ok(vec![large, one_port, two_guests, on_screen, linux, x2apic])
}
