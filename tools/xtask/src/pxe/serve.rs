//! Debian's dnsmasq as the server: proxy-DHCP, which adds the boot file to what the network's DHCP server says, and TFTP.

use crate::command::Tool;
use crate::console::say;
use crate::medium::netboot;
use crate::places;
use crate::setup::{self, Need};
use anyhow::{Context, Result, bail};
use std::io::{BufRead, BufReader, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The network that is served.
pub(super) struct Network {
    interface: String,
    /// What gives dnsmasq root's rights, if this user has not got them.
    sudo: Option<PathBuf>,
    /// Our own address in it.
    pub(super) address: String,
}

impl Network {
    /// Finds the interface's address; whatever would make serving fail later is refused here.
    pub(super) fn find(interface: &str) -> Result<Self> {
        let sudo = sudo()?;
        // What the kernel says needs no program that may be missing: two lines of headings, then "  eth0: 1234 ...".
        let links = std::fs::read_to_string("/proc/self/net/dev").context("cannot read /proc/self/net/dev")?;
        let names: Vec<&str> = links.lines().filter_map(|line| Some(line.split_once(':')?.0.trim())).collect();
        if !names.contains(&interface) {
            bail!("there is no network interface {interface:?}; there are {}", names.join(", "));
        }
        setup::ensure(&[Need::NetbootServer])?;
        // "2: eth0    inet 192.168.1.5/24 brd ...".
        let text = Tool::new("ip").args(["-o", "-4", "address", "show", "dev", interface]).output()?;
        let address = text.split_whitespace().skip_while(|word| *word != "inet").nth(1);
        let address = address.and_then(|word| word.split('/').next()).map(str::to_owned);
        let address = address.with_context(|| {
            format!("the interface {interface} has no IPv4 address: connect it to the network of the machines first")
        })?;
        Ok(Network { interface: interface.to_owned(), sudo, address })
    }
}

/// The program that gives root's rights; none when this user is root. It may ask for a password only where somebody can type.
fn sudo() -> Result<Option<PathBuf>> {
    if Tool::new("id").arg("-u").output()?.trim() == "0" {
        return Ok(None);
    }
    let sudo = places::program("sudo");
    let may = |sudo: &PathBuf| std::io::stdin().is_terminal() || Tool::new(sudo).args(["-n", "true"]).output().is_ok();
    match sudo.filter(may) {
        Some(sudo) => Ok(Some(sudo)),
        None => bail!("serving takes root rights, for the ports 67 and 69: be root, or a user whom sudo lets be"),
    }
}

/// What dnsmasq is told.
fn arguments(network: &Network, tree: &Path) -> Vec<String> {
    let Network { interface, address, .. } = network;
    // Client architectures: RFC 4578 2.1; iPXE says who it is by DHCP option 175. On UEFI it cannot load us, GRUB can.
    vec![
        "--keep-in-foreground".to_owned(),
        "--conf-file=/dev/null".to_owned(),
        "--log-facility=-".to_owned(),
        "--pid-file=".to_owned(),
        "--port=0".to_owned(),
        format!("--interface={interface}"),
        "--bind-interfaces".to_owned(),
        // The tree may lie in a home folder that another user cannot read.
        "--user=root".to_owned(),
        format!("--dhcp-range={address},proxy"),
        "--dhcp-match=set:ipxe,175".to_owned(),
        format!("--pxe-service=tag:ipxe,X86PC,Nestling,{}", netboot::IPXE),
        format!("--pxe-service=tag:!ipxe,X86PC,Nestling,{}", netboot::BIOS),
        format!("--pxe-service=X86-64_EFI,Nestling,{}", netboot::UEFI),
        format!("--pxe-service=BC_EFI,Nestling,{}", netboot::UEFI),
        "--enable-tftp".to_owned(),
        format!("--tftp-root={}", tree.display()),
    ]
}

/// Runs the server until it is stopped.
pub(super) fn serve(network: &Network, tree: &Path) -> Result<()> {
    let dnsmasq = places::program("dnsmasq").context("dnsmasq is not there any more")?;
    let mut child = Command::new("setpriv")
        .args(["--pdeathsig", "TERM"])
        .args(&network.sudo)
        .arg(dnsmasq)
        .args(arguments(network, tree))
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start dnsmasq")?;
    let output = child.stderr.take().context("dnsmasq has no output")?;
    let mut last = String::new();
    for line in BufReader::new(output).lines() {
        let Ok(line) = line else { break };
        if line.contains("started") {
            say(&format!(
                "serving on {} ({}) until Ctrl-C; who boots is shown here",
                network.interface, network.address
            ));
        }
        say(&format!("  {}", line.trim()));
        if !line.trim().is_empty() {
            last = line;
        }
    }
    let status = child.wait().context("cannot wait for dnsmasq")?;
    if last.contains("in use") {
        bail!("another DHCP or TFTP server of this machine has the port: stop it first ({})", last.trim());
    }
    if !status.success() {
        bail!("dnsmasq stopped: {}", last.trim());
    }
    Ok(())
}
