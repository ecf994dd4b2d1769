//! Guests that are hypervisors themselves.

use super::{Case, Expect, Kernel};
use crate::board;
use crate::guest_linux::load;
use anyhow::Result;
use std::time::Duration;

/// The time that the project's promise allows.
const SECONDS: u64 = 1200;
/// For a minute of load on a quick machine.
const LONG_SECONDS: u64 = 2 * 3600;

/// The speed of a machine on which a guest's guest has time for the load and to spare: the tick of a timer there is ten exits
/// and more, and a byte on its serial port goes through QEMU. At the usual speed that alone keeps a processor busy, on the
/// bare machine too.
const QUICK_MIPS: u32 = 600;

/// What Nestling's log says when it refuses an entry of L1, in the line that tells the rule.
const ENTRY_FAILED: &str = "entry of L1 failed";

/// Stock Debian Linux with KVM and QEMU as L1: each L2 comes up and ends, and nobody had anything to complain about.
pub(super) fn all() -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    for (name, words, seconds) in [
        ("kvm-load-in-l1-apicv-2-vcpu-60-s", "kvm_intel.enable_apicv=1 l2.strict l2.load=60", 60),
        ("kvm-load-in-l1-apicv-2-vcpu-4-s", "kvm_intel.enable_apicv=1 l2.strict l2.load=4", 4),
    ] {
        let mut case = case(name, "load", words, load::CPUS)?;
        case.spec.mips = QUICK_MIPS;
        case.spec.timeout = Some(Duration::from_secs(LONG_SECONDS));
        case.expect.push(Expect::Load { seconds, longest_wait: load::LONGEST_WAIT_IN_L2 });
        case.expect.push(Expect::Console("] x2apic enabled".to_owned()));
        case.expect.push(Expect::Log("interrupts that L1 had posted: given to L2 ".to_owned()));
        case.is_long = true;
        cases.push(case);
    }
    for (name, words, cpus) in [
        // Without APICv of L2, as in the comparison: on Bochs 3.0 itself KVM's entries fail with it.
        ("kvm-linux-in-l1-ept", "kvm_intel.enable_apicv=0", 1),
        ("kvm-linux-in-l1-ept-2-vcpu", "kvm_intel.enable_apicv=0", 2),
        ("kvm-linux-in-l1-no-ept", "kvm_intel.ept=0 kvm_intel.enable_apicv=0", 1),
        // With it: delivery by the processor, posted interrupts, x2APIC mode.
        ("kvm-linux-in-l1-apicv", "kvm_intel.enable_apicv=1", 1),
        ("kvm-linux-in-l1-apicv-2-vcpu", "kvm_intel.enable_apicv=1", 2),
    ] {
        let mut case = case(name, "linux", words, cpus)?;
        case.expect.push(Expect::L2Exercise);
        case.is_long = !["kvm-linux-in-l1-ept", "kvm-linux-in-l1-apicv"].contains(&name);
        cases.push(case);
    }
    for (name, words) in [
        ("kvm-small-in-l1-ept", "kvm_intel.enable_apicv=0"),
        ("kvm-small-in-l1-no-ept", "kvm_intel.ept=0 kvm_intel.enable_apicv=0"),
    ] {
        let mut case = case(name, "small", words, 1)?;
        // The code that L2 wrote comes out of the emulator as the status of L1.
        case.status = 21;
        case.expect.push(Expect::Console("hello from a multiboot guest in 64-bit mode".to_owned()));
        case.is_long = name == "kvm-small-in-l1-ept";
        cases.push(case);
    }
    Ok(cases)
}

/// An L1 of so many processors with this L2; `words` for its command line.
fn case(name: &str, l2: &'static str, words: &'static str, cpus: u32) -> Result<Case> {
    let mut case = Case::new(name, board::DEFAULT, Kernel::Kvm { l2, words }, SECONDS)?;
    case.spec.cpus = cpus;
    let ept = if words.contains("ept=0") { "N" } else { "Y" };
    case.expect.push(Expect::Console(format!("L1: user space reached on {cpus} processors")));
    case.expect.push(Expect::Console(format!("L1: kvm-intel has ept={ept}")));
    if words.contains("enable_apicv=1") {
        case.expect.push(Expect::Console("L1: kvm-intel has enable_apicv=Y".to_owned()));
    }
    if l2 != "small" {
        case.expect.push(Expect::Console("L1: QEMU's status is 0".to_owned()));
    }
    case.expect.push(Expect::Console("L1: done".to_owned()));
    case.expect.extend(["L1: QEMU says", "L1: warning of the kernel"].map(Expect::ConsoleLacks));
    case.expect.push(Expect::LogLacks(ENTRY_FAILED));
    Ok(case)
}
