//! Bochs as the machine: its configuration, and what its log tells about the end of a run.

use crate::board::Boot;
use crate::medium::{ISO, TREE, USB, netboot};
use crate::setup::bochs::Bochs;
use anyhow::{Context, Result};
use config::SerialPort;
use std::path::Path;
use std::process::Command;

/// A machine for Bochs to play.
pub(crate) struct Machine<'a> {
    /// A CPU model of Bochs.
    pub(crate) cpu_model: &'a str,
    /// How many processors.
    pub(crate) cpus: u32,
    /// RAM in MiB.
    pub(crate) memory: u32,
    /// How many instructions each processor executes in a microsecond of the machine's time.
    pub(crate) mips: u32,
    /// Whether MSRs that Bochs does not know read as zero instead of raising #GP as on a real processor. A Linux that
    /// runs on Bochs itself needs that: it reads IA32_MISC_ENABLE, which Bochs lacks, before it can take a fault.
    pub(crate) lenient_msrs: bool,
    /// Whether the firmware locks VMX off, as some PCs' firmware does.
    pub(crate) vmx_locked_off: bool,
    /// What it boots from: a CD, a disk, or the network.
    pub(crate) boot: Boot,
    /// Serial ports beside COM1 and COM2.
    pub(crate) more_ports: Vec<SerialPort>,
    /// COM1 is not a file but a socket that somebody listens to here.
    pub(crate) com1_socket: Option<String>,
}

/// How quick the machine is unless said otherwise, in [`Machine::mips`].
pub(crate) const MIPS: u32 = 100;
/// Bochs takes no more, as a number of 32 bits in its configuration.
pub(crate) const MOST_MIPS: u32 = u32::MAX / 1_000_000;

/// Bochs keeps at most this much guest memory in its own: more makes version 3.0 fail at start.
const HOST_MEMORY_LIMIT: u32 = 2048;

/// The boot ROM of Bochs's network card.
pub(crate) const BOOT_ROM: &str = "/usr/lib/ipxe/qemu/pxe-e1000.rom";

/// The changed firmware in a run's folder.
const LOCKING_BIOS: &str = "bios";

/// Writes the configuration into `dir`, where the medium lies, and returns the command that starts the machine there. The
/// serial ports go to the files `com1`, `com2` and so on, Bochs's own log to its standard error.
pub(crate) fn command(machine: &Machine<'_>, dir: &Path) -> Result<Command> {
    crate::places::write(&dir.join("bochsrc"), bochsrc(machine))?;
    let boot_file = if machine.boot == Boot::Ipxe { netboot::IPXE } else { netboot::BIOS };
    // Bochs knows the file by its first line.
    crate::places::write(&dir.join("vnet"), format!("# vnet config\nbootfile = {boot_file}\n"))?;
    let bochs = Bochs::installed()?;
    if machine.vmx_locked_off {
        let bios = crate::places::read(&bochs.share().join("BIOS-bochs-latest"))?;
        crate::places::write(&dir.join(LOCKING_BIOS), lock_vmx_off(&bios)?)?;
    }
    // setpriv: if xtask is killed, its machines go with it.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]).args(bochs.command_line()).args(["-q", "-f", "bochsrc"]);
    command.envs(bochs.environment()).current_dir(dir);
    Ok(command)
}

/// Bochs's firmware, changed so that it sets bit 0 (lock) of IA32_FEATURE_CONTROL alone, not bit 2 (VMXON allowed) too.
fn lock_vmx_off(bios: &[u8]) -> Result<Vec<u8>> {
    // mov ecx, 0x3a; rdmsr; or eax, 5; wrmsr: once in 32-bit code, once in 16-bit code with operand-size prefixes.
    const CODE_32: &[u8] = &[0x3A, 0, 0, 0, 0x0F, 0x32, 0x83, 0xC8, 5, 0x0F, 0x30];
    const CODE_16: &[u8] = &[0x3A, 0, 0, 0, 0x0F, 0x32, 0x66, 0x83, 0xC8, 5, 0x0F, 0x30];
    let mut bios = bios.to_vec();
    for code in [CODE_32, CODE_16] {
        let at = bios.windows(code.len()).position(|window| window == code);
        let at = at.context("Bochs's firmware does not write IA32_FEATURE_CONTROL as it used to")?;
        bios[at + code.len() - 3] = 1;
    }
    Ok(bios)
}

