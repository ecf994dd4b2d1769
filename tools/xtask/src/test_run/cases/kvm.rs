//! Guests that are hypervisors themselves.

use super::{Case, Expect, Kernel};
use crate::board;
use crate::guest_linux::{kvm, load};
use anyhow::Result;

/// The time that the project's promise allows.
const SECONDS: u64 = 1200;

/// What Nestling's log says when it refuses an entry of L1, in the line that tells the rule.
const ENTRY_FAILED: &str = "entry of L1 failed";

/// Stock Debian Linux with KVM and QEMU as L1: each L2 comes up and ends, and nobody had anything to complain about.
pub(super) fn all() -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    for (name, l2, parameters, cpus) in [
        // Without APICv of L2, as in the comparison: on Bochs 3.0 itself KVM's entries fail with it.
        ("kvm-linux-in-l1-ept", "linux", "kvm_intel.enable_apicv=0", 1),
        ("kvm-linux-in-l1-ept-2-vcpu", "linux", "kvm_intel.enable_apicv=0", 2),
        ("kvm-linux-in-l1-no-ept", "linux", "kvm_intel.ept=0 kvm_intel.enable_apicv=0", 1),
        // With it: delivery by the processor, posted interrupts, x2APIC mode.
        ("kvm-linux-in-l1-apicv", "linux", "kvm_intel.enable_apicv=1", 1),
        ("kvm-linux-in-l1-apicv-2-vcpu", "linux", "kvm_intel.enable_apicv=1", 2),
        ("kvm-load-in-l1-apicv-2-vcpu", "load", "kvm_intel.enable_apicv=1", 2),
        ("kvm-small-in-l1-ept", "small", "kvm_intel.enable_apicv=0", 1),
        ("kvm-small-in-l1-no-ept", "small", "kvm_intel.ept=0 kvm_intel.enable_apicv=0", 1),
    ] {
        let mut case = Case::new(name, board::DEFAULT, Kernel::Kvm { l2, parameters }, SECONDS)?;
        case.spec.cpus = cpus;
        let ept = if parameters.contains("ept=0") { "N" } else { "Y" };
        case.expect.push(Expect::Console(format!("L1: user space reached on {cpus} processors")));
        case.expect.push(Expect::Console(format!("L1: kvm-intel has ept={ept}")));
        if parameters.contains("enable_apicv=1") {
            case.expect.push(Expect::Console("L1: kvm-intel has enable_apicv=Y".to_owned()));
        }
        if l2 == "small" {
            // The code that L2 wrote comes out of the emulator as the status of L1.
            case.status = 21;
            case.expect.push(Expect::Console("hello from a multiboot guest in 64-bit mode".to_owned()));
        } else {
            case.expect.push(match l2 {
                "load" => Expect::Load { seconds: kvm::LOAD_SECONDS, least: load::OF_L2 },
                _ => Expect::L2Exercise,
            });
            case.expect.push(Expect::Console("L1: QEMU's status is 0".to_owned()));
        }
        case.expect.push(Expect::Console("L1: done".to_owned()));
        case.expect.extend(["L1: QEMU says", "L1: warning of the kernel"].map(Expect::ConsoleLacks));
        case.expect.push(Expect::LogLacks(ENTRY_FAILED));
        case.is_long = !["kvm-linux-in-l1-ept", "kvm-linux-in-l1-apicv", "kvm-small-in-l1-no-ept"].contains(&name);
        cases.push(case);
    }
    Ok(cases)
}
