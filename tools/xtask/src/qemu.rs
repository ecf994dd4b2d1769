//! QEMU as the machine: its command line, and whether this host's KVM can play an Intel machine with VT-x.

use crate::board::{Boot, Firmware};
use crate::medium::{ISO, TREE, USB, netboot};
use crate::places;
use anyhow::Result;
use config::SerialPort;
use std::path::Path;
use std::process::Command;

/// A machine for QEMU to play.
pub(crate) struct Machine<'a> {
    /// A CPU model of QEMU.
    pub(crate) cpu_model: &'a str,
    /// How many processors.
    pub(crate) cpus: u32,
    /// RAM in MiB.
    pub(crate) memory: u32,
    /// The host's own processor does the work.
    pub(crate) kvm: bool,
    pub(crate) firmware: Firmware,
    pub(crate) boot: Boot,
    /// The image's words and its modules, for [`Boot::Kernel`].
    pub(crate) kernel: (String, String),
    /// The machine starts again after a reset, as a real one does; its watchdog is connected.
    pub(crate) restarts: bool,
    /// Serial ports beside COM1 and COM2.
    pub(crate) more_ports: Vec<SerialPort>,
    /// COM1 is not a file but a socket that somebody listens to here.
    pub(crate) com1_socket: Option<String>,
    /// Instead of a network of its own: the tap device of a network where somebody else answers.
    pub(crate) tap: Option<&'static str>,
}

impl Machine<'_> {
    /// A machine without VT-x that is just large enough to boot.
    pub(crate) fn small(boot: Boot, firmware: Firmware) -> Self {
        let (kernel, memory) = (Default::default(), 512);
        let more_ports = Vec::new();
        Machine {
            cpu_model: "max",
            cpus: 1,
            memory,
            kvm: false,
            firmware,
            boot,
            kernel,
            restarts: false,
            more_ports,
            com1_socket: None,
            tap: None,
        }
    }
}

/// OVMF, Debian's UEFI for QEMU: its code, and the variables that it begins with.
const OVMF: [&str; 2] = ["/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"];

/// The command that starts the machine in `dir`, where the medium lies. The serial ports go to the files `com1`, `com2`.
pub(crate) fn command(machine: &Machine<'_>, dir: &Path) -> Result<Command> {
    let mut command = Command::new("setpriv");
    // If xtask is killed, its machines go with it.
    command.args(["--pdeathsig", "KILL", "qemu-system-x86_64", "-nodefaults", "-machine", "q35", "-display", "none"]);
    command.args(["-accel", if machine.kvm { "kvm" } else { "tcg" }, "-cpu", machine.cpu_model]);
    command.args(["-smp", &machine.cpus.to_string(), "-m", &machine.memory.to_string()]);
    let com1 = machine.com1_socket.as_ref().map_or("file:com1".to_owned(), |address| format!("tcp:{address}"));
    command.args(["-vga", "std", "-serial", &com1, "-serial", "file:com2"]);
    command.args(["-device", "isa-debug-exit,iobase=0xf4,iosize=0x4"]).current_dir(dir);
    for port in &machine.more_ports {
        let (name, number) = (port.name(), *port as usize);
        command.args(["-chardev", &format!("file,id={name},path={name}")]);
        command.args(["-device", &format!("isa-serial,chardev={name},index={number}")]);
    }
    if machine.restarts {
        command.args(["-global", "ICH9-LPC.noreboot=false"]);
    } else {
        command.arg("-no-reboot");
    }
    if machine.firmware == Firmware::Uefi {
        let [code, variables] = OVMF;
        places::write(&dir.join("variables"), places::read(Path::new(variables))?)?;
        command.args(["-drive", &format!("if=pflash,format=raw,readonly=on,file={code}")]);
        command.args(["-drive", "if=pflash,format=raw,file=variables"]);
    }
    match machine.boot {
        Boot::GrubIso => command.args(["-cdrom", ISO, "-boot", "d"]),
        Boot::GrubUsb => command.args(["-drive", &format!("format=raw,file={USB}"), "-boot", "c"]),
        Boot::GrubPxe => add_network_boot(&mut command, machine),
        Boot::Ipxe => command.args(["-netdev", &network(netboot::IPXE), "-device", CARD, "-boot", "n"]),
        Boot::Kernel => {
            let (words, modules) = &machine.kernel;
            command.args(["-kernel", &format!("{TREE}/boot/nestling"), "-append", words]);
            if modules.is_empty() { &mut command } else { command.args(["-initrd", modules]) }
        }
    };
    Ok(command)
}

/// A network card with a boot ROM for BIOS: iPXE.
const CARD: &str = "virtio-net-pci,netdev=net";

fn add_network_boot<'a>(command: &'a mut Command, machine: &Machine<'_>) -> &'a mut Command {
    // UEFI has its own driver for the card; a ROM would put iPXE before it.
    let (file, rom) = match machine.firmware {
        Firmware::Bios => (netboot::BIOS, ""),
        Firmware::Uefi => (netboot::UEFI, ",romfile="),
    };
    let network = match machine.tap {
        None => network(file),
        Some(tap) => format!("tap,id=net,ifname={tap},script=no,downscript=no"),
    };
    command.args(["-netdev", &network, "-device", &format!("{CARD}{rom}"), "-boot", "n"])
}

/// QEMU's own DHCP and TFTP server, for this machine alone.
fn network(boot_file: &str) -> String {
    format!("user,id=net,tftp={TREE},bootfile={boot_file}")
}

/// Why this host cannot play an Intel machine with VT-x by KVM, if so.
pub(crate) fn kvm_is_missing() -> Option<&'static str> {
    if std::fs::OpenOptions::new().read(true).write(true).open("/dev/kvm").is_err() {
        return Some("this user cannot open /dev/kvm: KVM is not here, or not for this user");
    }
    match std::fs::read_to_string("/sys/module/kvm_intel/parameters/nested") {
        Err(_) => Some("this host's processor is not an Intel one with VT-x"),
        Ok(nested) if matches!(nested.trim(), "Y" | "1") => None,
        Ok(_) => Some("this host's KVM does not nest: load kvm_intel with nested=1"),
    }
}