fn bochsrc(machine: &Machine<'_>) -> String {
    let Machine { cpu_model, cpus, memory, mips, lenient_msrs, vmx_locked_off, boot, more_ports, com1_socket } =
        machine;
    let (mode, dev) = com1_socket.as_ref().map_or(("file", "com1"), |address| ("socket-client", address.as_str()));
    let mut ports = format!("com1: enabled=1, mode={mode}, dev={dev}\n");
    for port in [SerialPort::Com2].iter().chain(more_ports) {
        ports += &format!("{0}: enabled=1, mode=file, dev={0}\n", port.name());
    }
    let bios = if *vmx_locked_off { LOCKING_BIOS } else { "$BXSHARE/BIOS-bochs-latest" };
    let ignore_bad_msrs = u8::from(*lenient_msrs);
    let host = memory.min(&HOST_MEMORY_LIMIT);
    let medium = match boot {
        Boot::GrubIso => format!("ata0-master: type=cdrom, path={ISO}, status=inserted\nboot: cdrom"),
        Boot::GrubUsb => format!("ata0-master: type=disk, path={USB}, mode=flat\nboot: disk"),
        // The card's boot ROM is iPXE, from Debian's ipxe-qemu; Bochs is the DHCP and TFTP server.
        Boot::GrubPxe | Boot::Ipxe | Boot::Kernel => format!(
            "e1000: enabled=1, mac=52:54:00:12:34:56, ethmod=vnet, ethdev={TREE}, script=vnet, bootrom={BOOT_ROM}\n\
             boot: network"
        ),
    };
    // sync=none with a fixed start time makes a run repeat exactly: one instruction is one tick, on any host.
    // Debian's build has no headless display but rfb, which nobody has to connect to.
    // Unmapped ports are reported for the exit port, pc_system for resets; both are silent otherwise.
    format!(
        "config_interface: textconfig\n\
         display_library: rfb, options=\"timeout=0\"\n\
         memory: guest={memory}, host={host}\n\
         romimage: file={bios}\n\
         vgaromimage: file=$BXSHARE/VGABIOS-lgpl-latest\n\
         ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14\n\
         {medium}\n\
         {ports}\
         cpu: model={cpu_model}, count={cpus}, ips={mips}000000, reset_on_triple_fault=0, \
          ignore_bad_msrs={ignore_bad_msrs}\n\
         clock: sync=none, time0=1700000000\n\
         sound: waveoutdrv=dummy, waveindrv=dummy, midioutdrv=dummy\n\
         log: -\n\
         panic: action=fatal\n\
         error: action=report\n\
         info: action=ignore, pc_system=report\n\
         debug: action=ignore, unmapped=report\n\
         mouse: enabled=0\n"
    )
}

/// What a line of Bochs's log says about the machine's end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A 32-bit write to port 0xF4, which no device of Bochs answers.
    ExitPort(u32),
    /// Power-off by ACPI.
    PowerOff,
    /// The port with which Nestling ends Bochs.
    Shutdown,
    /// A reset of the machine other than the one at power-on.
    Reset,
    /// A processor stopped for good.
    TripleFault,
    /// Bochs gave up.
    Panic(String),
}

/// Reads a line of Bochs's log: the tick it was written at, and the event it tells of.
pub(crate) fn read_line(line: &str) -> (Option<u64>, Option<Event>) {
    // "00012345678d[UNMAP ] text": ticks, level, module.
    let digits = line.bytes().take_while(u8::is_ascii_digit).count();
    let Some((ticks, text)) = line.split_at_checked(digits).filter(|_| digits >= 11) else { return (None, None) };
    let ticks: Option<u64> = ticks.parse().ok();
    let event = if let Some((_, value)) = text.split_once("32-bit write to 00f4 = ") {
        u32::from_str_radix(value.trim(), 16).ok().map(Event::ExitPort)
    } else if text.contains("ACPI control: soft power off") {
        Some(Event::PowerOff)
    } else if text.contains("Shutdown port: shutdown requested") {
        Some(Event::Shutdown)
    } else if text.contains("exception with no resolution") {
        Some(Event::TripleFault)
    } else if text.contains("bx_pc_system_c::Reset(") && ticks != Some(0) {
        Some(Event::Reset)
    } else {
        text.split_once(">>PANIC<<").map(|(_, why)| Event::Panic(why.trim().to_owned()))
    };
    (ticks, event)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines as Bochs 3.0 of Debian 13 wrote them.
    #[test]
    fn lines_of_the_log() {
        for (line, expected) in [
            ("00000000000i[SYS   ] bx_pc_system_c::Reset(HARDWARE) called", (Some(0), None)),
            ("00372127148i[SYS   ] bx_pc_system_c::Reset(SOFTWARE) called", (Some(372_127_148), Some(Event::Reset))),
            ("00372127148d[UNMAP ] 32-bit write to 00f4 = 00000103", (Some(372_127_148), Some(Event::ExitPort(0x103)))),
            ("00005347773d[UNMAP ] 8-bit write to 016e = b0", (Some(5_347_773), None)),
            ("00372127148p[ACPI  ] >>PANIC<< ACPI control: soft power off", (Some(372_127_148), Some(Event::PowerOff))),
            (
                "100372127148p[UNMAP ] >>PANIC<< Shutdown port: shutdown requested",
                (Some(100_372_127_148), Some(Event::Shutdown)),
            ),
            ("00000000000p[      ] >>PANIC<< no such file", (Some(0), Some(Event::Panic("no such file".to_owned())))),
            ("Bochs is exiting with the following message:", (None, None)),
            ("", (None, None)),
        ] {
            assert_eq!(read_line(line), expected, "{line}");
        }
    }
}
